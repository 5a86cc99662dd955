"""`hubspectra scan` over models on disk: targets, options, exit codes, and a full account of what happened."""

import hashlib
import json
import shutil
import socket
import struct

import numpy as np
import pytest
from running import finish, rows, run_cli, start_cli, start_python
from safetensors.numpy import save_file
from zoo import FAILURES, SOUND, save_model

from schemas.config import ScanConfig, profile_config

BALANCE = """
    SELECT r.repo_id, sum(r.num_planned) AS planned,
        (SELECT count(*) FROM layers l WHERE l.repo_id = r.repo_id AND l.revision = r.revision) AS stored,
        (SELECT count(*) FROM layers l WHERE l.repo_id = r.repo_id AND l.status IN ('ok', 'skipped', 'failed'))
            AS known
    FROM repositories r GROUP BY r.repo_id, r.revision"""


def scanned_ids(lake):
    return {row["repo_id"] for row in rows(lake, "SELECT DISTINCT repo_id FROM repositories")}


# The zoo: what is broken fails by name, everything else is scanned


def test_something_failed_is_exit_code_3(zoo_scan):
    assert zoo_scan.ran.code == 3
    assert zoo_scan.ran.out == b""


def test_every_broken_thing_is_a_failure_at_its_place_and_nothing_else_is(zoo_scan):
    found = rows(zoo_scan.lake, "SELECT * FROM failures")
    assert {(f["repo_id"], f["file"], f["tensor"]): f["kind"] for f in found} == FAILURES
    assert len(found) == len(FAILURES)
    assert not any(f["resolved"] or f["retryable"] for f in found)
    assert {f["scan_id"] for f in found} == {rows(zoo_scan.lake, "FROM runs")[0]["scan_id"]}


def test_every_failure_is_told_with_repository_file_and_tensor(zoo_scan):
    told = [line for line in zoo_scan.ran.err.splitlines() if line.startswith("  failed (")]
    assert len(told) == len(FAILURES)
    for (repo_id, file, tensor), kind in FAILURES.items():
        assert any(
            all(part in line for part in (f"({kind}) {repo_id}", file or "", tensor or "")) for line in told
        ), (repo_id, kind)


def test_sound_models_are_scanned_beside_the_broken_ones(zoo_scan):
    found = {r["repo_id"]: r for r in rows(zoo_scan.lake, "FROM models")}
    for repo_id in SOUND:
        assert (found[repo_id]["status"], found[repo_id]["num_failed"]) == ("ok", 0)
        assert found[repo_id]["num_fit_ok"] >= 2
    for repo_id in ("odd/nonfinite", "odd/huge", "bad/shard-gone"):
        assert (found[repo_id]["status"], found[repo_id]["num_fit_ok"]) == ("partial", 2)
    assert found["bad/overlap"]["status"] == "failed"


def test_a_model_without_a_matrix_is_complete_once_it_is_planned(tmp_path):
    save_file({"a.bias": np.zeros(5, "f4"), "b.bias": np.ones(7, "f4")}, tmp_path / "model.safetensors")
    lake = tmp_path / "lake"
    ran = run_cli("scan", tmp_path / "model.safetensors", "--lake", lake)
    assert (ran.code, ran.err.count("2 = 0 layers + 2 skipped + 0 failed; 0.0 MB read")) == (0, 1)
    assert [row["status_reason"] for row in rows(lake, "FROM layers")] == ["not_a_matrix"] * 2
    assert rows(lake, "SELECT status, num_matrices FROM models") == [{"status": "skipped", "num_matrices": 2}]
    assert "1 already in the lake" in run_cli("scan", tmp_path / "model.safetensors", "--lake", lake).err


def test_planned_is_layers_and_skipped_and_failed_for_every_repository(zoo_scan):
    balance = rows(zoo_scan.lake, BALANCE)
    assert balance
    assert all(row["planned"] == row["stored"] == row["known"] for row in balance)
    unbalanced = "FROM models WHERE num_matrices <> num_ok + num_skipped + num_failed"
    assert rows(zoo_scan.lake, unbalanced) == []


