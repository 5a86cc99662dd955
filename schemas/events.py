"""Jobs handed to workers and the events that come back: the ledger's whole world."""

from dataclasses import dataclass
from typing import TypeAlias

from schemas.refs import RepoRef, Repository, WorkUnit
from schemas.rows import Failure
from schemas.work import RepoPlan, Target, UnitResult


@dataclass(frozen=True, slots=True)
class PinJob:
    """Pin a target to a commit and list its files."""

    target: Target


@dataclass(frozen=True, slots=True)
class PlanJob:
    """Read the headers of a pinned target and cut it into units."""

    target: Target
    repository: Repository


@dataclass(frozen=True, slots=True)
class UnitJob:
    """Scan one unit of a planned target."""

    target: Target
    unit: WorkUnit


Job: TypeAlias = PinJob | PlanJob | UnitJob


@dataclass(frozen=True, slots=True)
class Pinned:
    """A target was pinned."""

    job: PinJob
    repository: Repository


@dataclass(frozen=True, slots=True)
class Planned:
    """A target was planned."""

    job: PlanJob
    plan: RepoPlan


@dataclass(frozen=True, slots=True)
class Scanned:
    """A unit was scanned."""

    job: UnitJob
    result: UnitResult


@dataclass(frozen=True, slots=True)
class Failed:
    """A job raised; `failure.retryable` says whether trying again may help.

    `tried_out` where what raised has tried for so long that this scan need not.
    """

    job: Job
    failure: Failure
    tried_out: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker died on a job."""

    job: Job
    failure: Failure


Event: TypeAlias = Pinned | Planned | Scanned | Failed | Lost


@dataclass(frozen=True, slots=True)
class Stage:
    """Keep a unit's outcome until its repository is committed; `alone` means that is the next command."""

    job: UnitJob
    result: UnitResult
    alone: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """Publish a repository: all its units are staged, or among those given up."""

    target: Target
    plan: RepoPlan
    given_up: tuple[tuple[WorkUnit, Failure], ...]


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do: the lake holds this commit under this config, or another target is the same commit."""

    target: Target
    ref: RepoRef


@dataclass(frozen=True, slots=True)
class Record:
    """Write down that a target could not be planned."""

    target: Target
    failure: Failure


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the user of something that needs no action, such as a retry."""

    text: str


Command: TypeAlias = Stage | Commit | Skip | Record | Note
