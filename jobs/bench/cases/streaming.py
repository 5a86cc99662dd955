"""Reading a model over the network while computing on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.hub import ThrottledHub
from jobs.bench.options import Options
from jobs.bench.pairs import cpu_seconds, figure, wall_seconds
from jobs.bench.result import Result
from jobs.bench.synthetic import Shape, write_model
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.base import Source, Span
from scanner.sources.hub import HubSource
from scanner.sources.local import LocalSource
from schemas.config import profile_config
from schemas.refs import FileRef
from schemas.work import RepoPlan

_MODEL = "bench/stream"
_BLOCK: list[Shape] = [(8192, 768), (768, 3072), (768, 3072), (768, 3072)]
"""Much to read and little to compute, then the reverse."""
_BLOCKS = 4
_RATES = (25e6, 100e6, 400e6)
_ROUNDS = 3
"""At most: one takes half a minute at the lowest rate."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """One model and its plan, at a hub and on disk."""

    hub: Source
    hub_plan: RepoPlan
    disk: Source
    disk_plan: RepoPlan

    @classmethod
    def of(cls, endpoint: str, folder: Path) -> "_Stream":
        hub, disk = HubSource(endpoint, token=False), LocalSource(folder)
        return cls(hub, _planned(hub), disk, _planned(disk))

    @property
    def nbytes(self) -> int:
        return sum(unit.nbytes for unit in self.hub_plan.units)

    def download(self) -> float:
        """Read every tensor and drop it; returns the seconds until the first was whole."""
        started, first = time.perf_counter(), 0.0
        self.hub.close()
        for file, spans in _spans(self.hub_plan).items():
            for _ in self.hub.stream(file, spans):
                first = first or time.perf_counter() - started
        return first

    def compute(self) -> None:
        """Scan the same bytes from disk, that is from the page cache."""
        for unit in self.disk_plan.units:
            run_unit(self.disk, unit, profile_config("default"))

    def both(self) -> None:
        """Scan from the hub, with a new resolve of every file."""
        self.hub.close()
        for unit in self.hub_plan.units:
            run_unit(self.hub, unit, profile_config("default"))


def overlap(options: Options) -> Iterator[Result]:
    """Wall time of a scan from a throttled hub, the first tensor off, over the longer of both its parts."""
    with _served(options) as (hub, stream):
        stream.compute()
        for rate in _RATES[1:2] if options.quick else _RATES:
            hub.throttle(rate)
            yield _overlap(stream, rate, min(options.pairs, _ROUNDS))


def transport(options: Options) -> Iterator[Result]:
    """What reading costs the client: plain HTTP on loopback, unthrottled, nothing computed."""
    with _served(options) as (_, stream):
        stream.download()
        gigabytes = stream.nbytes / 1e9
        seconds = [cpu_seconds(stream.download) / gigabytes for _ in range(options.pairs)]
    yield figure("client of plain HTTP", seconds, "CPU s a GB", at_most=1.2)


@contextmanager
def _served(options: Options) -> Iterator[tuple[ThrottledHub, _Stream]]:
    """A model of one or more blocks, and the hub that sends it."""
    with TemporaryDirectory() as folder:
        model = write_model(Path(folder) / _MODEL, [_BLOCK * (1 if options.quick else _BLOCKS)])
        with ThrottledHub(Path(folder)) as hub:
            yield hub, _Stream.of(hub.endpoint, model)


def _overlap(stream: _Stream, rate: float, rounds: int) -> Result:
    values, notes = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        first = stream.download()
        download = time.perf_counter() - started
        compute, both = wall_seconds(stream.compute), wall_seconds(stream.both)
        values.append((both - first) / max(download, compute))
        notes.append(
            f"download {download:.2f} s (first tensor {first:.2f}), compute {compute:.2f}, both {both:.2f}"
        )
    return figure(
        f"scan of {stream.nbytes / 1e6:.0f} MB at {rate / 1e6:.0f} MB/s",
        values,
        "x the longer part",
        at_most=1.15,
        note=f"wall; {notes[values.index(sorted(values)[len(values) // 2])]}",
    )


def _planned(source: Source) -> RepoPlan:
    return plan_repository(source, source.repository(_MODEL), profile_config("default"))


def _spans(plan: RepoPlan) -> dict[FileRef, list[Span]]:
    spans: dict[FileRef, list[Span]] = {}
    for row in plan.live:
        spans.setdefault(row.tensor.file, []).append((row.start, row.stop))
    return spans