def test_the_run_adds_up_to_the_rows(zoo, zoo_scan):
    (run,) = rows(zoo_scan.lake, "FROM runs")
    (sums,) = rows(
        zoo_scan.lake,
        "SELECT count(*) AS n, count(*) FILTER (status = 'ok') AS ok, "
        "count(*) FILTER (status = 'skipped') AS skipped, count(*) FILTER (status = 'failed') AS failed FROM layers",
    )
    assert (run["num_matrices"], run["num_ok"], run["num_skipped"], run["num_failed"]) == tuple(sums.values())
    assert run["num_repos"] == len([*zoo.glob("*/*")]) == run["num_repos_ok"] + run["num_repos_failed"]
    assert run["num_repos_failed"] == len({repo for repo, _, _ in FAILURES})
    assert (run["status"], run["num_repos_done_before"]) == ("finished", 0)
    assert run["finished_at"] >= run["started_at"]
    assert json.loads(run["config_json"]) == json.loads(ScanConfig().to_json())
    planned = (
        f"matrices planned {run['num_matrices']} = {run['num_ok']} layers + {run['num_skipped']} skipped"
    )
    assert planned in zoo_scan.ran.err


def test_numbers_that_do_not_exist_are_null_and_said_to_be(zoo_scan):
    query = "SELECT repo_id, * FROM layers WHERE tensor = 'extra.weight'"
    extra = {row["repo_id"]: row for row in rows(zoo_scan.lake, query)}
    zero, constant, nonfinite = extra["odd/zero"], extra["odd/constant"], extra["odd/nonfinite"]
    assert (zero["status"], zero["status_reason"], zero["flags"]) == ("ok", "zero_matrix", ["zero_matrix"])
    assert (zero["alpha"], zero["log_norm"], zero["zero_frac"]) == (None, None, 1.0)
    assert (constant["status"], constant["fit_status"], constant["alpha"]) == ("ok", "constant", None)
    assert constant["stable_rank"] == pytest.approx(30)
    assert (nonfinite["status"], nonfinite["num_nonfinite"], nonfinite["norm"]) == ("failed", 2, None)
    (empty,) = rows(zoo_scan.lake, "FROM layers WHERE tensor = 'none.weight'")
    assert (empty["status"], empty["status_reason"]) == ("skipped", "empty")


def test_failed_rows_point_to_their_failures(zoo_scan):
    query = """SELECT l.status_reason, f.kind, f.tensor, l.tensor AS of FROM layers l
        LEFT JOIN failures f USING (failure_id) WHERE l.status = 'failed'"""
    found = rows(zoo_scan.lake, query)
    assert len(found) == 2
    assert all(row["kind"] == row["status_reason"] and row["tensor"] == row["of"] for row in found)


# Targets


def test_a_model_is_named_by_the_last_two_parts_of_its_path(zoo, tmp_path):
    assert run_cli("scan", zoo / "acme/one", "--lake", tmp_path / "folder").code == 0
    assert scanned_ids(tmp_path / "folder") == {"acme/one"}
    assert run_cli("scan", zoo / "acme/one/model.safetensors", "--lake", tmp_path / "file").code == 0
    assert scanned_ids(tmp_path / "file") == {"one/model.safetensors"}


def test_the_same_bytes_have_the_same_revision_wherever_they_lie(zoo, tmp_path):
    shutil.copytree(zoo / "acme/one", tmp_path / "elsewhere/acme/one")
    for place in (zoo / "acme/one", tmp_path / "elsewhere/acme/one"):
        run_cli("scan", place, "--lake", tmp_path / "lake")
    assert len(rows(tmp_path / "lake", "SELECT DISTINCT revision FROM repositories")) == 1
    latest = rows(tmp_path / "lake", "SELECT num_repos_done_before AS n FROM runs ORDER BY scan_id")
    assert [row["n"] for row in latest] == [0, 1]


def test_a_target_given_twice_is_scanned_once(zoo, tmp_path):
    ran = run_cli("scan", zoo / "acme", zoo / "acme/one", zoo / "acme/two", "--lake", tmp_path / "lake")
    assert (ran.code, scanned_ids(tmp_path / "lake")) == (0, {"acme/one", "acme/two"})
    assert "2 of 2 repositories" in ran.err


