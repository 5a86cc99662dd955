"""Runs a job, in whichever process: holds the sources and the device, turns errors into events."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field

from threadpoolctl import threadpool_limits

from jobs.engine.heap import keep_freed_memory
from scanner.bases import Bases
from scanner.failures import failure_of
from scanner.pipeline import run_unit
from scanner.sources.base import Source
from scanner.sources.targets import open_source
from scanner.sources.transfer import UnreachableError
from schemas.config import ScanConfig, WorkLimits
from schemas.errors import ScanError
from schemas.events import Event, Failed, Job, PinJob, Pinned, PlanJob, Planned, Scanned, UnitJob
from schemas.results import FailureKind, Stage
from schemas.rows import Failure
from schemas.work import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything a worker is told once. The token is kept out of its repr.

    `base` is what every target is compared with; None leaves it to their cards.
    """

    config: ScanConfig
    limits: WorkLimits
    device: str = "cpu"
    endpoint: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    base: Target | None = None


class Worker:
    """Runs one job at a time on one BLAS thread, in a process that keeps its memory."""

    def __init__(self, settings: WorkerSettings) -> None:
        keep_freed_memory()
        self._settings = settings
        self._hub: Source | None = None
        self._bases = Bases(self._source, settings.config, settings.base)
        self._threads = _OneThread()

    def run(self, job: Job) -> Event:
        """Do the job; whatever goes wrong comes back as Failed."""
        try:
            return self._do(job)
        except ScanError as error:
            return Failed(job, job_failure(job, error), tried_out=isinstance(error, UnreachableError))
        except MemoryError:
            full = ScanError(FailureKind.OUT_OF_MEMORY, "memory ran out outside the work on one matrix")
            return Failed(job, job_failure(job, full))
        except Exception as error:  # noqa: BLE001 - the one broad except: a surprise becomes a Failure row
            surprise = ScanError(FailureKind.INTERNAL, f"{type(error).__name__}: {error}")
            return Failed(job, job_failure(job, surprise))

    def close(self) -> None:
        """Release connections, and the threads of the BLAS."""
        self._threads.release()
        if self._hub is not None:
            self._hub.close()

    def _do(self, job: Job) -> Event:
        settings, source = self._settings, self._source(job.target)
        match job:
            case PinJob(target=target):
                return Pinned(job, source.repository(target.repo_id, target.revision))
            case PlanJob(target=target, repository=repository):
                origin = "local" if target.root is not None else settings.endpoint or ""
                plan = self._bases.plan(source, target, repository, settings.limits, origin)
                return Planned(job, plan)
            case UnitJob(target=target, unit=unit):
                bases = self._bases.source(target, unit)
                self._threads.hold()
                return Scanned(job, run_unit(source, unit, settings.config, settings.device, bases))

    def _source(self, target: Target) -> Source:
        """The hub's source is kept, with its connections; a local one holds nothing."""
        if target.root is not None:
            return open_source(target)
        if self._hub is None:
            self._hub = open_source(target, self._settings.endpoint, self._settings.token)
        return self._hub


class _OneThread:
    """Holds every BLAS of the process to one thread.

    Asked once, for the question takes 1.4 ms, and again when torch has brought libraries of its own.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._asked: set[bool] = set()

    def hold(self) -> None:
        with_torch = "torch" in sys.modules
        if with_torch not in self._asked:
            self._asked.add(with_torch)
            self._held.enter_context(threadpool_limits(limits=1))

    def release(self) -> None:
        self._asked.clear()
        self._held.close()


def job_failure(job: Job, error: ScanError) -> Failure:
    """The failure of a whole job, in the place it was about."""
    match job:
        case PinJob(target=target):
            return failure_of(error, Stage.RESOLVE, target.repo_id)
        case PlanJob(repository=repository):
            return failure_of(error, Stage.PLAN, repository.ref.repo_id, repository.ref.revision)
        case UnitJob(unit=unit):
            return failure_of(error, Stage.READ, unit.repo.repo_id, unit.repo.revision)
