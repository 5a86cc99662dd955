"""Two roads to one spectrum, and changes of a matrix that must not change it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREY, RED
from jobs.studies.matrices import student
from jobs.studies.study import Figure, Outcome, Study, at_least, at_most, same
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.tailfit import fit_tail
from schemas.results import FloatArray, Spectrum, TailFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MATRICES, _SHAPE = 20, (200, 120)
_BISECTIONS = 60
_DRAWN = 4
_EXACT = "float64 arithmetic"


def precision(quick: bool) -> Outcome:
    """Solve Student t(3) matrices by Gram matrix and by SVD, turned, transposed, shuffled and scaled."""
    del quick
    matrices = [student(*_SHAPE, 3, seed=180 + i) for i in range(_MATRICES)]
    gram = [solve(DenseWeights(matrix)) for matrix in matrices]
    svd = [solve(DenseWeights(matrix), method="svd") for matrix in matrices]
    turned = [solve(DenseWeights(_turned(matrix, i))) for i, matrix in enumerate(matrices)]
    fits, by_svd, of_turned = ([*map(fit_tail, spectra)] for spectra in (gram, svd, turned))
    scaled = [fit_tail(2.0**-20 * spectrum.evals) for spectrum in gram]
    flipped = [solve(DenseWeights(matrix.T)).evals for matrix in matrices]
    checks = (
        at_most("Gram against SVD: relative change of alpha", _drift(fits, by_svd), 1e-9, _EXACT),
        same("Gram against SVD: tails that begin elsewhere", _moved(fits, by_svd), 0, _EXACT),
        at_most("rotated: relative change of alpha", _drift(fits, of_turned), 1e-9, _EXACT),
        same("rotated: tails that begin elsewhere", _moved(fits, of_turned), 0, _EXACT),
        at_most("transposed: relative change of an eigenvalue", _change(gram, flipped), 1e-12, _EXACT),
        at_most("scaled by 2^-10: relative change of alpha", _drift(fits, scaled), 0.0, _EXACT),
        same("spectra whose xmin is certain", sum(fit.near_ties == 1 for fit in fits), _MATRICES, _EXACT),
        at_least("candidates for xmin of a sample with a tie", _tied().near_ties, 2, _EXACT),
    )
    return Outcome(
        got=f"alpha moves by {_drift(fits, by_svd):.0e} at most, xmin never",
        checks=checks,
        figures=(
            Figure(
                name="precision",
                caption="Relative difference of each eigenvalue between Gram matrix and SVD, four of the "
                "matrices; 1e-17 stands for none.",
                draw=partial(_draw, gram, svd),
                height=2.8,
            ),
        ),
    )


PRECISION = Study(
    id="V18",
    name="precision",
    question="Does it matter how the eigenvalues are computed, or how the matrix is turned?",
    expected="alpha to 1e-9, xmin equal",
    meaning="The fast Gram road gives the fit of the SVD, because its error sits in the smallest "
    "eigenvalues, far below the tail. Where rounding could choose another xmin the column `near_ties` is "
    "above 1.",
    run=precision,
    quick=True,
)


def _turned(matrix: FloatArray, seed: int) -> FloatArray:
    """The matrix between two random rotations."""
    rng = np.random.default_rng([18, seed])
    left, right = (np.linalg.qr(rng.standard_normal((side, side)))[0] for side in matrix.shape)
    return np.asarray(left @ matrix @ right)


def _drift(fits: Sequence[TailFit], others: Sequence[TailFit]) -> float:
    pairs = zip(fits, others, strict=True)
    return max(abs((a.alpha or np.inf) / (b.alpha or np.inf) - 1) for a, b in pairs)


def _moved(fits: Sequence[TailFit], others: Sequence[TailFit]) -> int:
    return sum(a.n_tail != b.n_tail for a, b in zip(fits, others, strict=True))


def _change(spectra: Sequence[Spectrum], others: Sequence[FloatArray]) -> float:
    """Largest difference of eigenvalues in units of lambda_max."""
    return max(float(np.abs(a.evals - b).max() / b[-1]) for a, b in zip(spectra, others, strict=True))


def _tied() -> TailFit:
    """The fit of a sample on the brink: its shift is bisected to where the winning tail changes."""
    sample = np.random.default_rng(18).pareto(2.0, 200)
    low, high = 0.0, 1.0
    start = fit_tail(sample).n_tail
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if fit_tail(sample + middle).n_tail == start else (low, middle)
    return fit_tail(sample + high)


def _draw(gram: Sequence[Spectrum], svd: Sequence[Spectrum], canvas: Canvas) -> None:
    axes = canvas.subplots()
    for one, other in zip(gram[:_DRAWN], svd, strict=False):
        share = other.evals / other.evals[-1]
        axes.plot(share, np.abs(one.evals / other.evals - 1) + 1e-17, ".", color=BLUE, markersize=2)
        axes.axvline((fit_tail(other).xmin or 0.0) / other.evals[-1], color=RED, linewidth=0.4)
    x = np.logspace(-2.7, 0)
    axes.plot(x, 2.2e-15 / x, color=GREY, label="10 eps lambda_max / lambda")
    axes.plot([], [], color=RED, label="where the tails begin")
    axes.set(xscale="log", yscale="log", xlabel="lambda / lambda_max", ylabel="relative difference")
    axes.legend()
