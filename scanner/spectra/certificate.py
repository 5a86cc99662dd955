"""Whether WeightWatcher's columns can be read off a Gram spectrum, which costs a fifth of an SVD.

Each column is a smooth function of eigenvalues that are known well, or a count that rounding could change.
For the first the error is bounded, for the second every eigenvalue must keep clear of every limit; only the
least singular value is computed anew, and all of a convolution's slice that has lost a rank. What is not
certain is refused, and costs an SVD of the whole.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf

from scanner.spectra.eigen import Weights, slice_of
from scanner.spectra.gram import summing
from scanner.spectra.inverse import closer
from scanner.spectra.tailfit import WEIGHTWATCHER_CUT
from scanner.spectra.weightwatcher import Fitted, fit_squares
from schemas.results import FloatArray, Spectrum, TailFit

RELATIVE = 1e-9
"""How closely every column must keep the number that an SVD gives."""

_EPS = float(np.finfo(np.float64).eps)
# Eigenvalues of a Gram matrix err by 1 to 10 eps * lambda_max (measured; the least of 1673 stored matrices by
# at most 3, of 8000 contrived ones by at most 10.3); counts are given more room.
_ERROR, _SAFE = 12.0 * _EPS, 64.0 * _EPS
_LIMITS = (WEIGHTWATCHER_CUT, 1e-6)
_SOLVED_WHOLE = 8
_AT_ONCE, _ROUNDS = 7, 5


class Certified(NamedTuple):
    """Singular values (slices, M), ascending in a slice; how many are not zero; WeightWatcher's fit."""

    sigma: FloatArray
    hard_rank: int
    fitted: Fitted


def certified_singular_values(weights: Weights, spectrum: Spectrum, scale: float) -> Certified | None:
    """Singular values from which every column of WeightWatcher comes out as from an SVD, and its fit.

    Args:
        weights: what `spectrum` was computed from.
        spectrum: of method gram_f64; any other is refused.
        scale: what WeightWatcher multiplies the weights by; its limits are absolute.

    Returns:
        Singular values without `scale`: roots of the eigenvalues, but the least of the slice that gives
        sv_min, where the Gram matrix does not resolve it, and the slices that have lost a rank, computed from
        the weights. WeightWatcher's fit is to their squares, with `scale`. None when the rank of a matrix, a
        limit, the choice of xmin or the trace-log condition is not certain, or a fitted number could move by
        more than `RELATIVE`.

    Cost: a tail fit, and at times a Cholesky factorisation or the SVD of a slice.
    """
    slices = spectrum.evals[None] if spectrum.slices is None else spectrum.slices
    if spectrum.method != "gram_f64" or not spectrum.evals[-1] > 0.0:
        return None
    sigma, rank = np.sqrt(slices), slices.size
    lost, doubtful = _ranks(slices)
    for which in doubtful:
        least = least_singular_value(slice_of(weights, which), slices[which], _SAFE * slices[which, -1])
        if least is None:
            lost = np.append(lost, which)
        else:
            sigma[which, 0] = least
    if lost.size and len(slices) == 1:
        return None
    for which in lost:
        sigma[which] = np.linalg.svd(slice_of(weights, which), compute_uv=False)[::-1]
        rank -= int(np.count_nonzero(sigma[which] <= sigma[which, -1] * spectrum.N * _EPS))
    fitted = fit_squares(sigma * scale)
    return Certified(sigma, rank, fitted) if _counts_are_certain(*fitted) else None


@njit(nogil=True, cache=True)
def _ranks(slices: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which slices (slices, M) have lost a rank, and which others may hold sv_min and do not resolve it."""
    least, top = slices[:, 0], slices[:, -1]
    lost = least <= _SAFE * top
    contends = least + _SAFE * top >= (least - _SAFE * top).max()
    doubtful = contends & ~lost & (_ERROR * top > 2 * RELATIVE * least)
    return np.flatnonzero(lost), np.flatnonzero(doubtful)


def least_singular_value(matrix: FloatArray, evals: FloatArray, error: float) -> float | None:
    """Least singular value of a matrix whose Gram eigenvalues, ascending, are known to within `error`.

    Rectangular or tiny: by SVD. Square: inverse iteration, a step of which also takes out the vector of
    another eigenvalue, as these are known: x <- (W^T W)^-1 x - x / lambda_j. By the theorem of Kato and
    Temple s = |W v| is within residual^2 / gap of a singular value, the residual being that of W^T u = s v
    for W v = s u, the gap the distance of s to the next one; it is the least, since all others are beyond
    the gap. None when the two least cannot be told apart, when rounding in W v is too much for s, or after
    35 steps. The steps go by a Cholesky factor of W^T W: its error turns v, which the residual shows.
    Cost: 4/3 M^3 flops and 2 M^2 a step; seven are enough unless the least lie close together.
    """
    if matrix.shape[0] != matrix.shape[1] or len(matrix) <= _SOLVED_WHOLE:
        return float(np.linalg.svd(matrix, compute_uv=False)[-1])
    gram = summing(len(matrix), wide=False)
    gram.add(matrix)
    factor, singular = dpotrf(gram.lower().T, clean=False, overwrite_a=True)
    if singular:
        return None
    next_one, vector = math.sqrt(max(evals[1] - error, 0.0)), _start(len(matrix)).copy()
    for _ in range(_ROUNDS):
        least, residual = closer(matrix, factor.T, evals[:_AT_ONCE], vector)
        gap = min(next_one - least, least)
        if residual < gap / 2 and residual**2 <= gap * least * RELATIVE / 10:
            return least if _SAFE * math.sqrt(evals[-1]) <= least * RELATIVE else None
    return None


@cache
def _start(side: int) -> FloatArray:
    return np.random.default_rng(0).standard_normal(side)


def _counts_are_certain(evals: FloatArray, fit: TailFit) -> bool:
    """Whether rounding moves no eigenvalue over a limit, the tail's start or the trace-log condition."""
    start = math.nan if fit.xmin is None else fit.xmin
    return bool(_is_clear(evals, start, _SAFE * float(evals[-1])) and _fit_is_certain(evals, fit))


@njit(nogil=True, cache=True)
def _is_clear(evals: FloatArray, start: float, error: float) -> bool:
    """Whether an error moves no eigenvalue over a limit or `start`, nor the trace-log condition."""
    for value in evals:
        for limit in _LIMITS:
            if abs(value - limit) <= error:
                return False
        if 0.0 < start - value <= error:
            return False
    return _trace_log_is_certain(evals, error)


def _fit_is_certain(evals: FloatArray, fit: TailFit) -> bool:
    if fit.alpha is None or fit.xmin is None or not fit.D_ks:
        return bool(np.count_nonzero(evals > WEIGHTWATCHER_CUT) < 2)
    relative, b = _ERROR * float(evals[-1]) / fit.xmin, fit.alpha - 1.0
    return fit.near_ties == 1 and relative * max(1.0, 2 * b, 2.74 * b / fit.D_ks) <= RELATIVE


@njit(nogil=True, cache=True)
def _trace_log_is_certain(evals: FloatArray, error: float) -> bool:
    """Whether the sums of ln(lambda / mean) cross zero at a known eigenvalue, and keep clear of zero."""
    scale, total = len(evals) / evals.sum(), 0.0
    for k in range(1, len(evals) + 1):
        if evals[-k] <= error:
            return False
        before, total = total, total + math.log(evals[-k] * scale)
        if total < 0.0:
            room, nearest = error / evals[-k], min(abs(before), -total) if k > 1 else -total
            return bool(_ERROR / _SAFE * room <= RELATIVE and nearest > k * room)
    return False
