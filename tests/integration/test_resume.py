"""A scan that is killed, interrupted or refused half way, and the same command again: the same lake in the end."""

import shutil
import signal

import pytest
from running import PATIENCE, differences, ended, finish, rows, start_cli, start_python, until
from zoo import save_model

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.hub.server import HubServer
from schemas.config import ScanConfig, WorkLimits
from schemas.work import Target

pytestmark = pytest.mark.usefixtures("clean_hub")
NAMES = tuple(f"acme/m{i:02}" for i in range(10))
READS = len(NAMES) * 3
"""Reads of a whole scan: a header and two units for each model."""
CUT = READS * 5 // 6
"""Reads after which a scan is disturbed: some models are whole by then, of the others one unit is."""

SCAN = """
import sys
from pathlib import Path
from jobs.verbs.scanning import exit_code
from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import progress
from schemas.config import ScanConfig, WorkLimits
from schemas.work import Target

lake, endpoint, *names = sys.argv[1:]
request = Request(
    targets=tuple(Target(repo_id=name) for name in names), lake=Path(lake), config=ScanConfig(),
    limits=WorkLimits(unit_cost=0.0, backoff=0.01), engine="local", endpoint=endpoint, token=False,
)
with progress() as display:
    sys.exit(exit_code(run_scan(request, display)))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for seed, name in enumerate(NAMES):
        save_model(root / name, seed)
    with HubServer(root, test_control=True) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(hub, tmp_path_factory):
    """The lake of a scan to which nothing happened."""
    lake = tmp_path_factory.mktemp("lakes") / "undisturbed"
    summary = scan(hub, lake)
    assert summary.failures == ()
    assert all_is_told(summary.counts)
    hub.clear()
    return lake


def scan(hub, lake):
    request = Request(
        targets=tuple(Target(repo_id=name) for name in NAMES),
        lake=lake,
        config=ScanConfig(),
        limits=WorkLimits(unit_cost=0.0, backoff=0.01),
        engine="local",
        endpoint=hub.endpoint,
        token=False,
    )
    with quiet_progress() as display:
        return run_scan(request, display)


def start(hub, lake):
    return start_python(SCAN, lake, hub.endpoint, *NAMES)


def storage_reads(hub):
    return [entry["path"].split("/")[3] for entry in list(hub.log) if entry["on"] == "cdn"]


def committed(lake):
    return {path.name.split("-")[2] for path in (lake / "repositories").glob("acme*.parquet")}


def staged(lake):
    return {path.name for path in (lake / "staging").glob("*.parquet") if ".failures." not in path.name}


@pytest.fixture(scope="module")
def killed(hub, undisturbed, tmp_path_factory):
    """The lake that a scan left which was killed in the middle of a read."""
    lake = tmp_path_factory.mktemp("killed") / "lake"
    hub.fault(on="cdn", skip=CUT, delay=10 * PATIENCE)
    with ended(start(hub, lake)) as process:
        until(lambda: len(storage_reads(hub)) > CUT or process.poll() is not None, "most of the reads")
        process.send_signal(signal.SIGKILL)
        assert finish(process).code == -signal.SIGKILL
    hub.clear()
    return lake


def all_is_told(counts):
    """Whether the bar of the scan has come to its end."""
    return counts.tensors_done == counts.planned and counts.cost_done == pytest.approx(counts.cost)


def test_a_killed_scan_leaves_whole_repositories_and_finished_units(killed):
    assert 0 < len(committed(killed)) < len(NAMES)
    assert staged(killed)
    (run,) = rows(killed, "FROM runs")
    assert (run["status"], run["finished_at"], run["wall_secs"]) == ("running", None, None)
    unbalanced = "FROM models WHERE num_matrices <> num_ok + num_skipped + num_failed"
    assert rows(killed, unbalanced) == []
    assert len(rows(killed, "FROM models")) == len(committed(killed))


def test_after_a_kill_the_same_command_redoes_only_what_is_missing(hub, killed, undisturbed, tmp_path):
    lake = shutil.copytree(killed, tmp_path / "lake")
    before, units = committed(lake), len(staged(lake))
    summary = scan(hub, lake)
    assert (summary.failures, summary.counts.repos_done_before) == ((), len(before))
    assert all_is_told(summary.counts)
    again = storage_reads(hub)
    assert before.isdisjoint(again)
    assert len(again) == (len(NAMES) - len(before)) * 3 - units
    assert differences(lake, undisturbed) == []
    statuses = rows(lake, "SELECT status FROM runs ORDER BY scan_id")
    assert [row["status"] for row in statuses] == ["lost", "finished"]
    assert staged(lake) == set()


def test_half_written_files_of_a_crash_are_harmless(hub, killed, undisturbed, tmp_path):
    lake = shutil.copytree(killed, tmp_path / "lake")
    for folder in ("layers", "repositories", "failures", "runs", "staging"):
        (lake / folder / ".half.parquet.tmp").write_bytes(b"PAR1 and no more")
    assert len(rows(lake, "FROM models")) == len(committed(lake))
    assert scan(hub, lake).failures == ()
    assert differences(lake, undisturbed) == []


def test_a_repository_whose_own_part_is_missing_is_redone(hub, undisturbed, tmp_path):
    lake = shutil.copytree(undisturbed, tmp_path / "lake")
    (part,) = (lake / "repositories").glob(f"{NAMES[4].replace('/', '--')}-*.parquet")
    part.unlink()
    assert len(rows(lake, "FROM models")) == len(NAMES) - 1
    assert scan(hub, lake).counts.repos_done_before == len(NAMES) - 1
    assert differences(lake, undisturbed) == []


def test_an_interrupt_finishes_what_is_under_way_and_the_next_scan_the_rest(hub, undisturbed, tmp_path):
    lake = tmp_path / "lake"
    hub.fault(on="cdn", skip=CUT, stall=1.0)
    with ended(start(hub, lake)) as process:
        until(lambda: len(storage_reads(hub)) > CUT or process.poll() is not None, "most of the reads")
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    assert ran.code == 130
    assert "stopping: finishing what is under way" in ran.err
    (run,) = rows(lake, "FROM runs")
    assert (run["status"], run["num_repos"]) == ("stopped", len(NAMES))
    assert run["num_ok"] == len(rows(lake, "FROM layers WHERE status = 'ok'"))
    assert 0 < run["num_repos_ok"] == len(committed(lake)) < len(NAMES)
    hub.clear()
    summary = scan(hub, lake)
    assert (summary.failures, summary.stopped) == ((), False)
    assert differences(lake, undisturbed) == []


def test_an_interrupt_while_the_first_targets_are_planned_drains_too(hub, tmp_path):
    lake = tmp_path / "lake"
    hub.fault(on="hub", match=NAMES[1], delay=1.0)
    arguments = ("scan", *NAMES, "--lake", lake, "--endpoint", hub.endpoint)
    with ended(start_cli(*arguments)) as process:
        asked = lambda: any(NAMES[1] in entry["path"] for entry in list(hub.log))  # noqa: E731
        until(lambda: asked() or process.poll() is not None, "the second target")
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    assert ran.code == 130
    assert set(storage_reads(hub)) <= {"m00"}, "nothing is started after the signal"
    assert rows(lake, "SELECT status FROM runs") == [{"status": "stopped"}]


def test_sigterm_drains_as_an_interrupt_does(hub, tmp_path):
    lake = tmp_path / "lake"
    hub.fault(on="cdn", skip=CUT, stall=1.0)
    with ended(start(hub, lake)) as process:
        until(lambda: len(storage_reads(hub)) > CUT or process.poll() is not None, "most of the reads")
        process.terminate()
        assert finish(process).code == 130
    assert rows(lake, "SELECT status FROM runs") == [{"status": "stopped"}]
