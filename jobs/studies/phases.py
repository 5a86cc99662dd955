"""The phases of training on synthetic families whose phase is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREY
from jobs.studies.matrices import decaying, gaussian, low_rank, measured, spiked, student
from jobs.studies.study import Check, Figure, Outcome, Study, Table, at_least, near, number
from schemas.results import FloatArray, Phase
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_ROWS, _COLUMNS = 1000, 400
_BBP = (_ROWS / _COLUMNS) ** -0.25
"""Strength from which a rank-one term leaves the bulk (Baik, Ben Arous and Peche 2005)."""
_SEEDS, _FEW_SEEDS = 6, 2
_LEAST = 5 / 6
_FARTHEST = 1000.0
"""Edge ratios are drawn up to here: a matrix of half rank has a bulk of zeros."""


@dataclass(frozen=True, slots=True)
class _Family:
    """A kind of matrix; `phase` is None where finite size leaves it open. `alpha` is its expected mean."""

    make: Callable[[int], FloatArray]
    phase: Phase | None
    alpha: float | None = None


def _noise(seed: int) -> FloatArray:
    return gaussian(_ROWS, _COLUMNS, seed)


def _spikes(thetas: Sequence[float]) -> Callable[[int], FloatArray]:
    return lambda seed: spiked(_ROWS, _COLUMNS, np.array(thetas), seed)


def _decay(power: float) -> Callable[[int], FloatArray]:
    return lambda seed: decaying(_ROWS, _COLUMNS, power, seed)


def _student(freedom: float) -> Callable[[int], FloatArray]:
    return lambda seed: student(_ROWS, _COLUMNS, freedom, seed)


_FAMILIES: Mapping[str, _Family] = {
    "Gaussian": _Family(_noise, Phase.RANDOM_LIKE),
    "Gaussian x 1e-5": _Family(lambda seed: 1e-5 * _noise(seed), Phase.RANDOM_LIKE),
    "spike at the threshold": _Family(_spikes([_BBP]), Phase.RANDOM_LIKE),
    "Student t(8)": _Family(_student(8), Phase.RANDOM_LIKE),
    "one spike, 1.3 thresholds": _Family(_spikes([1.3 * _BBP]), Phase.BLEEDING_OUT),
    "three spikes, 1.6 thresholds": _Family(_spikes([1.6 * _BBP] * 3), Phase.BLEEDING_OUT),
    "covariance i^-.15": _Family(_decay(0.15), None),
    "eight spikes, theta 2 to 6": _Family(_spikes(tuple(np.linspace(2, 6, 8))), Phase.BULK_SPIKES),
    "Gaussian + .3": _Family(lambda seed: _noise(seed) + 0.3, Phase.BULK_SPIKES),
    "covariance i^-.25": _Family(_decay(0.25), Phase.BULK_DECAY),
    "covariance i^-.35": _Family(_decay(0.35), Phase.BULK_DECAY),
    "covariance i^-.5": _Family(_decay(0.5), Phase.HEAVY_TAILED, 3.39),
    "covariance i^-.75": _Family(_decay(0.75), Phase.HEAVY_TAILED, 2.46),
    "covariance i^-1": _Family(_decay(1.0), Phase.HEAVY_TAILED, 2.06),
    "Student t(1.5)": _Family(_student(1.5), Phase.HEAVY_TAILED, 1.90),
    "Student t(3)": _Family(_student(3), None),
    "rank 200 of 400": _Family(lambda seed: low_rank(_ROWS, _COLUMNS, 200, seed), Phase.RANK_COLLAPSE),
}
_ALPHA_TOLERANCE = 0.15


def phases(quick: bool) -> Outcome:
    """Scan every family with several seeds."""
    seeds = range(_FEW_SEEDS if quick else _SEEDS)
    found = {name: [measured(family.make(seed)) for seed in seeds] for name, family in _FAMILIES.items()}
    checks = [check for name, rows in found.items() for check in _judged(name, rows)]
    shares = [_share(name, rows) for name, rows in found.items() if _FAMILIES[name].phase]
    return Outcome(
        got=f"{sum(share == 1 for share in shares)} of {len(shares)} families always right, the worst "
        f"{min(shares):.0%}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="phases",
                caption="How far the largest eigenvalue lies beyond the edge of noise, and the phase "
                "each family is given (each point a matrix).",
                draw=partial(_draw, found),
                height=4.2,
            ),
        ),
        tables=(_table(found),),
    )


PHASES = Study(
    id="V5",
    name="phases",
    question="Are matrices of known structure, 1000 x 400 with six seeds each, given their phase?",
    expected="each family with a known phase: its phase in >= 5 of 6",
    meaning="The phase tells how learnt structure sits in the spectrum: none, a few directions, or all "
    "scales. Heavy entries (Student t) and correlations both give heavy tails, so confirm HEAVY-TAILED with "
    "`--profile full`, whose shuffled matrix tells them apart.",
    run=phases,
    quick=True,
)


def _share(name: str, rows: Sequence[LayerMetrics]) -> float:
    return sum(row.phase == _FAMILIES[name].phase for row in rows) / len(rows)


def _judged(name: str, rows: Sequence[LayerMetrics]) -> list[Check]:
    family = _FAMILIES[name]
    checks = []
    if family.phase is not None:
        checks.append(at_least(f"{name}: share {family.phase}", _share(name, rows), _LEAST))
    if family.alpha is not None:
        alpha = float(np.mean([row.alpha for row in rows if row.alpha is not None]))
        checks.append(near(f"{name}: mean alpha", alpha, family.alpha, _ALPHA_TOLERANCE))
    return checks


def _table(found: Mapping[str, Sequence[LayerMetrics]]) -> Table:
    head = ("family", "phases", "alpha", "mp_softrank", "num_spikes")
    return Table(
        caption="Means over the seeds:", head=head, rows=tuple(_described(*one) for one in found.items())
    )


def _described(name: str, rows: Sequence[LayerMetrics]) -> tuple[str, ...]:
    counts = Counter(row.phase for row in rows).most_common()
    means = [_mean(rows, column) for column in ("alpha", "mp_softrank", "num_spikes")]
    return name, ", ".join(f"{phase} {count}" for phase, count in counts), *map(number, means)


def _mean(rows: Sequence[LayerMetrics], column: str) -> float | None:
    values = [getattr(row, column) for row in rows if getattr(row, column) is not None]
    return float(np.mean(values)) if values else None


def _draw(found: Mapping[str, Sequence[LayerMetrics]], canvas: Canvas) -> None:
    axes = canvas.subplots()
    for height, (name, rows) in enumerate(reversed([*found.items()])):
        ratios = [row.mp_edge_ratio for row in rows if row.mp_edge_ratio is not None]
        axes.plot(
            np.minimum(ratios, _FARTHEST),
            [height] * len(ratios),
            "o",
            color=BLUE if _FAMILIES[name].phase else GREY,
        )
        axes.text(1.02, height, _described(name, rows)[1], va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(found)), [*found][::-1])
    axes.set(xscale="log", xlim=(0.7, 2 * _FARTHEST))
    axes.set_xlabel("lambda_max / lambda_plus (1: the edge of noise; beyond 1000 drawn there)")
    axes.axvline(1.0, color=GREY, linewidth=0.8)