def test_a_huggingface_cache_is_read_in_place(zoo, tmp_path):
    commit = "a" * 40
    repo = tmp_path / "cache/hub/models--acme--one"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    weights = zoo / "acme/one/model.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    blob = repo / "blobs" / sha256
    shutil.copy(weights, blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    for target in ("cache", "cache/hub", "cache/hub/models--acme--one"):
        lake = tmp_path / f"lake-{len(target)}"
        assert run_cli("scan", tmp_path / target, "--lake", lake).code == 0
        query = "SELECT DISTINCT repo_id, revision, file_sha256 FROM layers"
        assert rows(lake, query) == [{"repo_id": "acme/one", "revision": commit, "file_sha256": sha256}]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("./no-such-folder", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
        ("weights.safetensors", "no such file or folder"),
        ("no spaces/allowed", "neither a path nor a repository id"),
        ("{tmp}", "no model in"),
        ("{tmp}/notes.txt", "no .safetensors file"),
    ],
)
def test_a_target_that_is_nothing_is_the_users_error(tmp_path, target, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    ran = run_cli("scan", target.format(tmp=folder), "--lake", tmp_path / "lake")
    assert (ran.code, ran.out) == (1, b"")
    assert message in ran.err
    assert not (tmp_path / "lake").exists()


def test_a_model_that_is_too_new_for_its_name_is_scanned_again(tmp_path):
    lake = tmp_path / "lake"
    for seed in (1, 2):
        save_model(tmp_path / "acme/model", seed)
        assert run_cli("scan", tmp_path / "acme/model", "--lake", lake).code == 0
    assert rows(lake, "SELECT count(DISTINCT revision) AS n FROM layers") == [{"n": 2}]
    ranked = rows(lake, "SELECT stratum_n FROM models ORDER BY scanned_at")
    assert [row["stratum_n"] for row in ranked] == [None, 1]


# Options


def test_the_weightwatcher_profile_fills_its_columns_and_has_its_own_fingerprint(zoo, tmp_path):
    lake = tmp_path / "lake"
    assert run_cli("scan", zoo / "acme/one", "--lake", lake).code == 0
    assert run_cli("scan", zoo / "acme/one", "--lake", lake, "--profile", "weightwatcher").code == 0
    found = {row["config_fingerprint"]: row["n"] for row in rows(lake, _WITH_WW)}
    expected = {profile_config(name).fingerprint(): n for name, n in (("default", 0), ("weightwatcher", 2))}
    assert found == expected


_WITH_WW = "SELECT config_fingerprint, count(ww_status) AS n FROM layers GROUP BY ALL"


def test_a_config_file_overrides_a_threshold(zoo, tmp_path):
    (tmp_path / "mine.toml").write_text("[thresholds]\nks_max = 0.0001\n[tail]\nmin_tail = 12\n")
    lake = tmp_path / "lake"
    assert run_cli("scan", zoo / "acme/one", "--lake", lake, "--config", tmp_path / "mine.toml").code == 0
    (run,) = rows(lake, "FROM runs")
    config = json.loads(run["config_json"])
    assert (config["thresholds"]["ks_max"], config["tail"]["min_tail"]) == (0.0001, 12)
    query = "SELECT DISTINCT f.threshold FROM (SELECT unnest(findings) AS f FROM layers) WHERE f.kind = 'fit_unreliable'"
    assert rows(lake, query) == [{"threshold": 0.0001}]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[tail]\nmin_tial = 3\n[thresholds]\nks_max = 'much'\n", ["tail.min_tial", "thresholds.ks_max"]),
        ("profile = 'mine'\n", ["mine", "choose one of default, "]),
        ("not toml at all", ["is not TOML"]),
    ],
)
def test_a_wrong_config_is_the_users_error_and_names_every_key(zoo, tmp_path, text, named):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    ran = run_cli("scan", zoo / "acme/one", "--lake", tmp_path / "lake", "--config", file)
    assert ran.code == 1
    assert all(part in ran.err for part in (str(file) if "profile" not in text else "", *named))
    assert not (tmp_path / "lake").exists()


