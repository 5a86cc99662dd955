"""What is to be done, what is under way, what to do next. Pure: events in, commands out, time as a number.

Laws, each a test: every target ends as one Commit, one Record or one Skip; a repository is committed
once, when each of its units was staged or given up; a job is tried at most `attempts` times; after
`stop()` nothing new starts and `idle` becomes true when what was under way has come back.
"""

import heapq
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from schemas.config import WorkLimits
from schemas.events import (
    Command,
    Commit,
    Event,
    Failed,
    Job,
    Lost,
    Note,
    PinJob,
    Pinned,
    PlanJob,
    Planned,
    Record,
    Scanned,
    Skip,
    Stage,
    UnitJob,
)
from schemas.refs import RepoRef, WorkUnit
from schemas.rows import Failure
from schemas.work import RepoPlan, Target


@dataclass(slots=True)
class _Repo:
    """A planned repository in the making."""

    plan: RepoPlan
    waiting: set[str]
    given_up: list[tuple[WorkUnit, Failure]] = field(default_factory=list)


class Ledger:
    """Decides; never acts.

    `done` holds the part keys (of config `fingerprint`) and `staged` the unit ids that need no more work;
    `lookahead` units are kept planned ahead of the workers.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        limits: WorkLimits,
        fingerprint: str,
        done: Collection[str] = frozenset(),
        staged: Collection[str] = frozenset(),
        lookahead: int = 8,
    ) -> None:
        self._limits = limits
        self._fingerprint = fingerprint
        self._done = done
        self._staged = staged
        self._lookahead = lookahead
        self._targets: deque[PinJob | PlanJob] = deque(PinJob(target) for target in targets)
        self._units: list[tuple[float, int, UnitJob]] = []
        self._later: list[tuple[float, int, Job]] = []
        self._tried: Counter[tuple[type[Job], str]] = Counter()
        self._repos: dict[Target, _Repo] = {}
        self._met: set[RepoRef] = set()
        self._under_way = 0
        self._order = 0
        self._stopped = False

    @property
    def idle(self) -> bool:
        """Nothing is under way and nothing more will start."""
        return self._under_way == 0 and (self._stopped or not (self._targets or self._units or self._later))

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True

    def next(self, now: float, units: bool = True) -> Job | None:
        """The job to start now, or None: units by falling cost, planning ahead when they run short.

        Without `units` only pinning and planning are started.
        """
        if self._stopped:
            return None
        while self._later and self._later[0][0] <= now:
            self._enqueue(heapq.heappop(self._later)[2])
        if self._targets and (not units or len(self._units) < self._lookahead):
            job: Job = self._targets.popleft()
        elif self._units and units:
            job = heapq.heappop(self._units)[2]
        else:
            return None
        self._under_way += 1
        return job

    def handle(self, event: Event, now: float) -> tuple[Command, ...]:
        """Account for an event and say what to do about it."""
        self._under_way -= 1
        match event:
            case Planned():
                return self._planned(event)
            case Pinned():
                return self._pinned(event)
            case Scanned():
                alone = len(self._repos[event.job.target].plan.units) == 1
                return (Stage(event.job, event.result, alone), *self._settled(event.job))
            case Failed() | Lost():
                return self._failed(event, now)

    def _pinned(self, event: Pinned) -> tuple[Command, ...]:
        ref, target = event.repository.ref, event.job.target
        if ref in self._met or ref.part_key(self._fingerprint) in self._done:
            return (Skip(target, ref),)
        self._met.add(ref)
        self._targets.appendleft(PlanJob(target, event.repository))
        return ()

    def _planned(self, event: Planned) -> tuple[Command, ...]:
        plan, target = event.plan, event.job.target
        fresh = [unit for unit in plan.units if unit.unit_id not in self._staged]
        self._repos[target] = _Repo(plan, {unit.unit_id for unit in fresh})
        for unit in fresh:
            self._enqueue(UnitJob(target, unit))
        return self._committed(target)

    def _settled(self, job: UnitJob) -> tuple[Command, ...]:
        self._repos[job.target].waiting.discard(job.unit.unit_id)
        return self._committed(job.target)

    def _committed(self, target: Target) -> tuple[Command, ...]:
        if self._repos[target].waiting:
            return ()
        repo = self._repos.pop(target)
        return (Commit(target, repo.plan, tuple(repo.given_up)),)

    def _failed(self, event: Failed | Lost, now: float) -> tuple[Command, ...]:
        job, failure = event.job, event.failure
        name = _name(job)
        self._tried[type(job), name] += 1
        tries = self._tried[type(job), name]
        tried_out = isinstance(event, Failed) and event.tried_out
        if failure.retryable and not tried_out and tries < self._limits.attempts:
            delay = self._limits.backoff * 2 ** (tries - 1)
            self._order += 1
            heapq.heappush(self._later, (now + delay, self._order, job))
            return (Note(f"{_told(name, failure)}; trying again in {delay:.0f} s"),)
        if not isinstance(job, UnitJob):
            return (Record(job.target, failure),)
        self._repos[job.target].given_up.append((job.unit, failure))
        return self._settled(job)

    def _enqueue(self, job: Job) -> None:
        self._order += 1
        if isinstance(job, UnitJob):
            heapq.heappush(self._units, (-job.unit.cost, self._order, job))
        else:
            self._targets.append(job)


def _told(name: str, failure: Failure) -> str:
    """The message of a failure, after the job's name where it does not begin with the repository's."""
    named = failure.message.startswith(failure.repo_id)
    return failure.message if named else f"{name}: {failure.message}"


def _name(job: Job) -> str:
    return f"{job.unit.repo} unit {job.unit.unit_id}" if isinstance(job, UnitJob) else str(job.target)
