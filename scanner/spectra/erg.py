"""The trace-log condition of SETOL: how many of the largest eigenvalues multiply to one."""

from math import inf, log, nan

import numpy as np
from numba import njit

from schemas.records import record
from schemas.results import FloatArray, TailFit


@record()
class ErgFit:
    """Where the trace-log condition holds, and how far that is from the tail; there is no status column.

    erg_num: eigenvalues inside, 1..n; erg_lambda: the least of them, weight^2; None without a crossing.
    erg_gap: erg_num - n_tail; erg_dlambda: (xmin - erg_lambda) over the mean eigenvalue, unitless, 0 when
    both tails agree; None also without a tail fit.
    """

    erg_num: int | None = None
    erg_lambda: float | None = None
    erg_gap: int | None = None
    erg_dlambda: float | None = None


def fit_erg(evals: FloatArray, tail: TailFit, total: float | None = None) -> ErgFit:
    """Find the smallest k whose k largest eigenvalues, over their mean, have a product below one.

    erg_num = min k with sum over the k largest of ln(lambda n / sum lambda) < 0. Input: (n,) float64
    eigenvalues in any order, unit weight^2, not negative, and the tail fitted to them. All None for a zero
    matrix, or when no product falls below one (all eigenvalues equal). Scale-free but for `erg_lambda`.
    `total` is their sum, where it is known.
    Cost: one sort and n logarithms. Source: the ERG (trace-log) condition of SETOL, with the
    sign of erg_dlambda power law minus ERG.
    """
    total = float(evals.sum()) if total is None else total
    if total <= 0.0:
        return ErgFit()
    scale = evals.size / total
    ascends, k, edge = _edge(evals, scale)
    if not ascends:
        _, k, edge = _edge(np.sort(evals), scale)
    if not k:
        return ErgFit()
    if tail.xmin is None or tail.n_tail is None:
        return ErgFit(erg_num=k, erg_lambda=edge)
    return ErgFit(
        erg_num=k,
        erg_lambda=edge,
        erg_gap=k - tail.n_tail,
        erg_dlambda=(tail.xmin - edge) * scale,
    )


@njit(nogil=True, cache=True)
def _edge(values: FloatArray, scale: float) -> tuple[bool, int, float]:
    """Whether values ascend, and if so their `crossing` and the value there."""
    for k in range(1, len(values)):
        if values[k] < values[k - 1]:
            return False, 0, nan
    k = crossing(values, scale)
    return True, k, values[-k] if k else nan


@njit(nogil=True, cache=True)
def crossing(ascending: FloatArray, scale: float) -> int:
    """Least k whose k largest values, times `scale`, multiply to less than one; 0 where there is none."""
    total = 0.0
    for k in range(1, len(ascending) + 1):
        value = ascending[-k] * scale
        total += log(value) if value > 0.0 else -inf
        if total < 0.0:
            return k
    return 0
