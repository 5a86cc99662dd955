"""Small models share parts, and nothing else changes: not what is there, not what a kill leaves, not what is redone."""

import shutil
import signal

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from running import differences, ended, finish, rows, run_cli, start_python
from zoo import save_model

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.lake import gathering
from jobs.lake.compaction import compact
from jobs.lake.generations import loose, merged, shared
from jobs.lake.leaderboard import ask
from jobs.lake.store import Store
from schemas.config import ScanConfig
from schemas.work import Target

NAMES = tuple(f"m{i:02}" for i in range(7))
ROWS = 3
"""Rows of a model."""


@pytest.fixture(scope="module", autouse=True)
def patience():
    """Models wait as long as it takes: a busy machine makes no other parts than an idle one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "SECONDS", 600.0)
        patch.setattr(gathering, "_SECONDS_OF_SMALL", 600.0)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        save_model(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def together(models, tmp_path_factory):
    """A lake in which all models share a part."""
    return scanned(models, tmp_path_factory.mktemp("lakes") / "together")[0]


def scanned(models, lake, names=NAMES):
    targets = tuple(Target(repo_id=f"acme/{name}", root=str(models / name)) for name in names)
    request = Request(targets=targets, lake=lake, config=ScanConfig(), engine="local")
    with quiet_progress() as display:
        return lake, run_scan(request, display)


def parts(lake, table):
    return len(loose(lake / table)), len(shared(lake / table))


def test_a_part_begins_with_all_measured_rows(together):
    (part,) = shared(together / "layers")
    statuses = pq.read_table(part)["status"].to_pylist()
    assert {"ok", "skipped"} == set(statuses)
    assert statuses == sorted(statuses)


def test_small_models_share_a_part_and_a_second_scan_finds_them_done(models, together, tmp_path):
    lake = shutil.copytree(together, tmp_path / "lake")
    assert (parts(lake, "layers"), parts(lake, "repositories")) == ((0, 1), (0, 1))
    assert rows(lake, "SELECT count(*) AS n FROM layers") == [{"n": ROWS * len(NAMES)}]
    _, summary = scanned(models, lake)
    assert (summary.counts.repos_done_before, summary.counts.bytes_read) == (len(NAMES), 0)
    assert parts(lake, "layers") == (0, 1)


def test_a_part_is_written_as_soon_as_there_are_rows_enough(models, together, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "ROWS", 2 * ROWS)
    lake, _ = scanned(models, tmp_path / "lake")
    assert parts(lake, "layers") == parts(lake, "repositories") == (1, 3), "seven models: three pairs and one"
    assert differences(lake, together) == []


@pytest.mark.parametrize("limit", ["_ROWS_OF_SMALL", "_SECONDS_OF_SMALL"])
def test_what_took_long_is_written_at_once(models, together, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(gathering, limit, 0)
    lake, _ = scanned(models, tmp_path / "lake")
    assert parts(lake, "layers") == parts(lake, "repositories") == (len(NAMES), 0)
    assert differences(lake, together) == []


def test_models_wait_for_seconds_and_no_longer():
    waiting = gathering.Gathering()
    assert not waiting.waited(0.0)
    waiting.add(gathering.Model(key="k", rows=(), about=(), scan_id="s"))
    assert (waiting.waited(0.0), waiting.waited(600.0), waiting.full) == (True, False, False)


def test_a_compaction_merges_shared_parts_and_old_files_in_one_order(models, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "ROWS", 2 * ROWS)
    lake, _ = scanned(models, tmp_path / "lake", NAMES[::2])
    before = None
    for names in (NAMES[::2], NAMES):
        scanned(models, lake, names)
        before = ask(lake, "FROM layers ORDER BY repo_id, matrix_index")
        with Store.writing(lake) as store:
            compact(store)
            place = store.folder("layers")
        assert (loose(place), shared(place)) == ([], [])
        measured, others = merged(place)
        for path, status in ((measured, "ok"), (others, "skipped")):
            wanted = before.filter(pc.equal(before["status"], status)).select(["repo_id", "matrix_index"])
            assert pq.read_table(path, columns=wanted.column_names).to_pylist() == wanted.to_pylist()
        assert ask(lake, "FROM layers ORDER BY repo_id, matrix_index").equals(before)


def test_more_shared_rows_than_are_held_at_once_go_to_more_files(models, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "ROWS", 2 * ROWS)
    monkeypatch.setattr("jobs.lake.compaction._AT_ONCE", 4 * ROWS)
    lake, _ = scanned(models, tmp_path / "lake")
    before = ask(lake, "FROM layers ORDER BY repo_id, matrix_index")
    with Store.writing(lake) as store:
        compact(store)
        assert len(merged(store.folder("layers"))) == 4, "measured rows and the others"
    assert ask(lake, "FROM layers ORDER BY repo_id, matrix_index").equals(before)


def test_what_failed_before_has_parts_of_its_own(models, tmp_path):
    broken = shutil.copytree(models, tmp_path / "models") / NAMES[3] / "model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    lake, summary = scanned(tmp_path / "models", tmp_path / "lake")
    assert summary.counts.repos_failed == 1
    assert rows(lake, "SELECT count(*) AS n FROM failures WHERE NOT resolved") == [{"n": 1}]
    assert (parts(lake, "layers"), parts(lake, "repositories")) == ((1, 1), (1, 1))


def test_what_was_done_is_kept_when_a_scan_breaks_off(together, models, tmp_path):
    """An error of the scan itself, or a second Ctrl-C, does not lose the models that wait."""
    lake = tmp_path / "lake"
    with pytest.raises(KeyboardInterrupt), Store.writing(lake) as store:
        for model in _models_of(together):
            store._gather(model)
        raise KeyboardInterrupt
    assert rows(lake, "SELECT count(*) AS n FROM models") == [{"n": len(NAMES)}]


def _models_of(lake):
    with Store.writing(lake) as store:
        (about,), (layers,) = shared(store.folder("repositories")), shared(store.folder("layers"))
        found = store._read("layers", layers)
        return [
            gathering.Model(
                key=row.repo_id,
                rows=tuple(layer for layer in found if layer.repo_id == row.repo_id),
                about=(row,),
                scan_id=row.scan_id,
            )
            for row in store._read("repositories", about)
        ]


KILLED = """
import os, signal, sys
from jobs.cli import main
from jobs.lake import gathering

