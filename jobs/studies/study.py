"""What a study is, and what it says: checks with their evidence, tables, figures. No effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

REFERENCE = "reference implementation"
"""An expected number measured once with independent code (numpy, scipy) of the same rules."""


class Verdict(StrEnum):
    """How a study, or a check of it, ended."""

    PASS = "pass"
    DEVIATES = "deviates"
    FAIL = "FAIL"
    NOT_RUN = "not run"


class NotAvailable(UsageError):
    """The study needs something that is not here; the message says what and where to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison: what was expected of `what`, what came out, how far they may differ, who says so.

    `because` explains a deviation that was looked into; it is empty for a pass and for a plain failure.
    """

    what: str
    expected: str
    got: str
    tolerance: str
    verdict: Verdict
    source: str
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A deviation from an expected number that was looked into: what is found instead, and why.

    It excuses only values within `within` of `value`; anything else is a failure.
    """

    value: float
    within: float
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure of the report: `draw` fills a canvas `height` inches high."""

    name: str
    caption: str
    draw: Callable[[Canvas], None]
    height: float = 3.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the report, its cells as text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run of a study found: `got` in a line, and the evidence."""

    got: str
    checks: tuple[Check, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    remark: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks."""
        found = {check.verdict for check in self.checks}
        return next((v for v in (Verdict.FAIL, Verdict.DEVIATES) if v in found), Verdict.PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A validation experiment.

    id: its number. question, expected: a line each. meaning: what the result means to a user. quick: whether
    it has a small form of a few seconds, which the tests run. run: takes whether to be quick; seeded, so it
    answers the same each time; raises NotAvailable when it needs something that is not here.
    """

    id: str
    name: str
    question: str
    expected: str
    meaning: str
    run: Callable[[bool], Outcome]
    quick: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A study that was run: its outcome, or why it was not run."""

    study: Study
    outcome: Outcome | None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        """Pass, FAIL or not run."""
        return Verdict.NOT_RUN if self.outcome is None else self.outcome.verdict


def near(
    what: str,
    got: float | None,
    expected: float,
    tolerance: float,
    source: str = REFERENCE,
    known: Known | None = None,
) -> Check:
    """`got` is within `tolerance` of `expected`; an absent number is not."""
    close = got is not None and abs(got - expected) <= tolerance
    return _check(what, number(expected), got, f"± {tolerance:.2g}", close, source, known)


def near_share(what: str, got: float | None, expected: float, share: float, source: str = REFERENCE) -> Check:
    """`got` is within a share of `expected`."""
    close = got is not None and abs(got - expected) <= share * abs(expected)
    return _check(what, number(expected), got, f"± {share:.0%}", close, source)


def at_most(
    what: str, got: float | None, limit: float, source: str = REFERENCE, known: Known | None = None
) -> Check:
    """`got` does not exceed `limit`."""
    return _check(what, f"<= {number(limit)}", got, "", got is not None and got <= limit, source, known)


def at_least(what: str, got: float | None, limit: float, source: str = REFERENCE) -> Check:
    """`got` reaches `limit`."""
    return _check(what, f">= {number(limit)}", got, "", got is not None and got >= limit, source)


def same(what: str, got: object, expected: object, source: str = REFERENCE) -> Check:
    """`got` equals `expected`."""
    return Check(
        what=what,
        expected=listed(expected),
        got=listed(got),
        tolerance="exact",
        verdict=Verdict.PASS if got == expected else Verdict.FAIL,
        source=source,
    )


def tally(checks: Sequence[Check]) -> str:
    """How many of the checks pass."""
    return f"{sum(check.verdict is Verdict.PASS for check in checks)} of {len(checks)} checks"


def number(value: float | None) -> str:
    """Four figures; a missing one is none."""
    return "none" if value is None else f"{value:.4g}"


def listed(value: object) -> str:
    """Text of a value: collections joined by commas."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return number(value) if isinstance(value, float) else str(value)
    return ", ".join(listed(item) for item in value) or "none"


def _check(
    what: str,
    expected: str,
    got: float | None,
    tolerance: str,
    passed: bool,
    source: str,
    known: Known | None = None,
) -> Check:
    excused = not passed and known is not None and got is not None and abs(got - known.value) <= known.within
    return Check(
        what=what,
        expected=expected,
        got=number(got),
        tolerance=tolerance,
        verdict=Verdict.PASS if passed else Verdict.DEVIATES if excused else Verdict.FAIL,
        source=source,
        because=known.because if known is not None and excused else "",
    )
