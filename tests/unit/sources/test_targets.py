"""What the user types and which repositories it means."""

import pytest

from scanner.sources.local import LocalSource
from scanner.sources.targets import open_source, parse_targets, sibling
from schemas.errors import TargetError
from schemas.work import Target

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def shelf(tmp_path):
    """A folder of models laid out owner/name."""
    for path in ("acme/small", "acme/large", "beta/one"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "model.safetensors").touch()
    return tmp_path


def named(*texts):
    return [target.repo_id for target in parse_targets([str(text) for text in texts])]


@pytest.mark.parametrize(
    ("text", "repo_id", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("gpt2", "gpt2", None),
        ("owner/name@main", "owner/name", "main"),
        (f"owner/name@{COMMIT}", "owner/name", COMMIT),
        ("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
        ("owner/na.me_1-2@v1.0", "owner/na.me_1-2", "v1.0"),
    ],
)
def test_names_on_the_hub(text, repo_id, revision):
    assert parse_targets([text]) == (Target(repo_id=repo_id, revision=revision),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./nowhere", "no such file or folder"),
        ("/nowhere/at/all", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
        ("https://huggingface.co/a/b", "is a URL: give owner/name"),
        ("model.safetensors", "no such file or folder"),
        ("owner/na me", "neither a path nor a repository id"),
        ("owner/..", "neither a path nor a repository id"),
        ("owner/a--b", "neither a path nor a repository id"),
        ("", "no model in|neither a path"),
        ("owner/" + "x" * 97, "neither a path nor a repository id"),
        ("https:/hub", "neither a path nor a repository id"),
    ],
)
def test_what_means_nothing_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match=message):
        parse_targets([text])


def test_a_model_folder_is_named_by_its_last_two_parts(shelf):
    (target,) = parse_targets([str(shelf / "acme/small")])
    assert target == Target(repo_id="acme/small", root=str(shelf / "acme/small"))
    assert isinstance(open_source(target), LocalSource)


def test_a_file_is_a_model(shelf):
    assert named(shelf / "acme/small/model.safetensors") == ["small/model.safetensors"]


def test_a_shelf_is_all_its_models_in_order(shelf):
    (shelf / ".git/hooks").mkdir(parents=True)
    (shelf / "beta/empty").mkdir()
    (shelf / "beta/pickled").mkdir()
    (shelf / "beta/pickled/pytorch_model.bin").touch()
    assert named(shelf) == ["acme/large", "acme/small", "beta/one", "beta/pickled"]
    assert named(shelf / "acme")[0] == "acme/large"


def test_each_target_is_taken_once(shelf):
    assert named(shelf / "acme/small", "owner/name", shelf, "owner/name") == [
        "acme/small",
        "owner/name",
        "acme/large",
        "beta/one",
    ]


@pytest.mark.parametrize("within", ["", "hub", "hub/models--owner--name"])
def test_a_huggingface_cache_names_its_repositories(tmp_path, within):
    snapshot = tmp_path / "hub/models--owner--name/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (target,) = parse_targets([str(tmp_path / within)])
    assert target == Target(repo_id="owner/name", root=str(snapshot))


def test_a_snapshot_knows_whose_it_is(tmp_path):
    snapshot = tmp_path / "models--owner--name/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert named(snapshot) == ["owner/name"]


def test_a_folder_without_models_says_what_was_expected(tmp_path):
    with pytest.raises(TargetError, match=r"no model in .*: expected safetensors files"):
        parse_targets([str(tmp_path)])


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(TargetError, match=r"is no \.safetensors file"):
        parse_targets([str(tmp_path / "model.bin")])


# The base beside a local model


def beside(root, repo_id):
    (target,) = parse_targets([str(root)])
    found = sibling(target, repo_id)
    return None if found is None else (found.repo_id, found.root)


def test_a_base_lies_beside_its_fine_tune(shelf):
    assert beside(shelf / "beta/one", "acme/small") == ("acme/small", str(shelf / "acme/small"))
    assert beside(shelf / "acme/large", "acme/small") == ("acme/small", str(shelf / "acme/small"))


@pytest.mark.parametrize(
    "name", ["acme/none", "../acme/small", "acme", "", "/acme/small", "acme/../acme/small"]
)
def test_what_is_not_beside_it_is_none(shelf, name):
    assert beside(shelf / "beta/one", name) is None


def test_a_cache_holds_a_base_too_unless_in_two_commits(tmp_path):
    for name in ("acme--tuned", "acme--base"):
        snapshot = tmp_path / f"models--{name}" / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").touch()
    root = tmp_path / "models--acme--tuned/snapshots" / COMMIT
    assert beside(root, "acme/base") == ("acme/base", str(tmp_path / "models--acme--base/snapshots" / COMMIT))
    (tmp_path / "models--acme--base/snapshots" / COMMIT[::-1]).mkdir()
    assert beside(root, "acme/base") is None
    assert beside(root, "acme/other") is None
