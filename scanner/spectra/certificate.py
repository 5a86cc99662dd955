"""Whether WeightWatcher's columns can be read off a Gram spectrum, which costs a fifth of an SVD.

Each column is a smooth function of eigenvalues that are known well, or a count that rounding could change.
For the first the error is bounded, for the second every eigenvalue must keep clear of every limit; only the
least singular value is computed anew. What is not certain is refused, and costs an SVD.
"""

import math

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from scanner.spectra.eigen import Weights, slice_of
from scanner.spectra.tailfit import WEIGHTWATCHER_CUT
from scanner.spectra.weightwatcher import Fitted, fit_squares
from schemas.results import FloatArray, Spectrum, TailFit

RELATIVE = 1e-9
"""How closely every column must keep the number that an SVD gives."""

_EPS = float(np.finfo(np.float64).eps)
# Eigenvalues of a Gram matrix err by 1 to 10 eps * lambda_max (measured); counts are given more room.
_ERROR, _SAFE = 10.0 * _EPS, 64.0 * _EPS
_LIMITS = (WEIGHTWATCHER_CUT, 1e-6)
_SOLVED_WHOLE = 128
_BLOCK, _STEPS = 8, 20


def certified_singular_values(
    weights: Weights, spectrum: Spectrum, scale: float
) -> tuple[FloatArray, Fitted] | None:
    """Singular values from which every column of WeightWatcher comes out as from an SVD, and its fit.

    Args:
        weights: what `spectrum` was computed from.
        spectrum: of method gram_f64; any other is refused.
        scale: what WeightWatcher multiplies the weights by; its limits are absolute.

    Returns:
        (slices, M) float64, ascending in a slice, without `scale`: roots of the eigenvalues, but the least
        of the slice that gives sv_min, where the Gram matrix does not resolve it, computed from the weights.
        With it WeightWatcher's fit to their squares, with `scale`. None when a rank, a limit, the choice of
        xmin or the trace-log condition is not certain, or a fitted number could move by more than `RELATIVE`.

    Cost: a tail fit, and at times an LU factorisation or the SVD of one small slice.
    """
    slices = spectrum.evals[None] if spectrum.slices is None else spectrum.slices
    error = _SAFE * slices[:, -1]
    if spectrum.method != "gram_f64" or (slices[:, 0] <= error).any():
        return None
    sigma = np.sqrt(slices)
    for which in np.flatnonzero(slices[:, 0] + error >= (slices[:, 0] - error).max()):
        if error[which] > 2 * RELATIVE * slices[which, 0]:
            least = least_singular_value(slice_of(weights, int(which)), slices[which], error[which])
            if least is None:
                return None
            sigma[which, 0] = least
    fitted = fit_squares(sigma * scale)
    return (sigma, fitted) if _counts_are_certain(*fitted) else None


def least_singular_value(matrix: FloatArray, evals: FloatArray, error: float) -> float | None:
    """Least singular value of a matrix whose Gram eigenvalues, ascending, are known to within `error`.

    Small or rectangular: by SVD. Large and square: inverse iteration with a block of vectors. By the theorem
    of Kato and Temple s = u^T W v is within residual^2 / gap of a singular value, the residual being that of
    W v = s u and W^T u = s v, the gap the distance of s to the next one; it is the least, since all others
    are beyond the gap. None when the two least cannot be told apart, when rounding in W v is too much for s,
    or after 20 steps. Cost: 2/3 M^3 flops and 36 M^2 a step.
    """
    if matrix.shape[0] != matrix.shape[1] or len(matrix) <= _SOLVED_WHOLE:
        return float(np.linalg.svd(matrix, compute_uv=False)[-1])
    factors = lu_factor(matrix, check_finite=False)
    block = np.random.default_rng(0).standard_normal((len(matrix), _BLOCK))
    for _ in range(_STEPS):
        right = np.linalg.qr(block)[0]
        solved = lu_solve(factors, right, trans=1, check_finite=False)
        turn = np.linalg.eigh(solved.T @ solved)[1]
        left = solved @ turn
        u, v = left[:, -1] / np.linalg.norm(left[:, -1]), right @ turn[:, -1]
        image = matrix @ v
        least = float(u @ image)
        residual = np.hypot(np.linalg.norm(image - least * u), np.linalg.norm(matrix.T @ u - least * v))
        gap = min(math.sqrt(max(evals[1] - error, 0.0)) - least, least)
        if residual < gap / 2 and residual**2 <= gap * least * RELATIVE / 10:
            return least if _SAFE * math.sqrt(evals[-1]) <= least * RELATIVE else None
        block = lu_solve(factors, left, check_finite=False)
    return None


def _counts_are_certain(evals: FloatArray, fit: TailFit) -> bool:
    """Whether rounding moves no eigenvalue over a limit, the tail's start or the trace-log condition."""
    error = _SAFE * evals[-1]
    if any((np.abs(evals - limit) <= error).any() for limit in _LIMITS):
        return False
    return _fit_is_certain(evals, fit, error) and _trace_log_is_certain(evals, error)


def _fit_is_certain(evals: FloatArray, fit: TailFit, error: float) -> bool:
    if fit.alpha is None or fit.xmin is None or not fit.D_ks:
        return bool(np.count_nonzero(evals > WEIGHTWATCHER_CUT) < 2)
    relative, b = _ERROR * evals[-1] / fit.xmin, fit.alpha - 1.0
    first = int(evals.searchsorted(fit.xmin))
    apart = first == 0 or fit.xmin - evals[first - 1] > error
    return bool(apart and fit.near_ties == 1 and relative * max(1.0, 2 * b, 2.74 * b / fit.D_ks) <= RELATIVE)


def _trace_log_is_certain(evals: FloatArray, error: float) -> bool:
    """Whether the sums of ln(lambda / mean) cross zero at a known eigenvalue, and keep clear of zero."""
    descending = evals[::-1]
    sums = np.cumsum(np.log(descending * (evals.size / evals.sum())))
    if not (sums < 0.0).any():
        return False
    k = int((sums < 0.0).argmax())
    room = error / descending[k]
    return bool(room <= RELATIVE and np.abs(sums[max(k - 1, 0) : k + 1]).min() > (k + 1) * room)