gathering.ROWS, gathering.SECONDS, gathering._SECONDS_OF_SMALL = 6, 600.0, 600.0
left, lake = int(sys.argv.pop(1)), sys.argv[-1]

def count(event, arguments):
    global left
    if event in ("open", "os.rename") and str(arguments[0]).startswith(lake):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
try:
    main()
finally:
    sys.stderr.write(f"left {left}")
"""
"""The command line, which dies at the given step of its work on files of the lake; pairs of models share a part."""

PLENTY = 100_000


def test_a_kill_at_any_step_leaves_whole_models_and_the_same_command_completes_them(
    models, together, tmp_path
):
    scan = ("scan", *(models / name for name in NAMES), "-q", "--engine", "local", "--lake")
    with ended(start_python(KILLED, PLENTY, *scan, tmp_path / "whole")) as process:
        steps = PLENTY - int(finish(process).err.rsplit(maxsplit=1)[-1])
    seen = set()
    for step in range(8, steps, 3):
        lake = tmp_path / f"lake-{step}"
        with ended(start_python(KILLED, step, *scan, lake)) as process:
            assert finish(process).code == -signal.SIGKILL, step
        if not (lake / "lake.json").exists():
            continue
        broken = "FROM models WHERE num_matrices <> num_ok + num_skipped + num_failed OR num_ok = 0"
        assert rows(lake, broken) == [], step
        seen.add(len(rows(lake, "FROM models")))
        assert run_cli(*scan, lake).code == 0
        assert rows(lake, "SELECT count(*) AS n, count(DISTINCT (repo_id, tensor)) AS k FROM layers") == [
            {"n": ROWS * len(NAMES), "k": ROWS * len(NAMES)}
        ], step
    assert {0, 2, 4, 6} <= seen
