"""The same scan on a real local Ray: equal rows, and workers that die cost a retry, not a row."""

import os
import signal
import threading
from pathlib import Path

import pytest
from running import PATIENCE, Notes, differences, rows, run_cli, until
from zoo import save_model

from jobs.engine.actors import RayActors
from jobs.engine.driver import Request, run_scan
from jobs.engine.worker import Worker, WorkerSettings
from jobs.hub.server import HubServer
from schemas.config import ScanConfig, WorkLimits
from schemas.errors import UsageError
from schemas.events import Lost, PinJob, PlanJob, Scanned, UnitJob
from schemas.work import Target

pytestmark = pytest.mark.usefixtures("clean_hub")
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
    hub.clear()
    return lake


def scan(hub, lake, *, engine="ray", workers=None, display=None):
    request = Request(
        targets=tuple(Target(repo_id=name) for name in NAMES),
        lake=lake,
        config=ScanConfig(),
        limits=WorkLimits(backoff=0.01),
        engine=engine,
        workers=workers,
        endpoint=hub.endpoint,
        token=False,
    )
    return run_scan(request, display or Notes())


class Assassin:
    """Kills, in a thread, the worker that reads a model while the hub keeps it waiting: name -> times."""

    def __init__(self, hub: HubServer, orders: dict[str, int]) -> None:
        for name, times in orders.items():
            hub.fault(match=f"/{name}/", on="cdn", skip=1, count=times, delay=FOREVER)
        self.victims: list[int] = []
        self._hub, self._orders = hub, orders
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()

    def _run(self) -> None:
        for kills in range(sum(self._orders.values())):
            until(lambda done=kills: self._delayed() > done, f"read {kills + 1} that the hub delays")
            (pid,) = until(busy_workers, "a busy worker")
            self.victims.append(pid)
            os.kill(pid, signal.SIGKILL)
            until(lambda dead=pid: dead not in busy_workers(), f"the death of {pid}")

    def _delayed(self) -> int:
        """Reads that were delayed so far: the first ones after that of the header."""
        read = [entry["path"] for entry in list(self._hub.log) if entry["on"] == "cdn"]
        counts = ((sum(f"/{name}/" in path for path in read), times) for name, times in self._orders.items())
        return sum(min(max(reads - 1, 0), times) for reads, times in counts)


def busy_workers() -> list[int]:
    """Processes under this one's Ray that run a job; Ray puts it into their titles."""
    parents = {int(p.name): parent(p) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return [
        pid for pid in parents if title(pid).startswith("ray::_ActorWorker.outcome") and ours(pid, parents)
    ]


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


def test_killed_workers_cost_a_retry_or_their_unit_and_nothing_else(local_ray, hub, undisturbed, tmp_path):
    unlucky, poisonous, lake, told = NAMES[2], NAMES[0], tmp_path / "lake", Notes()
    with Assassin(hub, {unlucky: 1, poisonous: 3}) as assassin:
        summary = scan(hub, lake, workers=1, display=told)
    assert len(set(assassin.victims)) == 4
    blamed = [note.split("@")[0] for note in told.notes if "trying again" in note]
    assert sorted(blamed) == [poisonous, poisonous, unlucky]
    (failure,) = summary.failures
    assert (failure.repo_id, failure.kind, failure.retryable) == (poisonous, "worker_lost", True)
    assert "the worker died" in failure.message
    found = rows(lake, "SELECT repo_id, status, num_failed FROM models ORDER BY repo_id")
    expected = {name: ("failed", 2) if name == poisonous else ("ok", 0) for name in NAMES}
    assert {m["repo_id"]: (m["status"], m["num_failed"]) for m in found} == expected
    assert summary.counts.repos_done == len(NAMES)
    assert scan(hub, lake, engine="local").failures == ()
    assert set(differences(lake, undisturbed)) == {f"failures {poisonous} only in lake"}
    assert rows(lake, "SELECT kind, resolved FROM failures") == [{"kind": "worker_lost", "resolved": True}]


def unit_jobs(hub, names):
    """A unit of each model, planned here."""
    worker = Worker(
        WorkerSettings(config=ScanConfig(), limits=WorkLimits(), endpoint=hub.endpoint, token=False)
    )
    try:
        for name in names:
            pinned = worker.run(PinJob(Target(repo_id=name)))
            planned = worker.run(PlanJob(pinned.job.target, pinned.repository))
            yield UnitJob(pinned.job.target, planned.plan.units[0])
    finally:
        worker.close()


def test_a_death_is_blamed_on_the_job_under_way_and_the_next_one_is_done_all_the_same(local_ray, hub):
    first, second = unit_jobs(hub, NAMES[:2])
    settings = WorkerSettings(config=ScanConfig(), limits=WorkLimits(), endpoint=hub.endpoint, token=False)
    hub.clear()
    hub.fault(match=f"/{NAMES[0]}/", on="cdn", count=1, delay=FOREVER)
    actors = RayActors(settings, 1, None)
    try:
        actors.submit(first)
        assert actors.free == 1, "behind a short unit there is room for one job"
        actors.submit(second)
        assert actors.free == 0
        until(
            lambda: [entry for entry in list(hub.log) if entry["on"] == "cdn"], "the read that the hub delays"
        )
        (pid,) = busy_workers()
        os.kill(pid, signal.SIGKILL)
        events = []
        until(lambda: events.extend(actors.wait(1.0)) or len(events) == 2, "the end of both jobs")
    finally:
        actors.close()
    assert [(type(event), event.job) for event in events] == [(Lost, first), (Scanned, second)]


def test_idle_actors_tell_their_processes_and_close_ends_them(local_ray):
    actors = RayActors(WorkerSettings(config=ScanConfig(), limits=WorkLimits()), 1, None)
    pids = actors.pids()
    assert len(pids) == actors.workers == actors.free == 1
    assert all("_ActorWorker" in title(pid) for pid in pids)
    actors.close()
    until(lambda: not any("_ActorWorker" in title(pid) for pid in pids), "the end of the actors")
    assert local_ray.is_initialized()


def test_a_worker_with_a_gpu_has_it_to_itself(local_ray):
    settings = WorkerSettings(config=ScanConfig(), limits=WorkLimits(), device="cuda")
    with pytest.raises(
        UsageError, match=r"one GPU a worker, and Ray has 2: take --workers 2 or --device cpu"
    ):
        RayActors(settings, 3, None)
    actors = RayActors(settings, None, None)
    try:
        assert len(actors.pids()) == actors.workers == 2
        assert local_ray.available_resources().get("GPU", 0) == 0
    finally:
        actors.close()
    until(lambda: local_ray.available_resources().get("GPU", 0) == 2, "the GPUs to be given back")


def test_a_scan_ends_in_words_when_no_worker_is_left(local_ray):
    actors = RayActors(WorkerSettings(config=ScanConfig(), limits=WorkLimits()), 1, None)
    (actor,) = actors._given
    local_ray.kill(actor)
    actors.submit(PinJob(Target(repo_id="acme/m0")))
    (event,) = until(lambda: actors.wait(1.0), "the end of the job")
    assert (type(event), event.failure.kind, actors.free) == (Lost, "worker_lost", 0)
    with pytest.raises(UsageError, match="no Ray worker is left"):
        until(lambda: actors.wait(1.0), "the end of the pool")
    actors.close()
