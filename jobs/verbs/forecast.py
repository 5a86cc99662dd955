"""`scan --dry-run`: what a scan would read and cost, from headers alone."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from jobs.engine.driver import Request, worker_settings
from jobs.engine.worker import Worker
from scanner.abreast import WAITING_BYTES
from scanner.prefetch import AHEAD_BYTES, AHEAD_LEAST
from scanner.spectra.symmetric import eigenvalues
from scanner.weights.plan import EIGEN_RATE, EIGEN_SQUARE, peak_bytes
from schemas.events import Failed, PinJob, Pinned, PlanJob, Planned
from schemas.work import RepoPlan, Target

_PROBE_SIDE, _PROBE_COUNT = 512, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One target: `mbytes` to read, rows to analyse and to skip, seconds of one core, memory of a worker.

    `base` is the commit that its rows will be compared with, or why there is none to be had.
    """

    target: str
    repo_id: str | None = None
    revision: str | None = None
    units: int = 0
    matrices: int = 0
    skipped: int = 0
    mbytes: float = 0.0
    core_seconds: float = 0.0
    peak_mbytes: float = 0.0
    base: str | None = None
    problem: str | None = None


def forecast(request: Request) -> tuple[Forecast, ...]:
    """Plan every target, read nothing else, and estimate, the costliest first.

    Seconds are those of one core of this machine, told by a probe of its eigensolver; the network is not in
    them. A target that cannot be planned carries its problem. Raises ConfigError where no hub can be asked.
    """
    worker, speed = Worker(worker_settings(request)), machine_factor()
    try:
        found = [_forecast(worker, target, request, speed) for target in request.targets]
    finally:
        worker.close()
    return tuple(sorted(found, key=lambda f: (-f.core_seconds, f.target)))


def as_table(forecasts: tuple[Forecast, ...]) -> pa.Table:
    """The forecasts as rows."""
    return pa.Table.from_pylist([asdict(forecast) for forecast in forecasts])


def machine_factor() -> float:
    """Seconds of this machine for one second of the reference core, by the eigenvalues of eight 512 x 512."""
    x = np.random.default_rng(0).standard_normal((_PROBE_SIDE, _PROBE_SIDE))
    grams = np.repeat((x.T @ x)[None], _PROBE_COUNT, axis=0)
    eigenvalues(grams)
    start = time.process_time()
    eigenvalues(grams)
    each = 4 / 3 * _PROBE_SIDE**3 / EIGEN_RATE + EIGEN_SQUARE * _PROBE_SIDE**2
    return (time.process_time() - start) / (_PROBE_COUNT * each)


def _forecast(worker: Worker, target: Target, request: Request, speed: float) -> Forecast:
    event = worker.run(PinJob(target))
    if isinstance(event, Pinned):
        event = worker.run(PlanJob(target, event.repository))
    if isinstance(event, Planned):
        return _of_plan(target, event.plan, request, speed)
    assert isinstance(event, Failed)
    return Forecast(target=str(target), problem=f"{event.failure.kind}: {event.failure.message}")


def _of_plan(target: Target, plan: RepoPlan, request: Request, speed: float) -> Forecast:
    peak = max((peak_bytes(row, request.config.spectrum.block) for row in plan.live), default=0)
    return Forecast(
        target=str(target),
        repo_id=plan.ref.repo_id,
        revision=plan.ref.revision,
        units=len(plan.units),
        matrices=len(plan.live),
        skipped=len(plan.skipped),
        mbytes=round(sum(unit.nbytes for unit in plan.units) / 1e6, 3),
        core_seconds=round(sum(unit.cost for unit in plan.units) * speed, 3),
        peak_mbytes=round((peak + _held(plan)) / 1e6, 1),
        base=_base(plan),
        problem="; ".join(_problems(plan)) or None,
    )


def _held(plan: RepoPlan) -> int:
    """Stored bytes in a worker at once: the present one, those waiting or read ahead, one being read."""
    units = [[row.pair_bytes for row in unit.matrices] for unit in plan.units]
    largest = max((max(unit, default=0) for unit in units), default=0)
    whole = max(map(sum, units), default=0)
    return min(whole, 2 * largest + max(AHEAD_BYTES, AHEAD_LEAST * largest) + WAITING_BYTES)


def _problems(plan: RepoPlan) -> Iterator[str]:
    return (f"{failure.kind}: {failure.message}" for failure in plan.failures if not failure.only_of_base)


def _base(plan: RepoPlan) -> str | None:
    reasons = (f"{failure.kind}: {failure.message}" for failure in plan.failures if failure.only_of_base)
    bases = (str(row.base.repo) for row in plan.live if row.base.repo)
    return next(bases, next(reasons, None))
