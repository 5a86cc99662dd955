"""The loop of a scan: the ledger's jobs to an executor, its events back, its commands to the lake."""

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from types import FrameType
from typing import Protocol

from jobs.engine.inprocess import InProcess
from jobs.engine.ledger import Ledger
from jobs.engine.progress import Counts, Progress, placed
from jobs.engine.worker import WorkerSettings
from jobs.lake import gathering
from jobs.lake.compaction import compact, is_due
from jobs.lake.leaderboard import save_snapshot
from jobs.lake.store import Store
from scanner.pipeline import fail_unit
from schemas.config import ScanConfig, WorkLimits, code_version, estimator_of
from schemas.errors import LakeError
from schemas.events import (
    Command,
    Commit,
    Event,
    Job,
    Note,
    Planned,
    Record,
    Scanned,
    Skip,
    Stage,
    UnitJob,
)
from schemas.refs import RepoRef
from schemas.results import RowStatus
from schemas.rows import Failure, RunRow
from schemas.tables import SCHEMA_VERSION
from schemas.work import Target, UnitResult

LOCAL_SECONDS = 60.0
"""Estimated compute beyond which `auto` takes Ray, which starts in 10 s and halves the rest on two cores."""

_PLANNED_FIRST = 4
_TICK = 0.5
_LIBRARIES = ("numpy", "scipy", "torch", "ray", "numba", "huggingface_hub", "pyarrow", "duckdb")


