"""The executor on Ray: thin actors that hold a source and a device. Only jobs go in, only rows come out."""

import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from jobs.engine.blas import ONE_THREAD
from jobs.engine.worker import Worker, WorkerSettings, job_failure
from schemas.errors import ScanError, UsageError
from schemas.events import Event, Job, Lost
from schemas.results import FailureKind

WORKER_ENVIRONMENT = {**ONE_THREAD, "RAY_USAGE_STATS_ENABLED": "0"}
_OBJECT_STORE_BYTES = 256 << 20


class RayActors:
    """One actor a worker, one job an actor at a time, so that a death is blamed on the job it met.

    An actor restarts after a death; its job comes back as Lost and the ledger counts the attempt. Until it
    answers again it gets no job, for Ray would fail that one too. Ray's own retries stay off: they would
    replay a poisonous job on every actor.
    """

    name = "ray"

    def __init__(self, settings: WorkerSettings, workers: int | None, address: str | None) -> None:
        self._started = _connect(address, workers)
        gpus = 1 if settings.device == "cuda" else 0
        self.workers = _workers(workers, "GPU" if gpus else "CPU", elastic=address is not None)
        actor = ray.remote(_ActorWorker).options(
            num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0
        )
        self._idle: list[Any] = [actor.remote(settings) for _ in range(self.workers)]
        self._busy: dict[Any, tuple[Any, Job]] = {}
        self._restarting: dict[Any, Any] = {}

    @property
    def free(self) -> int:
        """Jobs it can take now."""
        return len(self._idle)

    def submit(self, job: Job) -> None:
        """Give a job to an idle actor."""
        actor = self._idle.pop()
        self._busy[actor.run.remote(job)] = (actor, job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Events of jobs that ended within `timeout` seconds, maybe none.

        Raises UsageError when no actor is left and none can be restarted.
        """
        pending = [*self._busy, *self._restarting]
        if not pending:
            return []
        ready, _ = ray.wait(pending, num_returns=1, timeout=timeout)
        for ref in ready:
            if ref in self._restarting:
                self._answered(ref)
        return [self._collect(ref) for ref in ready if ref in self._busy]

    def pids(self) -> tuple[int, ...]:
        """Process ids of the idle actors, for tests and diagnosis."""
        return tuple(ray.get([actor.pid.remote() for actor in self._idle]))

    def close(self) -> None:
        """Stop the actors, and Ray itself if we started it."""
        busy = (actor for actor, _ in self._busy.values())
        for actor in [*self._idle, *busy, *self._restarting.values()]:
            ray.kill(actor)
        if self._started:
            ray.shutdown()

    def _collect(self, ref: Any) -> Event:
        actor, job = self._busy.pop(ref)
        try:
            event: Event = ray.get(ref)
        except RayError as error:
            self._call(actor)
            reason = f"the worker died ({type(error).__name__})"
            lost = ScanError(FailureKind.WORKER_LOST, reason, retryable=True)
            return Lost(job, job_failure(job, lost))
        self._idle.append(actor)
        return event

    def _call(self, actor: Any) -> None:
        """Ask an actor that died whether it is back."""
        self._restarting[actor.pid.remote()] = actor

    def _answered(self, ref: Any) -> None:
        actor = self._restarting.pop(ref)
        try:
            ray.get(ref)
        except ActorDiedError as error:
            if not (self._idle or self._busy or self._restarting):
                raise UsageError(f"no Ray worker is left and none can be restarted: {error}") from error
        except RayError:
            self._call(actor)
        else:
            self._idle.append(actor)


class _ActorWorker(Worker):
    """A Worker as an actor."""

    def pid(self) -> int:
        return os.getpid()


def _connect(address: str | None, workers: int | None) -> bool:
    """Join the cluster at `address`, or start a local Ray; says whether we started it."""
    if ray.is_initialized():
        return False
    os.environ.update({key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()})
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
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
