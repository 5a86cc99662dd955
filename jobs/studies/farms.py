"""The bias of the aspect ratio on Hill's alpha, and square windows without it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, RED
from jobs.studies.matrices import decaying, gaussian
from jobs.studies.study import Check, Figure, Outcome, Study, near
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.estimators import farms_alpha
from scanner.spectra.tailfit import fit_tail
from schemas.results import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_SIDE = 512
_LONG = (512, 1024, 2048, 4096)
_HILL = (2.13, 2.72, 3.45, 4.45)
_FARMS = 2.125
_DECAY = ((1.75, 1.77), (1.95, 1.77))
"""Covariance i^-1: (alpha_hill, alpha_farms) at Q 1 and Q 4."""
_SOURCE = "reference implementation; FARMS (HUST-AI-HYZ/FARMS)"

Estimates = tuple[float, float]


def farms(quick: bool) -> Outcome:
    """Estimate Gaussian matrices of one short side and growing long side, and correlated ones."""
    del quick
    noise = [_estimates(gaussian(long, _SIDE, seed=long)) for long in _LONG]
    decay = [_estimates(decaying(long, _SIDE, 1.0, seed=long)) for long in _LONG[:3]]
    checks: list[Check] = []
    for long, got, hill in zip(_LONG, noise, _HILL, strict=True):
        checks += _compared(f"Gaussian {long}", got, (hill, _FARMS), 0.02)
    for long, got, expected in zip((512, 2048), (decay[0], decay[-1]), _DECAY, strict=True):
        checks += _compared(f"covariance i^-1, {long}", got, expected, 0.02)
    return Outcome(
        got=f"alpha_hill {', '.join(f'{h:.2f}' for h, _ in noise)}; alpha_farms "
        f"{min(f for _, f in noise):.2f} to {max(f for _, f in noise):.2f}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="farms",
                caption="Hill's alpha of whole matrices grows with their aspect ratio; that of their square "
                "windows does not.",
                draw=partial(_draw, noise, decay),
                height=2.8,
            ),
        ),
    )


FARMS = Study(
    id="V13",
    name="farms",
    question="Matrices of the same kind, but longer and longer: does alpha_hill stay, does alpha_farms?",
    expected="alpha_hill 2.13, 2.72, 3.45, 4.45; alpha_farms 2.12 to 2.13 for all",
    meaning="alpha_hill may be compared between layers of one shape only. Between shapes take `alpha_farms` "
    "(`--profile full`), which cuts every layer into square windows first.",
    run=farms,
    quick=True,
)


def _compared(name: str, got: Estimates, expected: Estimates, tolerance: float) -> Iterator[Check]:
    for column, value, wanted in zip(("alpha_hill", "alpha_farms"), got, expected, strict=True):
        yield near(f"{name} x {_SIDE}: {column}", value, wanted, tolerance, _SOURCE)


def _estimates(matrix: FloatArray) -> Estimates:
    weights = DenseWeights(matrix)
    hill, windows = fit_tail(solve(weights)).alpha_hill, farms_alpha(weights)
    return hill or np.nan, windows or np.nan


def _draw(noise: list[Estimates], decay: list[Estimates], canvas: Canvas) -> None:
    panels = (("Gaussian", noise), ("covariance i^-1", decay))
    for axes, (title, found) in zip(canvas.subplots(1, 2), panels, strict=True):
        q = [long / _SIDE for long in _LONG[: len(found)]]
        axes.plot(q, [hill for hill, _ in found], "s-", color=RED, label="alpha_hill")
        axes.plot(q, [windows for _, windows in found], "o-", color=BLUE, label="alpha_farms")
        axes.set(title=title, xlabel="aspect ratio Q = N / M", ylabel="exponent", xscale="log", xticks=q)
        axes.set_xticklabels([f"{one:g}" for one in q])
        axes.set_xticks((), minor=True)
        axes.legend()
