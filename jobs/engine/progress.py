"""How a scan looks while it runs: a live bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from scanner.text import printable
from schemas.rows import Failure

_LINE_EVERY = 10.0


@dataclass(slots=True)
class Counts:
    """What a scan has done so far. `cost` is arithmetic, the measure of the remaining time."""

    repos: int = 0
    repos_planned: int = 0
    repos_done: int = 0
    repos_done_before: int = 0
    repos_ok: int = 0
    repos_failed: int = 0
    planned: int = 0
    ok: int = 0
    skipped: int = 0
    failed: int = 0
    tensors_done: int = 0
    bytes_read: int = 0
    compute_secs: float = 0.0
    wait_secs: float = 0.0
    cost: float = 0.0
    cost_done: float = 0.0


class Progress(Protocol):
    """Shows counts, and notes between them."""

    def update(self, counts: Counts) -> None:
        """Show where the scan stands."""

    def note(self, text: str) -> None:
        """Tell one thing that happened."""


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """The display that fits `stream`, by default standard error."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _live(stream) as display:
            yield display
    else:
        yield _Lines(stream)


@contextmanager
def quiet_progress() -> Iterator[Progress]:
    """Shows nothing."""
    yield _Silence()


class Meter:
    """Describes counts as they grow, and takes their pace from the first finished unit on.

    What was before it is no measure of the rest: Ray starts, and kernels are compiled once on a machine.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._first = (0.0, 0.0)

    def describe(self, counts: Counts, now: float) -> str:
        """One line: see `describe`."""
        elapsed = now - self._start
        if not self._first[1]:
            self._first = elapsed, counts.cost_done
        return describe(counts, elapsed, *self._first)


def describe(counts: Counts, elapsed: float, first_secs: float = 0.0, first_cost: float = 0.0) -> str:
    """One line: repositories, tensors, rate, time left at the pace since `first_cost` was done."""
    rate = counts.bytes_read / max(elapsed, 1e-9)
    return (
        f"{counts.repos_done}/{counts.repos} repositories, {counts.tensors_done}/{counts.planned} tensors, "
        f"{_bytes(counts.bytes_read)} at {_bytes(rate)}/s, {_left(counts, elapsed - first_secs, first_cost)}"
    )


def placed(failure: Failure) -> str:
    """The message of a failure, after its place where the message does not begin with it."""
    place = printable(" ".join(filter(None, (failure.repo_id, failure.file, failure.tensor))))
    named = failure.message.startswith(printable(failure.repo_id))
    return failure.message if named else f"{place}: {failure.message}"


class _Silence:
    def update(self, counts: Counts) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Lines:
    """A line every ten seconds, and every note."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = time.monotonic()
        self._meter = Meter(self._last)

    def update(self, counts: Counts) -> None:
        now = time.monotonic()
        line = self._meter.describe(counts, now)
        if now - self._last >= _LINE_EVERY:
            self._last = now
            self.note(line)

    def note(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


@contextmanager
def _live(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(file=stream)
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("planning", total=None)
        meter = Meter(time.monotonic())

        class Live:
            def update(self, counts: Counts) -> None:
                line = meter.describe(counts, time.monotonic())
                total = counts.cost or None
                bars.update(task, description=line, completed=counts.cost_done, total=total)

            def note(self, text: str) -> None:
                console.print(text, style="yellow", markup=False, highlight=False)

        yield Live()


def _left(counts: Counts, elapsed: float, before: float) -> str:
    """Time left by arithmetic, of which `elapsed` did what is done but for `before`.

    Repositories not planned yet count as average ones.
    """
    done = counts.cost_done - before
    total = counts.cost * max(counts.repos - counts.repos_done_before, 1) / max(counts.repos_planned, 1)
    left = max(total - counts.cost_done, 0)
    if not counts.cost_done or (left and done <= 0):
        return "estimating"
    return f"about {_seconds(elapsed * left / done if left else 0)} left"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _seconds(secs: float) -> str:
    minutes, rest = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