class Executor(Protocol):
    """Runs jobs somewhere."""

    name: str
    workers: int

    @property
    def free(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout: float) -> Sequence[Event]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One scan as asked for; `base` is what its targets are compared with, in place of their cards' bases."""

    targets: tuple[Target, ...]
    lake: Path
    config: ScanConfig
    limits: WorkLimits = field(default_factory=WorkLimits)
    device: str = "cpu"
    engine: str = "auto"
    workers: int | None = None
    ray_address: str | None = None
    endpoint: str = "https://huggingface.co"
    token: str | bool | None = None
    base: Target | None = None
    compact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a scan ended: its run row, the counts, every failure it met, and the commits that it holds now."""

    run: RunRow
    counts: Counts
    failures: tuple[Failure, ...]
    stopped: bool
    engine: str
    refs: tuple[RepoRef, ...] = ()


def run_scan(request: Request, progress: Progress) -> Summary:
    """Scan every target into the lake. Raises UsageError when the lake, the endpoint or Ray can't be used.

    Failures of repositories are rows, not exceptions. SIGINT and SIGTERM finish what is under way and
    return; a second one interrupts.
    """
    settings = worker_settings(request)
    with ExitStack() as stack:
        store = stack.enter_context(Store.writing(request.lake))
        scan = _Scan(request, store, progress)
        stack.enter_context(_draining(scan.stop))
        executor = stack.enter_context(_executor(request, settings, scan))
        return scan.run(executor)


def worker_settings(request: Request) -> WorkerSettings:
    """What the workers of this request are told. Raises ConfigError where no hub can be asked so."""
    return WorkerSettings(
        config=request.config,
        limits=request.limits,
        device=request.device,
        endpoint=request.endpoint,
        token=_token(request),
        base=request.base,
    )


class _Scan:
    """The state of one running scan."""

    def __init__(self, request: Request, store: Store, progress: Progress) -> None:
        self._request = request
        self._store = store
        self._progress = progress
        self._staged = store.staged()
        self._ledger = Ledger(
            request.targets, request.limits, request.config.fingerprint(), store.done(), self._staged
        )
        self._failures: list[Failure] = []
        self._held: list[UnitResult] = []
        self._refs: list[RepoRef] = []
        self._stopped = False
        self._started = time.monotonic()
        self.counts = Counts(repos=len(request.targets))
        self.scan_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True
        self._ledger.stop()
        self._progress.note("stopping: finishing what is under way (once more to interrupt)")

    def run(self, executor: Executor) -> Summary:
        run = self._run_row(executor)
        self._store.save_run(run)
        while not self._ledger.idle:
            while executor.free > 0 and (job := self._ledger.next(time.monotonic())):
                if isinstance(job, UnitJob) and job.unit.cost > gathering.SECONDS:
                    self._store.flush()  # this process may be busy with it
                executor.submit(job)
            events = executor.wait(_TICK)
            self._store.flush(gathering.SECONDS)
            if not events and executor.free > 0:
                time.sleep(_TICK / 10)
            for event in events:
                self._account(event, self._ledger.handle(event, time.monotonic()))
        self._store.flush()
        finished = self._finished(run)
        self._store.save_run(finished)
        self._tidy()
        return Summary(
            run=finished,
            counts=self.counts,
            failures=tuple(self._failures),
            stopped=self._stopped,
            engine=executor.name,
            refs=tuple(self._refs),
        )

    def _tidy(self) -> None:
        """Leave few files and a current snapshot. The scan stands even where there is no room to merge."""
        if self._request.compact and is_due(self._store):
            self._progress.note("merging the small parts of the lake (--no-compact leaves them)")
            try:
                compact(self._store)
            except LakeError as error:
                self._progress.note(f"not merged: {error}")
        save_snapshot(self._store)

    def plan_first(self, executor: Executor, count: int) -> float:
        """Pin and plan the first targets, nothing else; returns the estimated seconds of one core for all."""
        while self.counts.repos_done + self.counts.repos_planned < min(count, self.counts.repos):
            job = self._ledger.next(time.monotonic(), units=False)
            if job is None:
                break
            executor.submit(job)
            for event in executor.wait(_TICK):
                self._account(event, self._ledger.handle(event, time.monotonic()))
        return self.counts.cost * self.counts.repos / max(self.counts.repos_planned, 1)

    def _account(self, event: Event, commands: Sequence[Command]) -> None:
        counts = self.counts
        match event:
            case Planned(plan=plan):
                fresh = [unit for unit in plan.units if unit.unit_id not in self._staged]
                counts.repos_planned += 1
                counts.planned += plan.planned
                counts.tensors_done += plan.planned - sum(len(unit.matrices) for unit in fresh)
                counts.cost += sum(unit.cost for unit in fresh)
            case Scanned(result=result):
                counts.tensors_done += len(result.rows)
                counts.bytes_read += result.bytes_read
                counts.compute_secs += result.secs
                counts.wait_secs += result.wait_secs
                counts.cost_done += event.job.unit.cost
                for text in result.notes:
                    self._progress.note(text)
        for command in commands:
            self._perform(command)
        self._progress.update(counts)

    def _perform(self, command: Command) -> None:
        match command:
            case Stage(result=result, alone=True):
                self._held.append(result)
            case Stage(result=result):
                self._store.stage(result)
            case Commit():
                self._commit(command)
            case Skip(target=target, ref=ref):
                self._skip(target, ref)
            case Record(target=target, failure=failure):
                self._failures += self._store.record(target.part_key, [failure], self.scan_id)
                self.counts.repos_done += 1
                self.counts.repos_failed += 1
                self._progress.note(placed(failure))
            case Note(text=text):
                self._progress.note(text)

    def _skip(self, target: Target, ref: RepoRef) -> None:
        """A model that is done stays done, and what was wrong with it stays said."""
        self._refs.append(ref)
        self._store.record(target.part_key, [], self.scan_id)
        failures = [f for f in self._store.unresolved(ref, self._request.config) if not f.only_of_base]
        self._failures += failures
        self.counts.repos_done += 1
        self.counts.repos_done_before += 1
        self.counts.repos_failed += bool(failures)

    def _commit(self, commit: Commit) -> None:
        config = self._request.config
        given_up = [fail_unit(unit, failure, config) for unit, failure in commit.given_up]
        self.counts.tensors_done += sum(len(result.rows) for result in given_up)
        self.counts.cost -= sum(unit.cost for unit, _ in commit.given_up)
        rows, failures = self._store.commit(commit.plan, [*self._held, *given_up], config, self.scan_id)
        self._held.clear()
        self._refs.append(commit.plan.ref)
        self._store.record(commit.target.part_key, [], self.scan_id)
        counts = self.counts
        counts.ok += sum(row.status == RowStatus.OK for row in rows)
        counts.skipped += sum(row.status == RowStatus.SKIPPED for row in rows)
        counts.failed += sum(row.status == RowStatus.FAILED for row in rows)
        own = [failure for failure in failures if not failure.only_of_base]
        counts.repos_done += 1
        counts.repos_ok += not own
        counts.repos_failed += bool(own)
        self._failures += own
        for failure in failures:
            self._progress.note(placed(failure))

    def _run_row(self, executor: Executor) -> RunRow:
        config = self._request.config
        return RunRow(
            scan_id=self.scan_id,
            config_fingerprint=config.fingerprint(),
            config_json=config.to_json(),
            code_version=code_version(),
            estimator=estimator_of(config.tail),
            hub_endpoint=self._request.endpoint,
            schema_version=SCHEMA_VERSION,
            started_at=datetime.now(UTC),
            status="running",
            versions=_versions(),
            devices={self._request.device: executor.workers},
        )

    def _finished(self, run: RunRow) -> RunRow:
        counts = self.counts
        return replace(
            run,
            finished_at=datetime.now(UTC),
            status="stopped" if self._stopped else "finished",
            num_repos=counts.repos,
            num_repos_done_before=counts.repos_done_before,
            num_repos_ok=counts.repos_ok,
            num_repos_failed=counts.repos_failed,
            num_matrices=counts.ok + counts.skipped + counts.failed,
            num_ok=counts.ok,
            num_skipped=counts.skipped,
            num_failed=counts.failed,
            bytes_read=counts.bytes_read,
            wall_secs=time.monotonic() - self._started,
            compute_secs=counts.compute_secs,
            wait_secs=counts.wait_secs,
        )


def _token(request: Request) -> str | bool | None:
    """The token itself rather than its place, since workers may run on other machines.

    Raises ConfigError where no hub can be asked with this endpoint and token.
    """
    places = [*request.targets, *([request.base] if request.base else [])]
    if all(target.root is not None for target in places):
        return request.token
    from scanner.sources.hub import HubSource, stored_token

    token = (stored_token() or False) if request.token is None else request.token
    HubSource(request.endpoint, token).close()
    return token


@contextmanager
def _executor(request: Request, settings: WorkerSettings, scan: _Scan) -> Iterator[Executor]:
    """What was asked for; else this process, or Ray where the first plans promise a minute of work."""
    asked = _asks_for_ray(request)
    executor = _on_ray(request, settings) if asked else InProcess(settings)
    try:
        if asked is None and scan.plan_first(executor, _PLANNED_FIRST) > LOCAL_SECONDS:
            executor.close()
            executor = _on_ray(request, settings)
        yield executor
    finally:
        executor.close()


def _asks_for_ray(request: Request) -> bool | None:
    """Whether by its name, a cluster or several workers; None leaves it to the amount of work."""
    if request.engine != "auto":
        return request.engine == "ray"
    if request.ray_address is not None or (request.workers or 1) > 1:
        return True
    return False if request.workers == 1 else None


def _on_ray(request: Request, settings: WorkerSettings) -> Executor:
    from jobs.engine.actors import RayActors

    return RayActors(settings, request.workers, request.ray_address)


@contextmanager
def _draining(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop`; the next one has its usual effect."""

    def first(signum: int, _: FrameType | None) -> None:
        signal.signal(signum, usual[signum])
        stop()

    usual = {int(sig): signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        for sig in usual:
            signal.signal(sig, first)
        yield
    finally:
        for sig, handler in usual.items():
            signal.signal(sig, handler)


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
