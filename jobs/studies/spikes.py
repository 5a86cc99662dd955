"""A planted direction in noise: where theory says it leaves the bulk, and whether it is counted there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREY, RED
from jobs.studies.matrices import spiked
from jobs.studies.study import Check, Figure, Outcome, Study, at_least, at_most, near, near_share
from scanner.spectra.bulk import TW1_99, fit_bulk, johnstone_edge, mp_median
from scanner.spectra.eigen import DenseWeights, solve
from schemas.results import FloatArray, Spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_ROWS, _COLUMNS = 1000, 400
_Q = _ROWS / _COLUMNS
_THRESHOLD = _Q**-0.25
_STRENGTHS = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0, 3.0)
_DRAWS, _FEW_DRAWS = 8, 2
_FAINT, _CLEAR = 0.8, 1.3
"""In units of the threshold: strengths that must not, and must, be seen."""
_MEDIANS = {1: 0.65278, 2: 0.83047, 2.5: 0.86489, 4: 0.91600, 10: 0.96657, 80: 0.99583}
_THEORY = "Baik, Ben Arous and Peche 2005"


def spikes(quick: bool) -> Outcome:
    """Plant one direction of growing strength and read lambda_max and the count of spikes."""
    draws = _FEW_DRAWS if quick else _DRAWS
    found = {theta: [_planted(theta, draw) for draw in range(draws)] for theta in _STRENGTHS}
    tops = {theta: float(np.mean([s.evals[-1] for s in spectra])) / _ROWS for theta, spectra in found.items()}
    seen = {theta: float(np.mean([_counted(s) for s in spectra])) for theta, spectra in found.items()}
    checks = [near(f"median of the bulk law, Q {q:g}", mp_median(q), m, 1e-5) for q, m in _MEDIANS.items()]
    checks += _place_checks(tops) + _count_checks(seen)
    return Outcome(
        got=f"theta 1.3 at {tops[1.3]:.2f} N, 3 at {tops[3.0]:.2f} N; counted {seen[1.3]:.0%} of the time",
        checks=tuple(checks),
        figures=(
            Figure(
                name="spikes",
                caption=f"The largest eigenvalue of noise with one planted direction ({draws} matrices a "
                "point), and how often it is counted as a spike.",
                draw=partial(_draw, tops, seen),
            ),
        ),
    )


SPIKES = Study(
    id="V4b",
    name="spikes",
    question="One direction of strength theta is added to 1000 x 400 noise. Does it leave the bulk where "
    "theory says, and is it counted?",
    expected="above theta = Q^-1/4 = .795: 3.327 N at 1.3, 10.444 N at 3; not counted below",
    meaning="`num_spikes` counts directions that noise cannot have, and `lambda_edge` is where noise of "
    "this size ends. A learnt direction weaker than the threshold cannot be seen in any spectrum.",
    run=spikes,
    quick=True,
)


def _planted(theta: float, draw: int) -> Spectrum:
    matrix = spiked(_ROWS, _COLUMNS, np.array([theta]), seed=1000 * draw + round(10 * theta))
    return solve(DenseWeights(matrix))


def _counted(spectrum: Spectrum) -> bool:
    return bool(fit_bulk(spectrum).num_spikes)


def _predicted(theta: FloatArray) -> FloatArray:
    """lambda_max / N of unit noise with a direction of strength theta; the edge below the threshold."""
    strong = np.maximum(theta, _THRESHOLD)
    return np.asarray((1 / _Q + strong**2) * (1 + 1 / strong**2))


def _place_checks(tops: Mapping[float, float]) -> list[Check]:
    far = [theta for theta in _STRENGTHS if theta >= _CLEAR]
    predicted = dict(zip(far, _predicted(np.array(far)), strict=True))
    checks = [
        near("formula at theta 1.3", float(predicted[1.3]), 3.327, 5e-4, _THEORY),
        near("formula at theta 3", float(predicted[3.0]), 10.444, 5e-4, _THEORY),
    ]
    return checks + [
        near_share(f"lambda_max / N at theta {theta:g}", tops[theta], float(predicted[theta]), 0.04, _THEORY)
        for theta in far
    ]


def _count_checks(seen: Mapping[float, float]) -> list[Check]:
    faint = [share for theta, share in seen.items() if theta <= _FAINT * _THRESHOLD]
    clear = [share for theta, share in seen.items() if theta >= _CLEAR * _THRESHOLD]
    return [
        at_most(f"share counted below {_FAINT:g} thresholds", float(np.mean(faint)), 0.05, _THEORY),
        at_least(f"share counted from {_CLEAR:g} thresholds on", float(np.mean(clear)), 1.0, _THEORY),
    ]


def _draw(tops: Mapping[float, float], seen: Mapping[float, float], canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2)
    theta = np.linspace(_STRENGTHS[0], _STRENGTHS[-1], 200)
    left.plot(theta, _predicted(theta), color=GREY, label="theory")
    left.plot([*tops], [*tops.values()], "o", color=BLUE, label="measured, mean")
    edge = johnstone_edge(_ROWS, _COLUMNS, TW1_99) / _ROWS
    left.axhline(edge, color=RED, linewidth=0.8, label="edge, 99 %")
    left.set(ylabel="lambda_max / N", xlabel="strength theta")
    left.legend()
    right.plot([*seen], [100 * share for share in seen.values()], "o-", color=BLUE)
    right.set(ylabel="counted as a spike, %", xlabel="strength theta", ylim=(-4, 104))
    for axes in (left, right):
        axes.axvline(_THRESHOLD, color=GREY, linestyle="--", linewidth=0.8)
