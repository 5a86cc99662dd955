"""How two programs are compared fairly: in turn, on one thread, by process CPU time, as ratios.

Both sides first run once, which warms them up and gives the numbers that must agree; only then is a time
taken. Times of one pair lie seconds apart, so that a busy machine slows both; the median of the ratios and
their range are reported, never a ratio of two separate runs.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jobs.bench.result import Agreement, Result, Target

Ours = TypeVar("Ours")
Theirs = TypeVar("Theirs")

_LEAST = 0.02
"""Seconds that a timing spans at least: short work is repeated until then."""


def cpu_seconds(work: Callable[[], object]) -> float:
    """Process CPU seconds of one call, over as many calls as make a measurable time."""
    count, started = 0, time.process_time()
    while not count or time.process_time() - started < _LEAST:
        work()
        count += 1
    return (time.process_time() - started) / count


def wall_seconds(work: Callable[[], object]) -> float:
    """Seconds on the clock of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    name: str,
    peer: str,
    ours: Callable[[], Ours],
    theirs: Callable[[], Theirs],
    *,
    judge: Callable[[Ours, Theirs], Agreement],
    pairs: int,
    target: float | None = None,
    note: str = "",
    clock: Callable[[Callable[[], object]], float] = cpu_seconds,
) -> Result:
    """Run both in turn, `pairs` times; no time is taken unless `judge` finds their numbers equal."""
    agreement = judge(ours(), theirs())
    facts: dict[str, Any] = {
        "name": name,
        "peer": peer,
        "note": note,
        "agreement": agreement,
        "measured": "wall s" if clock is wall_seconds else "CPU s",
        "target": None if target is None else Target(bound=target),
    }
    if not agreement.holds:
        return Result(**facts)
    times = [(clock(ours), clock(theirs)) for _ in range(pairs)]
    return ratios([t[0] for t in times], [t[1] for t in times], **facts)


def ratios(ours: Sequence[float], theirs: Sequence[float], **facts: Any) -> Result:
    """A Result of paired times: the ratios are taken pair by pair, then their median."""
    each = [b / a for a, b in zip(ours, theirs, strict=True)]
    return Result(
        value=statistics.median(each),
        low=min(each),
        high=max(each),
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        pairs=len(each),
        **facts,
    )


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
    **facts: Any,
) -> Result:
    """A Result of repeated measurements of our own, bounded from above or from below."""
    bound = at_least if at_most is None else at_most
    return Result(
        name=name,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        unit=unit,
        pairs=len(values),
        target=None if bound is None else Target(bound=bound, at_least=at_most is None),
        **facts,
    )
