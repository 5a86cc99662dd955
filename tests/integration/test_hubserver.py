"""The Hub server answers the unmodified huggingface_hub client, and spoils replies only as asked."""

import gzip
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url
from safetensors.numpy import load_file

from jobs.hub.server import HubServer
from schemas.errors import ConfigError, TargetError

TOKEN = "hf_" + "t" * 20
WEIGHTS = "acme/base/resolve/main/model.safetensors"


@pytest.fixture(scope="module")
def root(make_hub_root, tmp_path_factory):
    return make_hub_root(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def running(root):
    with HubServer(root, token=TOKEN, page_size=2, test_control=True) as server:
        yield server


@pytest.fixture
def hub(running):
    running.clear()
    return running


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


@pytest.fixture
def anonymous(hub):
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def dataset(api, request):
    repo_id = f"acme/{request.node.name.replace('_', '-').strip('-')[:60]}"
    api.create_repo(repo_id, repo_type="dataset")
    return repo_id


def fetch(url, headers=None, method="GET", body=None):
    """One request without a client's retries and redirects: (status, headers, body)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        connection.request(method, url.partition(parts.netloc)[2], body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def signed_url(hub, path=WEIGHTS):
    status, headers, _ = fetch(f"{hub.endpoint}/{path}")
    assert status == 302
    return headers["Location"]


# Discovery


def test_listing_walks_all_pages_and_hides_private_and_renamed(api, anonymous, hub):
    everyone = {model.id for model in anonymous.list_models()}
    assert everyone == {f"acme/{name}" for name in ("base", "tuned", "sharded", "gated", "closed", "off")}
    assert {model.id for model in api.list_models()} == everyone | {"acme/secret"}
    pages = [entry for entry in hub.log if not entry["had_auth"]]
    assert len(pages) == 3


@pytest.mark.parametrize(
    ("sort", "first"),
    [("likes", "acme/tuned"), ("downloads", "acme/tuned"), ("last_modified", "acme/sharded")],
)
def test_listing_sorts_descending(anonymous, sort, first):
    assert [model.id for model in anonymous.list_models(sort=sort, limit=1)] == [first]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"filter": ["safetensors", "base_model:acme/base"]}, {"tuned"}),
        ({"filter": "license:apache-2.0"}, {"tuned"}),
        ({"search": "SHARD"}, {"sharded"}),
        ({"author": "nobody"}, set()),
        ({"pipeline_tag": "feature-extraction"}, {"tuned"}),
        ({"gated": True}, {"gated", "closed"}),
        ({"num_parameters": "min:0.1K,max:0.5K"}, {"sharded"}),
    ],
)
def test_listing_filters(anonymous, query, found):
    assert {model.id for model in anonymous.list_models(**query)} == {f"acme/{name}" for name in found}


def test_listing_expands_fields(anonymous):
    fields = ["sha", "lastModified", "safetensors", "gated", "config", "tags", "baseModels", "usedStorage"]
    tuned = next(iter(anonymous.list_models(search="tuned", expand=fields)))
    assert len(tuned.sha) == 40
    assert tuned.safetensors.parameters == {"F16": 256, "F32": 528}
    assert tuned.config == {"model_type": "bert", "architectures": ["BertModel"]}
    assert tuned.base_models == {
        "relation": "finetune",
        "models": [{"_id": tuned.base_models["models"][0]["_id"], "id": "acme/base"}],
    }
    assert tuned.likes is None


def test_listing_is_not_shifted_by_an_edit_during_the_walk(anonymous, root):
    walk = iter(anonymous.list_models(sort="likes"))
    seen = [next(walk).id for _ in range(2)]
    settings = root / "models/acme/off/.hub.json"
    before = settings.read_text()
    settings.write_text(json.dumps({"disabled": True, "likes": 99}))
    seen += [model.id for model in walk]
    settings.write_text(before)
    assert sorted(seen) == sorted(set(seen))
    assert "acme/base" in seen


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=zzz", "num_parameters=big"])
def test_listing_refuses_queries_it_does_not_understand(hub, query):
    assert fetch(f"{hub.endpoint}/api/models?{query}")[0] == 400


# Facts


def test_model_info_states_files_card_and_config(api, root):
    info = api.model_info("acme/tuned", files_metadata=True)
    weights = next(file for file in info.siblings if file.rfilename == "model.safetensors")
    content = (root / "models/acme/tuned/model.safetensors").read_bytes()
    assert [file.rfilename for file in info.siblings] == ["README.md", "config.json", "model.safetensors"]
    assert weights.size == weights.lfs.size == len(content)
    assert weights.lfs.sha256 == hashlib.sha256(content).hexdigest()
    assert info.card_data.license == "apache-2.0"
    assert info.config == {"model_type": "bert", "architectures": ["BertModel"]}
    assert {"tiny", "2024", "license:apache-2.0", "base_model:acme/base", "safetensors"} <= set(info.tags)
    assert (info.library_name, info.pipeline_tag, info.likes) == ("transformers", "feature-extraction", 5)
    assert info.gated is info.private is info.disabled is False


def test_blob_ids_are_those_of_git(api, root, tmp_path):
    info = api.model_info("acme/base", files_metadata=True)
    stated = {file.rfilename: file for file in info.siblings}
    folder = root / "models/acme/base"
    weights = stated["model.safetensors"]
    pointer = tmp_path / "pointer"
    pointer.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{weights.lfs.sha256}\nsize {weights.size}\n"
    )
    for file, blob_id in (
        (folder / "config.json", stated["config.json"].blob_id),
        (pointer, weights.blob_id),
    ):
        out = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == blob_id
    assert weights.lfs.pointer_size == pointer.stat().st_size


def test_revisions(api):
    sha = api.model_info("acme/base").sha
    for revision in ("main", "refs/heads/main", sha):
        assert api.model_info("acme/base", revision=revision).sha == sha
    for revision in ("0" * 40, "v1", "refs/pr/1"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("acme/base", revision=revision)


def test_equal_folders_have_equal_commits(make_hub_root, tmp_path, api):
    other = make_hub_root(tmp_path)
    with HubServer(other / "models") as flat:
        info = HfApi(endpoint=flat.endpoint, token=False).model_info("acme/sharded")
    assert info.sha == api.model_info("acme/sharded").sha


def test_dataset_info(api):
    info = api.dataset_info("acme/table")
    assert [file.rfilename for file in info.siblings] == ["data.csv"]
    assert [found.id for found in api.list_datasets(author="acme", search="tabl")] == ["acme/table"]


def test_a_card_with_aliases_or_broken_yaml_is_no_card(api, root):
    card = root / "models/acme/base/README.md"
    for text in ("---\na: &x [1]\nb: *x\n---\n", "---\n: [\n---\n", "---\n- list\n---\n", "no card"):
        card.write_text(text)
        assert api.model_info("acme/base").card_data is None
    card.unlink()


def test_broken_settings_name_the_file(hub, root):
    folder = root / "models/acme/broken"
    folder.mkdir()
    (folder / ".hub.json").write_text("[]")
    status, headers, _ = fetch(f"{hub.endpoint}/api/models/acme/broken")
    (folder / ".hub.json").unlink()
    folder.rmdir()
    assert status == 500
    assert "acme/broken/.hub.json: expected a JSON object, got list" in headers["X-Error-Message"]


# Files


def test_tree_recursive_over_pages(api):
    items = {item.path: item for item in api.list_repo_tree("acme/sharded", recursive=True)}
    assert {"config.json", "sub", "sub/deep", "sub/deep/note.txt", "model.safetensors.index.json"} <= set(
        items
    )
    assert ".hub.json" not in items
    assert items["model-00001-of-00002.safetensors"].lfs.size > 0
    assert items["sub/deep"].tree_id != items["config.json"].blob_id


def test_tree_of_one_folder(api):
    assert {item.path for item in api.list_repo_tree("acme/sharded", "sub/deep")} == {"sub/deep/note.txt"}
    assert {item.path for item in api.list_repo_tree("acme/sharded", "sub", expand=True)} == {"sub/deep"}
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("acme/sharded", "nowhere"))


def test_paths_info_leaves_out_what_is_missing(api):
    found = api.get_paths_info("acme/sharded", ["config.json", "sub", "gone.txt"])
    assert [item.path for item in found] == ["config.json", "sub"]
    assert all(item.last_commit is not None for item in found)


def test_refs_and_commits(api):
    sha = api.model_info("acme/base").sha
    refs = api.list_repo_refs("acme/base")
    assert [(branch.name, branch.target_commit) for branch in refs.branches] == [("main", sha)]
    assert [commit.commit_id for commit in api.list_repo_commits("acme/base")] == [sha]


def test_file_metadata_of_both_kinds(api, hub):
    sha = api.model_info("acme/base").sha
    small = get_hf_file_metadata(hf_hub_url("acme/base", "config.json", endpoint=hub.endpoint), token=TOKEN)
    large = get_hf_file_metadata(
        hf_hub_url("acme/base", "model.safetensors", endpoint=hub.endpoint), token=TOKEN
    )
    assert small.commit_hash == large.commit_hash == sha
    assert len(small.etag) == 40
    assert len(large.etag) == 64
    assert large.location.startswith(hub.cdn_endpoint)
    assert large.xet_file_data is None


def test_download_of_a_small_file(hub, root, tmp_path):
    path = hf_hub_download("acme/base", "config.json", endpoint=hub.endpoint, cache_dir=tmp_path, token=TOKEN)
    assert Path(path).read_bytes() == (root / "models/acme/base/config.json").read_bytes()
    assert {entry["on"] for entry in hub.log} == {"hub"}


def test_download_through_the_cdn_leaves_the_token_behind(hub, root, tmp_path):
    name = "model.safetensors"
    path = hf_hub_download("acme/base", name, endpoint=hub.endpoint, cache_dir=tmp_path, token=TOKEN)
    assert Path(path).read_bytes() == (root / "models/acme/base" / name).read_bytes()
    assert load_file(path)["layer.weight"].shape == (16, 16)
    cdn = [entry for entry in hub.log if entry["on"] == "cdn"]
    assert [entry["had_auth"] for entry in cdn] == [False]
    assert all(entry["had_auth"] for entry in hub.log if entry["on"] == "hub")


def test_safetensors_metadata_in_its_three_forms(api):
    single = api.get_safetensors_metadata("acme/base")
    assert single.parameter_count == {"F16": 256, "F32": 528}
    sharded = api.get_safetensors_metadata("acme/sharded")
    assert sharded.sharded
    assert set(sharded.weight_map) == {"layers.0.weight", "layers.1.weight"}
    assert api.get_sharded_safetensors_metadata("acme/sharded").weight_map == sharded.weight_map
    one = api.parse_safetensors_file_metadata("acme/sharded", "model-00002-of-00002.safetensors")
    assert one.tensors["layers.1.weight"].shape == [16, 8]


def test_filesystem_lists_and_reads_a_range(hub, root):
    files = HfFileSystem(endpoint=hub.endpoint, token=TOKEN, skip_instance_cache=True)
    assert "acme/sharded/sub" in files.ls("acme/sharded", detail=False)
    content = (root / "models/acme/base/model.safetensors").read_bytes()
    with files.open("acme/base/model.safetensors", block_size=64) as stream:
        stream.seek(100)
        assert stream.read(50) == content[100:150]
    assert files.cat_file("datasets/acme/table/data.csv") == b"a,b\n1,2\n"


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-7", 206, (0, 8)),
        ("bytes=10-", 206, (10, None)),
        ("bytes=-5", 206, (-5, None)),
        ("bytes=8-99999999", 206, (8, None)),
        ("bytes=9-3", 200, (0, None)),
        ("bytes=0-1,4-5", 200, (0, None)),
        ("rows=1-2", 200, (0, None)),
    ],
)
def test_ranges(hub, root, asked, status, span):
    content = (root / "models/acme/base/model.safetensors").read_bytes()
    got, headers, body = fetch(signed_url(hub), {"Range": asked})
    assert (got, body) == (status, content[slice(*span)])
    assert int(headers["Content-Length"]) == len(body)
    if status == 206:
        start = span[0] % len(content)
        assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(content)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_ranges_outside_the_file(hub, asked):
    status, headers, _ = fetch(f"{hub.endpoint}/acme/base/resolve/main/config.json", {"Range": asked})
    assert status == 416
    assert headers["Content-Range"].startswith("bytes */")
    assert headers["X-Repo-Commit"]


def test_head_and_headers_of_resolve(hub):
    status, headers, body = fetch(f"{hub.endpoint}/acme/base/resolve/main/config.json", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["Accept-Ranges"] == "bytes"
    assert int(headers["Content-Length"]) > 0
    assert headers["RateLimit"].startswith('"resolvers";r=')
    assert "X-Xet-Hash" not in headers
    assert fetch(f"{hub.endpoint}/api/models")[1]["RateLimit"].startswith('"api";r=')


def test_the_tail_of_a_large_file_is_read_in_a_range(tmp_path):
    folder = tmp_path / "acme/huge"
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.truncate(1 << 24)
        stream.seek((1 << 24) - 4)
        stream.write(b"tail")
    with HubServer(tmp_path) as server:
        url = signed_url(server, "acme/huge/resolve/main/model.safetensors")
        assert fetch(url, {"Range": f"bytes={(1 << 24) - 6}-"})[2] == b"\0\0tail"


# Refusals


def test_private_and_missing_repositories_look_alike(anonymous, api):
    for name in ("acme/secret", "acme/nothing"):
        with pytest.raises(RepositoryNotFoundError) as refused:
            anonymous.model_info(name)
        assert refused.value.response.status_code == 401
    assert api.model_info("acme/secret").private is True
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("acme/nothing")


def test_gates_guard_files_not_facts(anonymous, api, tmp_path):
    assert anonymous.model_info("acme/gated").gated == "auto"
    with pytest.raises(GatedRepoError):
        anonymous.hf_hub_download("acme/gated", "model.safetensors", cache_dir=tmp_path)
    assert api.hf_hub_download("acme/gated", "model.safetensors", cache_dir=tmp_path)
    with pytest.raises(GatedRepoError) as refused:
        api.parse_safetensors_file_metadata("acme/closed", "model.safetensors")
    assert refused.value.response.status_code == 403


def test_disabled_and_renamed_repositories(anonymous):
    with pytest.raises(DisabledRepoError):
        anonymous.model_info("acme/off")
    assert anonymous.model_info("acme/old").id == "acme/base"
    assert anonymous.get_safetensors_metadata("acme/old").parameter_count == {"F16": 256, "F32": 528}


def test_a_wrong_token_is_not_a_missing_repository(hub):
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi(endpoint=hub.endpoint, token="hf_wrong").model_info("acme/base")
    assert not isinstance(refused.value, RepositoryNotFoundError)
    assert "Invalid credentials" in str(refused.value)


def test_missing_files_still_name_the_commit(hub, api):
    status, headers, _ = fetch(f"{hub.endpoint}/acme/base/resolve/main/gone.txt")
    assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert headers["X-Repo-Commit"] == api.model_info("acme/base").sha


def test_no_request_reads_outside_the_folder(hub, root):
    outside = root.parent / "outside.txt"
    outside.write_text("stolen")
    base = root / "models/acme/base"
    (base / "link.txt").symlink_to(outside)
    (root / "models/acme/away").symlink_to(root.parent, target_is_directory=True)
    (base / "folder").symlink_to(root.parent, target_is_directory=True)
    paths = [
        "acme/base/resolve/main/link.txt",
        "acme/base/resolve/main/folder/outside.txt",
        "acme/away/resolve/main/outside.txt",
        "acme/base/resolve/main/../../../../outside.txt",
        "acme/base/resolve/main/..%2F..%2F..%2F..%2Foutside.txt",
        "acme/base/resolve/main/%2e%2e/%2e%2e/%2e%2e/%2e%2e/outside.txt",
        "acme/base/resolve/main/%2Fetc%2Fpasswd",
        "acme/base/resolve/main/.hub.json",
        "acme/base/resolve/main/config.json%00",
        "acme/base/resolve/..%2Fmain/config.json",
        "acme/..%2Facme/resolve/main/config.json",
        "datasets/..%2Fmodels/acme/resolve/main/base/config.json",
        "../acme/base/resolve/main/config.json",
        "..%2F../acme/base/resolve/main/config.json",
        "api/models/acme/base/tree/main/..%2F..",
        "api/models/../..",
        "api/..%2F../acme/base",
    ]
    try:
        for path in paths:
            status, _, body = fetch(f"{hub.endpoint}/{path}")
            assert status in (401, 404), path
            assert b"stolen" not in body
    finally:
        (root / "models/acme/away").unlink()
        (base / "folder").unlink()
        (base / "link.txt").unlink()


def test_files_with_undecodable_names_are_not_served(hub_root):
    base = hub_root / "models/acme/base"
    (base / os.fsdecode(b"bad\xff")).mkdir()
    (base / os.fsdecode(b"bad\xff") / "x.txt").write_text("x")
    (base / os.fsdecode(b"bad\xfe.txt")).write_text("x")
    with HubServer(hub_root) as server:
        api = HfApi(endpoint=server.endpoint, token=False)
        assert api.list_repo_files("acme/base") == ["config.json", "model.safetensors"]


def test_error_messages_carry_no_line_breaks(hub):
    status, headers, _ = fetch(f"{hub.endpoint}/acme/base/resolve/main/x%0d%0aSet-Cookie:%20a")
    assert status == 404
    assert "Set-Cookie" not in headers


def test_the_cdn_wants_its_own_fresh_signature(hub):
    url = signed_url(hub)
    bare, _, query = url.partition("?")
    other = bare.replace("model.safetensors", "config.json")
    late = query.replace("expires=", "expires=9")
    for wrong in (bare, f"{bare}?X-Signature=0&expires=9e9", f"{other}?{query}", f"{bare}?{late}"):
        assert fetch(wrong)[0] == 403
    assert fetch(url)[0] == 200
    hub.fault(on="hub", match=WEIGHTS, ttl=-1)
    assert fetch(signed_url(hub))[0] == 403


# Writes


def test_a_dataset_is_created_committed_tagged_and_squashed(api, dataset, tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "part/0.csv").write_text("a\n1\n")
    first = api.upload_folder(repo_id=dataset, folder_path=tmp_path, repo_type="dataset")
    assert first.oid == api.dataset_info(dataset).sha
    api.create_tag(dataset, tag="v1", repo_type="dataset")
    change = [
        CommitOperationAdd("part/0.csv", b"a\n2\n"),
        CommitOperationAdd("part/1.csv", b"a\n3\n"),
        CommitOperationDelete("README.md"),
    ]
    second = api.create_commit(
        dataset, change, commit_message="Second", repo_type="dataset", parent_commit=first.oid
    )
    read = {
        revision: Path(
            api.hf_hub_download(
                dataset, "part/0.csv", repo_type="dataset", revision=revision, cache_dir=tmp_path / "c"
            )
        ).read_text()
        for revision in ("main", "v1", first.oid)
    }
    assert read == {"main": "a\n2\n", "v1": "a\n1\n", first.oid: "a\n1\n"}
    assert api.list_repo_files(dataset, repo_type="dataset") == ["part/0.csv", "part/1.csv"]
    titles = [commit.title for commit in api.list_repo_commits(dataset, repo_type="dataset")]
    assert titles[0] == "Second"
    assert len(titles) == 3
    assert [tag.target_commit for tag in api.list_repo_refs(dataset, repo_type="dataset").tags] == [first.oid]
    api.super_squash_history(dataset, repo_type="dataset", commit_message="One")
    assert [commit.title for commit in api.list_repo_commits(dataset, repo_type="dataset")] == ["One"]
    assert api.dataset_info(dataset, revision="v1").sha == first.oid
    assert api.dataset_info(dataset).sha == second.oid


def test_history_outlives_the_server(api, dataset, root):
    old = api.create_commit(
        dataset, [CommitOperationAdd("a.txt", b"old")], commit_message="Old", repo_type="dataset"
    )
    api.create_commit(
        dataset, [CommitOperationAdd("a.txt", b"new")], commit_message="New", repo_type="dataset"
    )
    with HubServer(root) as again:
        url = f"{again.endpoint}/datasets/{dataset}/resolve/{{}}/a.txt"
        assert fetch(url.format(old.oid))[2] == b"old"
        assert fetch(url.format("main"))[2] == b"new"


def test_a_commit_on_a_stale_parent_is_refused(api, dataset):
    empty = api.dataset_info(dataset).sha
    one, two = [CommitOperationAdd("a.txt", b"1")], [CommitOperationAdd("a.txt", b"2")]
    api.create_commit(dataset, one, commit_message="A", repo_type="dataset", parent_commit=empty)
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit(dataset, two, commit_message="B", repo_type="dataset", parent_commit=empty)
    assert refused.value.response.status_code == 412


def test_names_are_taken_once(api, dataset):
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(dataset, repo_type="dataset")
    assert refused.value.response.status_code == 409
    api.create_repo(dataset, repo_type="dataset", exist_ok=True)
    api.create_tag(dataset, tag="v1", repo_type="dataset")
    api.create_tag(dataset, tag="v1", repo_type="dataset", exist_ok=True)
    with pytest.raises(HfHubHTTPError):
        api.create_tag(dataset, tag="v1", repo_type="dataset")


def test_created_private_models_are_private(api, anonymous):
    api.create_repo("acme/new-model", private=True)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="acme/new-model")
    assert api.list_repo_files("acme/new-model") == ["config.json"]
    with pytest.raises(RepositoryNotFoundError):
        anonymous.model_info("acme/new-model")


def test_writes_need_the_token(anonymous, dataset):
    with pytest.raises(HfHubHTTPError):
        anonymous.create_repo("acme/intruder", repo_type="dataset")
    with pytest.raises(HfHubHTTPError):
        anonymous.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=dataset, repo_type="dataset")
    with pytest.raises(HfHubHTTPError):
        anonymous.create_tag(dataset, tag="v9", repo_type="dataset")


def test_web_pages_cannot_write(hub_root):
    with HubServer(hub_root) as server:
        url, body = f"{server.endpoint}/api/repos/create", json.dumps({"name": "x", "organization": "acme"})
        assert fetch(url, {"Origin": "http://evil.example"}, "POST", body)[0] == 403
        assert fetch(url, {}, "POST", body)[0] == 200


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../../x", ".hub.json", ".hub/history.json", ".git/config", "a\\b", "a\nb", ""]
)
def test_commits_cannot_leave_the_repository(hub, api, root, path):
    api.create_repo("acme/target", repo_type="dataset", exist_ok=True)
    lines = [
        {"key": "header", "value": {"summary": "bad"}},
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
    ]
    status, _, _ = fetch(
        f"{hub.endpoint}/api/datasets/acme/target/commit/main",
        {"Authorization": f"Bearer {TOKEN}"},
        "POST",
        "\n".join(map(json.dumps, lines)),
    )
    assert status == 400
    assert api.list_repo_files("acme/target", repo_type="dataset") == []
    assert not list((root / "datasets/acme/target").rglob("tmp*"))


@pytest.mark.parametrize("body", ["not json", "[]", '{"key": "lfsFile", "value": {}}', '{"key": "file"}'])
def test_malformed_commits_are_refused(hub, api, body):
    api.create_repo("acme/target", repo_type="dataset", exist_ok=True)
    url = f"{hub.endpoint}/api/datasets/acme/target/commit/main"
    assert fetch(url, {"Authorization": f"Bearer {TOKEN}"}, "POST", body)[0] == 400


def test_a_path_cannot_be_file_and_folder(api, dataset):
    both = [CommitOperationAdd("a", b"1"), CommitOperationAdd("a/b", b"2")]
    with pytest.raises(BadRequestError):
        api.create_commit(dataset, both, commit_message="Both", repo_type="dataset")
    assert api.list_repo_files(dataset, repo_type="dataset") == []


def test_pinned_reads_do_not_notice_that_main_moved(hub, api, root):
    config = root / "models/acme/tuned/config.json"
    before = api.model_info("acme/tuned").sha
    text = config.read_text()
    config.write_text(text + " ")
    try:
        assert api.model_info("acme/tuned").sha != before
        status, headers, _ = fetch(f"{hub.endpoint}/acme/tuned/resolve/{before}/model.safetensors")
        assert (status, headers["X-Repo-Commit"]) == (302, before)
        assert fetch(headers["Location"])[0] == 200
        status, _, _ = fetch(f"{hub.endpoint}/acme/tuned/resolve/{before}/config.json")
        assert status == 404
    finally:
        config.write_text(text)
    assert api.model_info("acme/tuned").sha == before


# Test control


def test_log_and_faults_over_http(hub):
    body = json.dumps([{"match": "/api/", "status": 503}, {"on": "cdn", "etag": '"x"'}])
    assert fetch(f"{hub.endpoint}/_fault", method="POST", body=body)[0] == 200
    assert fetch(f"{hub.endpoint}/api/models")[0] == 503
    assert (
        fetch(f"{hub.endpoint}/api/models", {"Range": "bytes=0-1", "Authorization": f"Bearer {TOKEN}"})[0]
        == 200
    )
    log = json.loads(fetch(f"{hub.endpoint}/_log")[2])
    port = urlsplit(hub.endpoint).port
    common = {"method": "GET", "path": "/api/models", "port": port, "on": "hub"}
    assert log == [
        {**common, "range": None, "had_auth": False, "status": 503},
        {**common, "range": "bytes=0-1", "had_auth": True, "status": 200},
    ]
    assert fetch(f"{hub.endpoint}/_fault", method="DELETE")[0] == 200
    assert fetch(f"{hub.endpoint}/_log", method="DELETE")[0] == 200
    assert hub.log == []
    assert fetch(f"{hub.endpoint}/_fault", method="POST", body='{"colour": 1}')[0] == 400


def test_without_test_control_there_is_none(hub_root):
    with HubServer(hub_root) as server:
        assert fetch(f"{server.endpoint}/_log")[0] == 404
        assert fetch(f"{server.endpoint}/_fault", method="POST", body="{}")[0] in (404, 405)
        assert server.log == []
        with pytest.raises(ConfigError):
            server.fault(status=500)


def test_faults_wait_for_their_turn(hub):
    url = f"{hub.endpoint}/api/models/acme/base"
    limited = {"RateLimit": '"api";r=0;t=1', "Retry-After": "1"}
    hub.fault(match="acme/base", status=429, headers=limited, count=2, skip=1)
    hub.fault(match="acme/base", method="POST", status=500)
    replies = [fetch(url) for _ in range(4)]
    assert [status for status, _, _ in replies] == [200, 429, 429, 200]
    assert replies[1][1]["RateLimit"] == '"api";r=0;t=1'
    assert replies[1][1]["Retry-After"] == "1"


def test_fault_body_cut_with_length(hub):
    hub.fault(on="cdn", cut_after=100)
    with pytest.raises(http.client.IncompleteRead) as cut:
        fetch(signed_url(hub))
    assert len(cut.value.partial) == 100
    assert fetch(signed_url(hub))[0] == 200


def test_fault_body_cut_without_length(hub, root):
    whole = (root / "models/acme/base/model.safetensors").read_bytes()
    hub.fault(on="cdn", cut_after=100, no_length=True)
    status, headers, body = fetch(signed_url(hub))
    assert (status, body, headers["Content-Length"]) == (200, whole[:100], None)


def test_fault_range_ignored(hub, root):
    size = (root / "models/acme/base/model.safetensors").stat().st_size
    hub.fault(on="cdn", ignore_range=True)
    status, _, body = fetch(signed_url(hub), {"Range": "bytes=8-15"})
    assert (status, len(body)) == (200, size)


def test_fault_wrong_content_range_and_total(hub):
    url = signed_url(hub)
    hub.fault(on="cdn", wrong_content_range=True)
    hub.fault(on="cdn", headers={"Content-Range": "bytes 8-15/99"})
    assert fetch(url, {"Range": "bytes=8-15"})[1]["Content-Range"].startswith("bytes 9-16/")
    assert fetch(url, {"Range": "bytes=8-15"})[1]["Content-Range"] == "bytes 8-15/99"


def test_fault_gzip(hub, root):
    whole = (root / "models/acme/base/model.safetensors").read_bytes()
    hub.fault(on="cdn", gzip=True)
    _, headers, body = fetch(signed_url(hub))
    assert headers["Content-Encoding"] == "gzip"
    assert int(headers["Content-Length"]) == len(body)
    assert gzip.decompress(body) == whole


def test_fault_etag_location_and_link(hub):
    url = signed_url(hub)
    hub.fault(on="cdn", etag='"other"')
    assert fetch(url)[1]["ETag"] == '"other"'
    assert fetch(url)[1]["ETag"] != '"other"'
    hub.fault(match=WEIGHTS, location="http://169.254.169.254/latest")
    status, headers, _ = fetch(f"{hub.endpoint}/{WEIGHTS}")
    assert (status, headers["Location"]) == (302, "http://169.254.169.254/latest")
    assert headers["X-Linked-Etag"]
    hub.fault(match="/api/models", link='<http://evil.example/>; rel="next"')
    assert "evil.example" in fetch(f"{hub.endpoint}/api/models")[1]["Link"]


def test_fault_order_of_a_page(hub):
    url = f"{hub.endpoint}/api/models?sort=likes"
    usual = json.loads(fetch(url)[2])
    hub.fault(match="/api/models", reverse=True)
    assert json.loads(fetch(url)[2]) == usual[::-1]


@pytest.mark.parametrize("knobs", [{"delay": 60}, {"stall": 60}, {"rate": 1}])
def test_fault_slow_replies_leave_the_client_waiting(hub, knobs):
    url = urlsplit(signed_url(hub))
    hub.fault(on="cdn", **knobs)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=0.2)
    connection.request("GET", f"{url.path}?{url.query}")
    with pytest.raises(TimeoutError):
        connection.getresponse().read()
    connection.close()


# Life


def test_stop_does_not_wait_for_silent_replies(hub_root):
    server = HubServer(hub_root, test_control=True)
    server.start()
    server.fault(delay=600)
    url = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    connection.request("GET", "/api/models")
    while not server.log:
        time.sleep(0.005)
    server.stop()
    server.stop()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        fetch(f"{server.endpoint}/api/models")


def test_unusable_root_and_taken_port(hub, tmp_path):
    with pytest.raises(TargetError, match="expected a folder"):
        HubServer(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="choose another port"):
        HubServer(tmp_path, port=urlsplit(hub.endpoint).port).start()
    with pytest.raises(ConfigError, match="choose another port"):
        HubServer(tmp_path, cdn_port=urlsplit(hub.endpoint).port).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_forever_ends_on_a_signal(hub_root, number):
    program = (
        "import sys, pathlib\nfrom jobs.hub.server import HubServer\n"
        "server = HubServer(pathlib.Path(sys.argv[1]))\nserver.start()\n"
        "sys.stdout.write(server.endpoint + '\\n'); sys.stdout.flush()\nserver.serve_forever()\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(hub_root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        endpoint = process.stdout.readline().strip()
        assert fetch(f"{endpoint}/api/models")[0] == 200
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
