"""PURE. What a measurement says: its numbers, its target, whether both sides agreed, and the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a measurement ended; `unequal` means that no time was taken, `failed` that the case broke off."""

    MET = "met"
    MISSED = "missed"
    NO_TARGET = "no target"
    UNEQUAL = "unequal"
    NOT_RUN = "not run"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound of `value`, from below (a ratio to a peer) or from above (seconds, memory, overhead)."""

    bound: float
    at_least: bool = True

    def met_by(self, value: float) -> bool:
        """Whether `value` keeps the bound; NaN does not."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two sides that must give the same numbers are apart: `worst` may be `limit` at most."""

    what: str
    worst: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the numbers are equal enough for times to count; NaN is not."""
        return self.worst <= self.limit

    def __str__(self) -> str:
        return f"{self.what}: {self.worst:.1e} apart, {self.limit:.0e} allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured row.

    `value` is what the target bounds, in `unit`: the median over `pairs` of theirs / ours, or a figure of
    our own; `low` and `high` are its range. `ours` and `theirs` are medians in `measured`, such as CPU s.
    `load` is the load average of the last minute when it ended; `broken` says that the case failed, with
    the reason in `note`. None is what was not measured.
    """

    name: str
    case: str = ""
    peer: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "x"
    ours: float | None = None
    theirs: float | None = None
    measured: str = "CPU s"
    pairs: int = 0
    target: Target | None = None
    agreement: Agreement | None = None
    load: float | None = None
    note: str = ""
    broken: bool = False

    @property
    def verdict(self) -> Verdict:
        """Equality first, then whether there is a number, then the target."""
        if self.broken:
            return Verdict.FAILED
        if self.agreement is not None and not self.agreement.holds:
            return Verdict.UNEQUAL
        if self.value is None:
            return Verdict.NOT_RUN
        if self.target is None:
            return Verdict.NO_TARGET
        return Verdict.MET if self.target.met_by(self.value) else Verdict.MISSED

    def as_record(self) -> dict[str, Any]:
        """The row for a table or JSON, targets and agreement in words."""
        return {
            "case": self.case,
            "name": self.name,
            "verdict": self.verdict.value,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "target": None if self.target is None else str(self.target),
            "ours": self.ours,
            "theirs": self.theirs,
            "measured": None if self.ours is None else self.measured,
            "pairs": self.pairs,
            "peer": self.peer,
            "equal": None if self.agreement is None else str(self.agreement),
            "load": self.load,
            "note": self.note,
        }


class NotRunError(Exception):
    """A case cannot run here; the message says why and what to do."""


def farthest(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float:
    """Largest relative difference of two sequences; infinite where one has no number or another length.

    Two numbers that both are missing agree.
    """
    if len(ours) != len(theirs):
        return math.inf
    return max((_apart(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _apart(ours: float | None, theirs: float | None) -> float:
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else math.inf
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return math.inf
    return abs(ours - theirs) / max(abs(theirs), math.ulp(0.0)) if ours != theirs else 0.0
