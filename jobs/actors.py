"""The executor on Ray: thin actors that hold a source and a device. Only jobs go in, only rows come out."""

import os
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from jobs.worker import Worker, WorkerSettings, job_failure
from schemas.errors import ScanError, UsageError
from schemas.events import Event, Job, Lost
from schemas.results import FailureKind

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_OBJECT_STORE_BYTES = 256 << 20


class RayActors:
    """One actor a worker, one job an actor at a time, so that a death is blamed on the job it met.

    An actor restarts after a death; its job comes back as Lost and the ledger counts the attempt. Ray's own
    retries stay off: they would replay a poisonous job on every actor.
    """

    name = "ray"

    def __init__(self, settings: WorkerSettings, workers: int | None, address: str | None) -> None:
        self._started = _connect(address, workers)
        self.workers = workers or _default_workers(settings.device)
        gpus = 1 if settings.device == "cuda" else 0
        actor = ray.remote(_ActorWorker).options(
            num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=0
        )
        self._idle: list[Any] = [actor.remote(settings) for _ in range(self.workers)]
        self._busy: dict[Any, tuple[Any, Job]] = {}

    @property
    def free(self) -> int:
        """Jobs it can take now."""
        return len(self._idle)

    def submit(self, job: Job) -> None:
        """Give a job to an idle actor."""
        actor = self._idle.pop()
        self._busy[actor.run.remote(job)] = (actor, job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Events of jobs that ended within `timeout` seconds, maybe none."""
        if not self._busy:
            return []
        ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=timeout)
        return [self._collect(ref) for ref in ready]

    def pids(self) -> tuple[int, ...]:
        """Process ids of the idle actors, for tests and diagnosis."""
        return tuple(ray.get([actor.pid.remote() for actor in self._idle]))

    def close(self) -> None:
        """Stop the actors, and Ray itself if we started it."""
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
        if self._started:
            ray.shutdown()

    def _collect(self, ref: Any) -> Event:
        actor, job = self._busy.pop(ref)
        self._idle.append(actor)
        try:
            event: Event = ray.get(ref)
        except RayError as error:
            reason = f"the worker died ({type(error).__name__})"
            lost = ScanError(FailureKind.WORKER_LOST, reason, retryable=True)
            return Lost(job, job_failure(job, lost))
        return event


class _ActorWorker(Worker):
    """A Worker as an actor."""

    def pid(self) -> int:
        return os.getpid()


def _connect(address: str | None, workers: int | None) -> bool:
    """Join the cluster at `address`, or start a local Ray; says whether we started it."""
    if ray.is_initialized():
        return False
    os.environ.update({key: os.environ.get(key, value) for key, value in ONE_THREAD.items()})
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": ONE_THREAD},
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


def _default_workers(device: str) -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(int(resources.get("GPU" if device == "cuda" else "CPU", 1)), 1)
