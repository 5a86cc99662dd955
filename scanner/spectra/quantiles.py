"""A spectrum in 129 numbers: quantiles of log10 lambda, enough to draw it."""

import numpy as np

from scanner.spectra.tailfit import above_cut
from schemas.config import TailRules
from schemas.results import FloatArray

QUANTILES = 129
"""One more than a power of two, so that quartiles and eighths are among them."""


def esd_quantiles(evals: FloatArray, rules: TailRules) -> tuple[float, ...] | None:
    """Quantiles 0, 1/128 .. 1 of log10 lambda, linear between order statistics; None for a zero matrix.

    Input: (n,) float64 eigenvalues in any order, unit weight^2, not negative. Those at or below the cut of
    the tail fit are round-off and left out; `rank0_frac` counts them. Cost: one sort.
    """
    x = above_cut(evals, rules)
    if not x.size:
        return None
    return tuple(np.quantile(np.log10(x), np.linspace(0.0, 1.0, QUANTILES)).tolist())
