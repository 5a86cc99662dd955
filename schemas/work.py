"""What travels between the driver and its workers: a target to plan, a plan, a unit's outcome."""

import hashlib
from dataclasses import dataclass

from schemas.refs import MatrixRef, RepoRef, WorkUnit
from schemas.rows import Failure, LayerMetrics, RepositoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One repository to scan, as the user named it.

    `root` is the local folder or file that holds it, None for the hub; `repo_id` is owner/name;
    `revision` is a branch, tag or commit, None for the default branch (or the local content).
    """

    repo_id: str
    revision: str | None = None
    root: str | None = None

    @property
    def part_key(self) -> str:
        """Name of the failures of a target that could not be pinned."""
        text = f"{self.repo_id}\0{self.revision}\0{self.root}".encode("utf-8", "surrogateescape")
        return f"target-{hashlib.blake2b(text, digest_size=8).hexdigest()}"

    def __str__(self) -> str:
        return self.root or (f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoPlan:
    """A pinned repository cut into units: `planned` rows are promised, `failures` already happened.

    `skipped` rows are complete as they are planned, and no worker is sent them.
    """

    ref: RepoRef
    units: tuple[WorkUnit, ...]
    skipped: tuple[MatrixRef, ...] = ()
    components: tuple[RepositoryRow, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def planned(self) -> int:
        """Rows of `layers` the plan promises."""
        return sum(len(unit.matrices) for unit in self.units) + len(self.skipped)

    @property
    def live(self) -> tuple[MatrixRef, ...]:
        """The matrices of all units."""
        return tuple(matrix for unit in self.units for matrix in unit.matrices)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What one worker made of one unit: a row for every matrix of it, the failures met, and what to tell."""

    unit_id: str
    rows: tuple[LayerMetrics, ...]
    failures: tuple[Failure, ...]
    bytes_read: int
    secs: float
    wait_secs: float = 0.0
    notes: tuple[str, ...] = ()
