"""The executor on Ray: thin actors that hold a source and a device. Only jobs go in, only rows come out."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from jobs.engine.blas import ONE_THREAD
from jobs.engine.heap import keeping
from jobs.engine.worker import Worker, WorkerSettings, job_failure
from schemas.errors import ScanError, UsageError
from schemas.events import Event, Job, Lost, UnitJob
from schemas.results import FailureKind

_ENVIRONMENT = {**ONE_THREAD, "RAY_USAGE_STATS_ENABLED": "0"}
_OBJECT_STORE_BYTES = 256 << 20
_ANSWER_SECONDS = 10.0

SHORT_SECONDS = 0.5
"""Estimated work of a unit behind which an actor is given the next one: it would idle 2 ms between them."""

_DEEP = 2


@dataclass(slots=True, eq=False)
class _Given:
    """A job an actor has, under way or next; `innocent` if the actor died when another was under way."""

    ref: Any
    job: Job
    innocent: bool = False


class RayActors:
    """One actor a worker, which does its jobs in order: the first of them is under way.

    Behind a short unit an actor has the next job already. A death is blamed on the job that was under way;
    the one behind it is given again, for Ray fails both. An actor restarts after a death; its job comes back
    as Lost and the ledger counts the attempt. Until it answers again it gets no job. Ray's own retries stay
    off: they would replay a poisonous job on every actor.
    """

    name = "ray"

    def __init__(self, settings: WorkerSettings, workers: int | None, address: str | None) -> None:
        self._started = _connect(address, workers)
        gpus = 1 if settings.device == "cuda" else 0
        self.workers = _workers(workers, "GPU" if gpus else "CPU", elastic=address is not None)
        actor = ray.remote(_ActorWorker).options(
            num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0
        )
        self._given: dict[Any, deque[_Given]] = {actor.remote(settings): deque() for _ in range(self.workers)}
        self._restarting: dict[Any, Any] = {}
        self._again: deque[Job] = deque()

    @property
    def free(self) -> int:
        """Actors that can take a job now."""
        return max(sum(map(self._takes, self._given)) - len(self._again), 0)

    def submit(self, job: Job) -> None:
        """Give a job to the actor that has the least to do."""
        actor = min(filter(self._takes, self._given), key=lambda actor: _work(self._given[actor]))
        self._given[actor].append(_Given(actor.outcome.remote(job), job))

    def wait(self, timeout: float) -> Sequence[Event]:
        """Events of jobs that ended within `timeout` seconds, maybe none.

        Raises UsageError when no actor is left and none can be restarted.
        """
        while self._again and any(map(self._takes, self._given)):
            self.submit(self._again.popleft())
        under_way = {jobs[0].ref: actor for actor, jobs in self._given.items() if jobs}
        pending = [*under_way, *self._restarting]
        if not pending:
            return []
        ready, _ = ray.wait(pending, num_returns=1, timeout=timeout)
        for ref in ready:
            if ref in self._restarting:
                self._answered(ref)
        events = [self._collect(under_way[ref]) for ref in ready if ref in under_way]
        return [event for event in events if event is not None]

    def pids(self) -> tuple[int, ...]:
        """Process ids of the actors that have no job, for tests and diagnosis."""
        return tuple(ray.get([actor.pid.remote() for actor, jobs in self._given.items() if not jobs]))

    def close(self) -> None:
        """Stop the actors, and Ray itself if we started it."""
        for actor in self._given:
            ray.kill(actor)
        if self._started:
            ray.shutdown()

    def _takes(self, actor: Any) -> bool:
        """Whether an actor has nothing to do, or soon will have."""
        jobs = self._given[actor]
        soon = len(jobs) < _DEEP and all(_is_short(given.job) for given in jobs)
        return soon and actor not in self._restarting.values()

    def _collect(self, actor: Any) -> Event | None:
        """What became of the job that an actor had under way; None for one that is given again."""
        jobs = self._given[actor]
        given = jobs.popleft()
        try:
            outcome: Callable[[Job], Event] = ray.get(given.ref)
        except RayError as error:
            return self._died(actor, given, error)
        return outcome(given.job)

    def _died(self, actor: Any, given: _Given, error: RayError) -> Event | None:
        for behind in self._given[actor]:
            behind.innocent = True
        if actor not in self._restarting.values():
            self._call(actor)
        if given.innocent:
            self._again.append(given.job)
            return None
        reason = f"the worker died ({type(error).__name__})"
        lost = ScanError(FailureKind.WORKER_LOST, reason, retryable=True)
        return Lost(given.job, job_failure(given.job, lost))

    def _call(self, actor: Any) -> None:
        """Ask an actor that died whether it is back."""
        self._restarting[actor.pid.remote()] = actor

    def _answered(self, ref: Any) -> None:
        actor = self._restarting.pop(ref)
        try:
            ray.get(ref)
        except ActorDiedError as error:
            self._again += [given.job for given in self._given.pop(actor)]
            if not self._given:
                raise UsageError(f"no Ray worker is left and none can be restarted: {error}") from error
        except RayError:
            self._call(actor)


def _is_short(job: Job) -> bool:
    return isinstance(job, UnitJob) and job.unit.cost <= SHORT_SECONDS


def _work(jobs: Iterable[_Given]) -> tuple[float, int]:
    """Estimated seconds, and how many jobs."""
    costs = [given.job.unit.cost if isinstance(given.job, UnitJob) else 0.0 for given in jobs]
    return sum(costs), len(costs)


class _ActorWorker(Worker):
    """A Worker as an actor."""

    def outcome(self, job: Job) -> Callable[[Job], Event]:
        """What became of a job: the event without the job, which the driver has."""
        event = self.run(job)
        rest = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "job"}
        return partial(type(event), **rest)

    def pid(self) -> int:
        return os.getpid()


def worker_environment() -> dict[str, str]:
    """What the processes of actors begin with."""
    hub = {name: os.environ[name] for name in ("HF_ENDPOINT",) if name in os.environ}
    return {**_ENVIRONMENT, **keeping(), **hub}


def _connect(address: str | None, workers: int | None) -> bool:
    """Join the cluster at `address`, or start a local Ray; says whether we started it."""
    if address is not None:
        _require_listening(address)
    if ray.is_initialized():
        return False
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": worker_environment()},
    }
    if address is None:
        common |= {
            "num_cpus": workers or len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    try:
        ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"cannot reach Ray at {address or 'this machine'}: {error}") from error
    return True


def _require_listening(address: str) -> None:
    """Raises UsageError where nothing answers at [ray://]HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot reach Ray at {address}: {error}; is its head running, and is this the address that "
            "`ray start --head` told (port 6379, or ray:// and 10001)?"
        ) from error


def _workers(wanted: int | None, resource: str, elastic: bool) -> int:
    """As many as asked for, or one for each core or GPU of the cluster.

    Raises UsageError for GPUs that are not there, since their actors would wait for ever; an `elastic`
    cluster may add those that were asked for by number.
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    present = int(resources.get(resource, 0))
    if resource == "GPU" and present < (wanted or 1) and not (elastic and wanted):
        raise UsageError(
            f"--device cuda takes one GPU a worker, and Ray has {present}: take --workers "
            f"{present or 'N (where the cluster adds GPUs on demand)'} or --device cpu"
        )
    return wanted or max(present, 1)
