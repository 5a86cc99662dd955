"""The same scan on a real local Ray: equal rows, and workers that die cost a retry, not a row."""

import os
import signal
import threading
from pathlib import Path

import pytest
from running import PATIENCE, differences, rows, run_cli, until
from zoo import save_model

from jobs.actors import RayActors
from jobs.driver import Request, run_scan
from jobs.hubserver import HubServer
from jobs.progress import quiet_progress
from jobs.worker import WorkerSettings
from schemas.config import ScanConfig, WorkLimits
from schemas.work import Target

NAMES = tuple(f"acme/m{i}" for i in range(6))
FOREVER = 10 * PATIENCE


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for seed, name in enumerate(NAMES):
        save_model(root / name, seed)
    with HubServer(root, test_control=True) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(hub, tmp_path_factory):
    """The lake of a scan in this process to which nothing happened."""
    lake = tmp_path_factory.mktemp("lakes") / "undisturbed"
    assert scan(hub, lake, engine="local").failures == ()
    return lake


@pytest.fixture(autouse=True)
def clean(hub):
    yield
    hub.clear()


def scan(hub, lake, *, engine="ray", workers=None):
    request = Request(
        targets=tuple(Target(repo_id=name) for name in NAMES),
        lake=lake,
        config=ScanConfig(),
        limits=WorkLimits(unit_cost=0.0, backoff=0.01),
        engine=engine,
        workers=workers,
        endpoint=hub.endpoint,
        token=False,
    )
    with quiet_progress() as display:
        return run_scan(request, display)


class Assassin:
    """Kills, in a thread, the worker that reads a model while the hub keeps it waiting; `times` times."""

    def __init__(self, hub: HubServer, name: str, times: int) -> None:
        hub.fault(match=f"/{name}/", on="cdn", skip=1, count=times, stall=FOREVER)
        self.victims: list[int] = []
        self._hub, self._name, self._times = hub, name, times
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()

    def _run(self) -> None:
        for kills in range(self._times):
            until(lambda n=kills: self._stalled() > n, f"read {kills} of {self._name}")
            (pid,) = until(busy_workers, "a busy worker")
            self.victims.append(pid)
            os.kill(pid, signal.SIGKILL)
            until(lambda dead=pid: dead not in busy_workers(), f"the death of {pid}")

    def _stalled(self) -> int:
        """Reads of the model after that of its header."""
        return sum(e["on"] == "cdn" and self._name in e["path"] for e in list(self._hub.log)) - 1


def busy_workers() -> list[int]:
    """Processes under this one's Ray that run a job; Ray puts it into their titles."""
    parents = {int(p.name): parent(p) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return [pid for pid in parents if title(pid).startswith("ray::_ActorWorker.run") and ours(pid, parents)]


def parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def ours(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != os.getpid():
        pid = parents[pid]
    return pid == os.getpid()


def test_the_zoo_gives_the_same_rows_as_without_ray(local_ray, zoo, zoo_scan, tmp_path):
    lake = tmp_path / "ray"
    ran = run_cli("scan", zoo, "--lake", lake, "--engine", "ray", "--workers", 2)
    assert ran.code == zoo_scan.ran.code == 3
    assert "engine ray" in ran.err
    assert differences(lake, zoo_scan.lake) == []
    (run,) = rows(lake, "FROM runs")
    (other,) = rows(zoo_scan.lake, "FROM runs")
    same = (
        "num_repos",
        "num_repos_ok",
        "num_repos_failed",
        "num_matrices",
        "num_ok",
        "num_skipped",
        "num_failed",
    )
    assert [run[name] for name in same] == [other[name] for name in same]
    assert run["devices"] == {"cpu": 2}


def test_one_worker_and_two_give_the_same_rows(local_ray, hub, undisturbed, tmp_path):
    for workers in (1, 2):
        lake = tmp_path / f"workers-{workers}"
        assert scan(hub, lake, workers=workers).failures == ()
        assert differences(lake, undisturbed) == []


def test_a_killed_worker_costs_a_retry_and_nothing_else(local_ray, hub, undisturbed, tmp_path):
    with Assassin(hub, NAMES[2], times=1) as assassin:
        summary = scan(hub, tmp_path / "lake", workers=1)
    assert len(assassin.victims) == 1
    assert summary.failures == ()
    assert summary.counts.repos_done == summary.counts.repos_ok == len(NAMES)
    assert differences(tmp_path / "lake", undisturbed) == []


def test_a_unit_that_kills_its_worker_each_time_is_given_up_and_the_rest_is_scanned(
    local_ray, hub, undisturbed, tmp_path
):
    lake = tmp_path / "lake"
    with Assassin(hub, NAMES[0], times=3) as assassin:
        summary = scan(hub, lake, workers=1)
    assert len(set(assassin.victims)) == 3
    (failure,) = summary.failures
    assert (failure.repo_id, failure.kind, failure.retryable) == (NAMES[0], "worker_lost", True)
    assert "the worker died" in failure.message
    statuses = rows(lake, "SELECT repo_id, status, num_failed FROM models ORDER BY repo_id")
    assert [(m["repo_id"], m["status"], m["num_failed"]) for m in statuses] == [
        (name, "partial" if name == NAMES[0] else "ok", int(name == NAMES[0])) for name in NAMES
    ]
    assert scan(hub, lake, engine="local").failures == ()
    assert differences(lake, undisturbed, ignore=("resolved",)) == [f"failures {NAMES[0]} only in lake"]
    assert rows(lake, "SELECT kind, resolved FROM failures") == [{"kind": "worker_lost", "resolved": True}]


def test_idle_actors_tell_their_processes_and_close_ends_them(local_ray):
    actors = RayActors(WorkerSettings(config=ScanConfig(), limits=WorkLimits()), 2, None)
    pids = actors.pids()
    assert len(set(pids)) == actors.workers == actors.free == 2
    assert all("_ActorWorker" in title(pid) for pid in pids)
    actors.close()
    until(lambda: not any("_ActorWorker" in title(pid) for pid in pids), "the end of the actors")
    assert local_ray.is_initialized()
