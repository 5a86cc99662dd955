"""`hubspectra compare`: two models held against each other, from disk and from a hub."""

import csv
import io
import json
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from running import rows, run_cli
from safetensors.numpy import save_file

from jobs.hub.server import HubServer
from scanner.sources.hub import HubSource
from schemas.tables import SCHEMAS

LAYERS = [f"layers.{k}.weight" for k in range(5)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """acme/base, and acme/tuned with one collapsed, one replaced, one resized and one new layer."""
    root, random = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    base = {name: random.standard_t(3, (48, 40)).astype("f4") for name in LAYERS}
    tuned = base | {
        LAYERS[1]: base[LAYERS[1]] * np.float32(1e-2),
        LAYERS[2]: (4 * random.standard_normal((48, 40))).astype("f4"),
        LAYERS[3]: random.standard_normal((50, 40)).astype("f4"),
        "head.weight": random.standard_normal((40, 40)).astype("f4"),
    }
    for name, tensors in (("base", base), ("tuned", tuned), ("copy", base)):
        (root / "acme" / name).mkdir(parents=True)
        save_file(tensors, root / "acme" / name / "model.safetensors")
    return root


def compare(shelf, *more, base="base", tuned="tuned"):
    return run_cli("compare", shelf / "acme" / base, shelf / "acme" / tuned, *more)


def as_rows(ran):
    return list(csv.DictReader(io.StringIO(ran.text)))


def test_the_worst_layers_come_first_with_their_sentences(shelf):
    ran = compare(shelf, "--format", "table", "-q")
    assert (ran.code, ran.err) == (0, "")
    head, *lines = ran.text.splitlines()
    assert "acme/tuned@" in head
    assert "against acme/base@" in head
    assert "4 pairs (0 in the base's own files), 2 without a counterpart, 0 failed" in head
    order = [word for line in lines for word in line.split()[:1] if word.endswith(".weight")]
    assert set(order[:2]) == {LAYERS[1], LAYERS[2]}
    assert order[2:4] == [LAYERS[0], LAYERS[4]]
    assert set(order[4:]) == {LAYERS[3], "head.weight"}
    text = " ".join(ran.text.split())
    assert "scale_collapse: lambda_max fell by a factor of 10^4.0 against the base" in text
    assert "of its leading directions are left" in text
    assert "shape_mismatch: the matrix of this name in the base has another shape" in text
    assert "no_match: the base has no matrix of this name" in text


def test_a_pipe_gets_every_column_and_the_headline_goes_to_standard_error(shelf):
    ran = compare(shelf)
    found = as_rows(ran)
    assert list(found[0]) == SCHEMAS["layers"].names
    assert {row["base_status"] for row in found} == {"ok", "no_match", "shape_mismatch"}
    assert "4 pairs" in ran.err
    sure = json.loads(found[0]["findings"])
    assert {"scale_collapse", "ft_unstable"} & {flag["kind"] for flag in sure}


def test_other_forms_and_a_limit(shelf, tmp_path):
    assert len(json.loads(compare(shelf, "--format", "json", "--limit", "2").text)) == 2
    assert compare(shelf, "-o", tmp_path / "pairs.parquet").code == 0
    assert pq.read_table(tmp_path / "pairs.parquet").num_rows == 6


def test_a_copy_is_said_to_be_one(shelf):
    ran = compare(shelf, "--format", "table", "-q", tuned="copy")
    assert "5 pairs (5 in the base's own files)" in ran.text
    assert "ft_noop: all 5 matrices with a counterpart are unchanged" in ran.text


def test_files_are_models_too(shelf):
    one, other = (shelf / "acme" / name / "model.safetensors" for name in ("base", "tuned"))
    ran = run_cli("compare", one, other)
    assert ran.code == 0
    assert [row["rel_delta"] for row in as_rows(ran)] == [row["rel_delta"] for row in as_rows(compare(shelf))]


def test_nothing_is_kept_without_a_lake(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert compare(shelf).code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_lake_keeps_rows_against_each_base_apart(shelf, tmp_path):
    lake = tmp_path / "lake"
    assert compare(shelf, "--lake", lake).code == 0
    first = compare(shelf, "--lake", lake, base="copy")
    again = compare(shelf, "--lake", lake)
    assert (first.code, again.code) == (0, 0)
    assert [r["base_repo_id"] for r in as_rows(again)] == ["acme/base"] * 6
    query = "SELECT base_repo_id, count(*) AS n FROM layers GROUP BY 1 ORDER BY 1"
    assert rows(lake, query) == [{"base_repo_id": "acme/base", "n": 6}, {"base_repo_id": "acme/copy", "n": 6}]
    assert rows(lake, "SELECT count(*) AS n, sum(num_repos_done_before) AS k FROM runs") == [{"n": 3, "k": 1}]
    (config,) = {
        row["config_json"] for row in rows(lake, "SELECT * FROM runs") if "acme/copy@" in row["config_json"]
    }
    assert json.loads(config)["stages"]["compared_with"].startswith("acme/copy@")


def test_models_of_a_hub_at_commits(shelf):
    with HubServer(shelf) as hub:
        commits = [HubSource(hub.endpoint).repository(f"acme/{name}").ref for name in ("base", "tuned")]
        ran = run_cli("compare", *(f"{r.repo_id}@{r.revision}" for r in commits), "--endpoint", hub.endpoint)
        mixed = run_cli("compare", "acme/base", shelf / "acme/tuned", "--endpoint", hub.endpoint)
    assert (ran.code, mixed.code) == (0, 0)
    assert {row["base_revision"] for row in as_rows(ran)} == {commits[0].revision}
    numbers = [[row[c] for c in ("tensor", "rel_delta", "d_alpha", "flags")] for row in as_rows(ran)]
    assert numbers == [
        [row[c] for c in ("tensor", "rel_delta", "d_alpha", "flags")] for row in as_rows(mixed)
    ]


def test_what_is_not_on_the_hub_fails_by_name(shelf):
    with HubServer(shelf) as hub:
        base = run_cli("compare", "acme/nowhere", "acme/tuned", "--endpoint", hub.endpoint)
        tuned = run_cli("compare", "acme/base", "acme/nowhere", "--endpoint", hub.endpoint)
    assert (base.code, tuned.code) == (3, 3)
    assert "failed (repo_missing_or_private) base acme/nowhere" in base.err
    assert "failed (repo_missing_or_private) acme/nowhere" in tuned.err
    assert base.out == tuned.out == b""


@pytest.mark.parametrize("odd", [".", "acme"])
def test_several_models_are_the_user_s_error(shelf, odd):
    ran = run_cli("compare", shelf / "acme/base", shelf / odd)
    assert ran.code == 1
    assert "holds 3 models; name one of them" in ran.err


def test_a_bad_matrix_of_the_fine_tune_is_named(shelf, tmp_path):
    broken = np.ones((48, 40), "f4")
    broken[0, 0] = np.nan
    save_file({LAYERS[0]: broken, LAYERS[1]: np.eye(48, 40, dtype="f4")}, tmp_path / "model.safetensors")
    ran = run_cli("compare", shelf / "acme/base", tmp_path)
    assert ran.code == 3
    assert "failed (nonfinite)" in ran.err
    assert [row["tensor"] for row in as_rows(ran)] == [LAYERS[1]]
