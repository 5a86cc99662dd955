"""The columns of WeightWatcher 0.7.7, as its `analyze()` prints them (float32 weights, CPU).

WeightWatcher scales every slice of a convolution by sqrt(1/2), with pool=False by sqrt(slices/2); all numbers
here are in those units. Of its options, pool=False, fix_fingers and detX are here. fit='TPL' and 'E_TPL' have
no numbers to repeat: 0.7.7 refuses them with its own fit and fails on every layer with the powerlaw package.
conv2d_fft drops the imaginary part of the transform, so it is no spectrum of the convolution. The rules are
repeated as they are, absolute tolerances and all; the default estimator has none of them. Read in its source:
PyStateDictLayer, layer_supported, conv2D_Wmats, combined_eigenvalues, apply_norm_metrics, apply_detX.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from scanner.spectra.erg import crossing
from scanner.spectra.estimators import WeightWatcherClip, weightwatcher_clip, weightwatcher_peak
from scanner.spectra.tailfit import WEIGHTWATCHER_CUT, WEIGHTWATCHER_LEAST_TAIL, fit_as_weightwatcher
from schemas.records import record
from schemas.results import FitStatus, TailFit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from schemas.config import FixFingers

_MIN_EVALS = 8
_MAX_EVALS = 15_000
_MAX_LONG_SIDE = 50_000
_WEAK_RANK_EVAL = 1e-6
_EPSILON = 1e-10
_EPS = float(np.finfo(np.float64).eps)


@record()
class WeightWatcherRow:
    """What WeightWatcher 0.7.7 says of one layer; a failed fit leaves its numbers None, never -1.

    ww_status: success or failed. ww_alpha, ww_xmin, ww_xmax, ww_D: the fit (xmin, xmax in weight^2).
    ww_sigma: (alpha-1)/sqrt(tail), but -1/sqrt(n) when only n < 8 eigenvalues exceed 1e-5.
    ww_num_pl_spikes: eigenvalues >= ww_xmin. ww_rank_loss: lost ranks, summed over slices.
    ww_weak_rank_loss: eigenvalues below 1e-6. ww_matrix_rank: rank of the pooled spectrum. ww_sv_min:
    largest of the slices' smallest singular values, unit weight. ww_entropy: matrix entropy, None for a
    zero matrix. ww_detX_num, ww_detX_val: eigenvalues inside the trace-log condition, at most all, and the
    least of them (WeightWatcher's detX_val). ww_num_fingers, ww_raw_alpha: of fix_fingers='clip_xmax', in its
    counting, and alpha before clipping; None for another rule.
    """

    ww_status: str
    ww_alpha: float | None
    ww_xmin: float | None
    ww_xmax: float | None
    ww_D: float | None
    ww_sigma: float | None
    ww_num_pl_spikes: int | None
    ww_rank_loss: int
    ww_weak_rank_loss: int
    ww_matrix_rank: int
    ww_sv_min: float
    ww_entropy: float | None
    ww_detX_num: int
    ww_detX_val: float
    ww_num_fingers: int | None = None
    ww_raw_alpha: float | None = None


def ww_sides(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return WeightWatcher's (N, M, rf) of a 2-D or 4-D weight; rf is the number of slices.

    A convolution (O, I, a, b) starts as N, M = O, I and swaps them once per slice when O < I, so an even
    number of slices leaves N < M. With O + I < a + b it takes another path, which never swaps.

    Raises:
        ValueError: neither a matrix nor a convolution.
    """
    if len(shape) == 2:
        return max(shape), min(shape), 1
    if len(shape) != 4:
        raise ValueError(f"WeightWatcher analyses 2-D and 4-D weights only, got shape {tuple(shape)}")
    rows, columns, height, width = shape
    slices = height * width
    swapped = rows < columns and slices % 2 == 1 and rows + columns >= height + width
    return (columns, rows, slices) if swapped else (rows, columns, slices)


def ww_has_row(shape: Sequence[int], name: str, *, pool: bool = True) -> bool:
    """Say whether WeightWatcher has a row (one a slice without `pool`) for the tensor `name`."""
    if not name.endswith(".weight") or len(shape) not in (2, 4) or shape[0] < 2:
        return False
    long_side, short_side, slices = ww_sides(shape)
    count = short_side * slices if pool else short_side
    return _MIN_EVALS <= count <= _MAX_EVALS and long_side <= _MAX_LONG_SIDE


class Fitted(NamedTuple):
    """Eigenvalues, ascending, and WeightWatcher's fit to them."""

    evals: NDArray[np.float64]
    fit: TailFit


def fit_squares(sigma: NDArray[np.float64]) -> Fitted:
    """WeightWatcher's fit to the squares of singular values (slices, M), scaled as it scales them."""
    evals = _squares(sigma)
    return Fitted(evals, fit_as_weightwatcher(evals))


def compat_row(
    singular_values: NDArray[np.float64],
    N: int,
    M: int,
    is_conv2d: bool,
    *,
    slice_of: int = 1,
    fix_fingers: FixFingers = "off",
    fitted: Fitted | None = None,
) -> WeightWatcherRow:
    """Compute WeightWatcher's columns from the singular values of one tensor.

    Args:
        singular_values: (slices, min(N, M)) float64, unit weight, of the float32 weights as stored (no
            scaling), in any order inside a slice; one slice for a matrix. They must come from an SVD: a
            Gram matrix loses the smallest ones, which the ranks count.
        N: WeightWatcher's N, from `ww_sides`.
        M: WeightWatcher's M, from `ww_sides`; may exceed N.
        is_conv2d: whether the tensor is 4-D, so that slices are scaled by sqrt(slice_of/2).
        slice_of: slices of the convolution of which this row is one (pool=False); 1 when they are pooled.
        fix_fingers: WeightWatcher's option. "xmin_peak" is what its published code means; see
            `weightwatcher_peak`.
        fitted: what `fit_squares` gives for the scaled values, where it is known; of fix_fingers "off".

    Returns:
        A WeightWatcherRow with status success or failed. Equal eigenvalues fail here, where
        WeightWatcher reports alpha = inf or 0 with success.

    Raises:
        ValueError: a wrong shape, or values that are negative, NaN or infinite.

    Cost: the tail fit, with "clip_xmax" up to ten of them; see `tailfit.fit_tail`.
    """
    _require_slices(singular_values.shape, N, M)
    sigma = singular_values * math.sqrt(slice_of / 2.0) if is_conv2d else singular_values
    (evals, fit), clip = (fitted, None) if fitted else _fit(sigma, fix_fingers)
    (lost, weakest), counts, (detx_num, detx_val), entropy = _described(sigma, evals, N, *_limits(fit))
    rank, weak, between, spikes = counts
    return WeightWatcherRow(
        ww_status="success" if fit.status is FitStatus.OK else "failed",
        ww_alpha=fit.alpha,
        ww_xmin=fit.xmin,
        ww_xmax=fit.xmax,
        ww_D=fit.D_ks,
        ww_sigma=fit.alpha_stderr if fix_fingers == "xmin_peak" else _sigma(fit, between),
        ww_num_pl_spikes=None if fit.xmin is None else spikes,
        ww_rank_loss=lost,
        ww_weak_rank_loss=weak,
        ww_matrix_rank=rank,
        ww_sv_min=weakest,
        ww_entropy=entropy if rank else None,
        ww_detX_num=detx_num,
        ww_detX_val=detx_val,
        ww_num_fingers=None if clip is None else clip.num_fingers,
        ww_raw_alpha=None if clip is None else clip.raw_alpha,
    )


def _require_slices(shape: tuple[int, ...], N: int, M: int) -> None:
    if len(shape) != 2 or shape[1] != min(N, M):
        raise ValueError(
            f"singular values of {N} x {M} slices must have shape (slices, {min(N, M)}), got {shape}"
        )


def _fit(sigma: NDArray[np.float64], fix_fingers: FixFingers) -> tuple[Fitted, WeightWatcherClip | None]:
    if fix_fingers == "off":
        return fit_squares(sigma), None
    evals = _squares(sigma)
    if fix_fingers == "xmin_peak":
        return Fitted(evals, weightwatcher_peak(evals)), None
    clip = weightwatcher_clip(evals)
    return Fitted(evals, clip.fit), clip


def _squares(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    evals = np.square(sigma).reshape(-1)
    evals.sort()
    return evals


def _limits(fit: TailFit) -> tuple[float, float]:
    """Where the tail begins and where WeightWatcher's sample ends."""
    return math.inf if fit.xmin is None else fit.xmin, math.inf if fit.xmax is None else fit.xmax


def _sigma(fit: TailFit, fitted: int) -> float | None:
    if fit.status is FitStatus.OK and fitted < WEIGHTWATCHER_LEAST_TAIL:
        # WeightWatcher forms sigma with alpha = 0 and only then fits the whole of so small a sample.
        return -1.0 / math.sqrt(fitted)
    return fit.alpha_stderr


@njit(nogil=True, cache=True)
def _described(
    sigma: NDArray[np.float64], ascending: NDArray[np.float64], N: int, start: float, end: float
) -> tuple[tuple[int, float], tuple[int, int, int, int], tuple[int, float], float]:
    """All that one pass over the numbers says, in one call: a call costs as much as a pass."""
    counts = _counts(ascending, N, start, end)
    return _slices(sigma, N), counts, _detx(ascending), _entropy(ascending, counts[0])


@njit(nogil=True, cache=True)
def _slices(sigma: NDArray[np.float64], N: int) -> tuple[int, float]:
    """Ranks that slices (slices, M) have lost, and the largest of their least singular values."""
    lost, weakest = 0, 0.0
    for k in range(sigma.shape[0]):
        least, most = math.inf, 0.0
        for j in range(sigma.shape[1]):
            least, most = min(least, sigma[k, j]), max(most, sigma[k, j])
        limit = most * N * _EPS
        for j in range(sigma.shape[1]):
            lost += not sigma[k, j] > limit
        weakest = max(weakest, least)
    return lost, weakest


@njit(nogil=True, cache=True)
def _counts(ascending: NDArray[np.float64], N: int, start: float, end: float) -> tuple[int, int, int, int]:
    """The rank, and how many eigenvalues are weak, between the cut and `end`, and at or above `start`."""
    limit = math.sqrt(ascending[-1]) * N * _EPS
    rank = weak = fitted = spikes = 0
    for value in ascending:
        rank += math.sqrt(value) > limit
        weak += value < _WEAK_RANK_EVAL
        fitted += WEIGHTWATCHER_CUT < value <= end
        spikes += value >= start
    return rank, weak, fitted, spikes


@njit(nogil=True, cache=True)
def _detx(ascending: NDArray[np.float64]) -> tuple[int, float]:
    """Least k < n whose k largest eigenvalues, over their mean, multiply to less than 1, and the k-th.

    WeightWatcher says n and the second smallest where there is none, and 0 where all are equal.
    """
    n = len(ascending)
    if n < 2 or ascending[0] == ascending[-1]:
        return 0, ascending[0]
    k = crossing(ascending, n / ascending.sum())
    return (k, ascending[n - k]) if 0 < k < n else (n, ascending[1])


@njit(nogil=True, cache=True)
def _entropy(evals: NDArray[np.float64], rank: int) -> float:
    """Matrix entropy; NaN for a zero matrix."""
    if not rank:
        return math.nan
    whole, total = evals.sum(), 0.0
    for value in evals:
        p = value / whole + _EPSILON
        total += p * math.log(p)
    return -total / math.log(rank + _EPSILON)