def test_the_local_engine_takes_no_workers_and_no_cluster(zoo, tmp_path):
    for option in (("--workers", 2), ("--ray-address", "127.0.0.1:1")):
        ran = run_cli("scan", zoo / "acme/one", "--lake", tmp_path / "lake", "--engine", "local", *option)
        assert ran.code == 1
        assert "--engine local is one worker" in ran.err


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_where_nothing_listens_is_said_at_once(zoo, tmp_path, scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        ran = run_cli("scan", zoo / "acme/one", "--lake", tmp_path / "lake", "--ray-address", address)
    assert ran.code == 1
    assert f"cannot reach Ray at {address}" in ran.err
    assert "ray start --head" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("x", "--engine", "spark"),
        ("x", "--config", "no-such.toml"),
        ("x", "--workers", 0),
        ("x", "--nope"),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path, arguments):
    ran = run_cli("scan", *arguments, "--lake", tmp_path / "lake")
    assert ran.code == 2
    assert "Error" in ran.err


def test_quiet_says_only_the_summary(zoo, tmp_path):
    ran = run_cli("scan", zoo / "bad/pickle", zoo / "acme/one", "--lake", tmp_path / "lake", "-q")
    lines = ran.err.splitlines()
    assert lines[0].startswith("finished: 2 of 2 repositories (0 already in the lake, 1 with failures)")
    assert lines[1].startswith("matrices planned 3 = 2 layers + 1 skipped + 0 failed")
    assert lines[2].startswith("  failed (skipped_pickle) bad/pickle@")
    assert len(lines) == 3


def test_a_second_scan_reads_nothing_and_still_says_what_is_wrong(zoo, tmp_path):
    lake = tmp_path / "lake"
    first = run_cli("scan", zoo / "acme/one", zoo / "odd/nonfinite", "--lake", lake)
    second = run_cli("scan", zoo / "acme/one", zoo / "odd/nonfinite", "--lake", lake)
    assert (first.code, second.code) == (3, 3)
    assert "2 already in the lake, 1 with failures" in second.err
    assert "(nonfinite) odd/nonfinite" in second.err
    assert [row["bytes_read"] for row in rows(lake, "FROM runs ORDER BY scan_id")][1] == 0
    assert rows(lake, "SELECT attempt FROM failures") == [{"attempt": 1}]


def test_many_failures_are_told_in_part_with_a_way_to_the_rest(tmp_path):
    for i in range(23):
        folder = tmp_path / f"models/bad/m{i:02}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**6))
    ran = run_cli("scan", tmp_path / "models", "--lake", tmp_path / "lake", "-q")
    assert ran.code == 3
    assert ran.err.count("  failed (bad_header)") == 20
    assert "and 3 more: hubspectra status --failures --lake" in ran.err
    assert run_cli("status", "--failures", "--lake", tmp_path / "lake").text.count("bad_header") == 23


# As a process of its own


def test_the_installed_command_scans_and_logs_plain_lines(zoo, zoo_scan, tmp_path):
    ran = finish(start_cli("scan", zoo, "--lake", tmp_path / "lake"))
    assert (ran.code, ran.out) == (3, b"")
    assert "\x1b" not in ran.err
    assert "Traceback" not in ran.err
    assert "Warning" not in ran.err
    notes = [line for line in ran.err.splitlines() if line.startswith("bad/overlap@")]
    assert len(notes) == 1
    assert "'v': overlaps the tensor before it" in notes[0]


def test_the_installed_command_ends_with_the_users_error(tmp_path):
    ran = finish(start_cli("scan", "./nowhere", "--lake", tmp_path / "lake"))
    assert (ran.code, ran.out, ran.err) == (
        1,
        b"",
        "error: no such file or folder: ./nowhere; a model of a hub is owner/name\n",
    )


def test_help_needs_no_heavy_library():
    code = (
        "import sys\n"
        "from jobs.cli import invoke\n"
        "invoke(['scan', '--help'])\n"
        "heavy = {'torch', 'ray', 'scipy', 'pyarrow', 'duckdb', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    ran = finish(start_python(code))
    assert (ran.code, ran.err) == (0, "")
    assert "Exit codes: 0 all read; 3 finished, but something failed" in ran.text
