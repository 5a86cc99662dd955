"""Further exponents of one tail, each with the rule of its source: what alpha depends on.

`fit_tail` is the estimator; these answer what it would say with another xmin (histogram peak), without
the largest eigenvalues (fingers), and at a fixed aspect ratio (square windows).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scanner.spectra.eigen import Weights
from scanner.spectra.symmetric import eigenvalues
from scanner.spectra.tailfit import WEIGHTWATCHER, WEIGHTWATCHER_CUT, above_cut, fit_tail
from schemas.config import TailRules
from schemas.results import FitStatus, FloatArray, TailFit

MOST_FINGERS = 9
"""Largest eigenvalues dropped at most; WeightWatcher's default max_fingers, 10, means the same."""
FINGER_THRESHOLD = 1.0
"""Drop of alpha that makes the dropped eigenvalues fingers."""
FARMS_WINDOW = 256
"""Longest side of a square window."""

_FARMS_STARTS = 4
_PEAK_BINS = 100
_PEAK_FROM, _PEAK_TO = 0.95, 1.5
_WW_FIRST_CLIP = 2
_WW_MIN_ALPHA = 2.0
_WW_CHECKS = 3
_WW_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakFit:
    """Exponents with xmin near the peak of the spectrum's histogram; None without a candidate.

    alpha_peak: candidates from 0.95 to 1.5 times the peak. alpha_peak_compat: the same with a lower bound
    of log10(0.95 peak), as published code has it, which makes it depend on the scale of the weights.
    """

    alpha_peak: float | None = None
    alpha_peak_compat: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedFit:
    """Exponent without outliers; None without a fit.

    alpha_clipped: that of the spectrum without its `num_fingers` largest eigenvalues, 0..9 of them; alpha
    itself when dropping none lowers it by more than `FINGER_THRESHOLD`.
    """

    alpha_clipped: float | None = None
    num_fingers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightWatcherClip:
    """What WeightWatcher 0.7.7 makes of fix_fingers='clip_xmax'.

    fit: the fit it reports; num_fingers: its count; raw_alpha: alpha before clipping, None when it fails.
    """

    fit: TailFit
    num_fingers: int
    raw_alpha: float | None = None


def fit_peak(evals: FloatArray, rules: TailRules) -> PeakFit:
    """Fit with xmin near the left edge of the fullest of 100 bins of log10 lambda.

    Input: (n,) float64 eigenvalues in any order, unit weight^2, not negative. One-sided KS distance, every
    eigenvalue a candidate, tails of two points; all None below `rules.min_evals` eigenvalues above the cut.
    Cost: a histogram and two searches. Source: AlphaPruning, lib/esd_utils.py (TempBalance, FARMS and
    WeightWatcher's xmin_peak alike).
    """
    x = above_cut(evals, rules)
    if len(x) < max(rules.min_evals, 1) or x[0] == x[-1]:
        return PeakFit()
    peak = _peak(x)
    low, high = _PEAK_FROM * peak, _PEAK_TO * peak
    return PeakFit(
        alpha_peak=_closest_alpha(x, low, high), alpha_peak_compat=_closest_alpha(x, math.log10(low), high)
    )


def fit_clipped(evals: FloatArray, tail: TailFit, rules: TailRules) -> ClippedFit:
    """Drop the k = 1..9 largest eigenvalues until alpha falls by more than `FINGER_THRESHOLD`.

    Input: (n,) float64 eigenvalues in any order, unit weight^2, not negative, and the tail fitted to them
    by "hs1" with the same `rules`. Scale-free. Cost: at most nine fits of `fit_tail`. Source: the
    fix_fingers of WeightWatcher, with its counts corrected: `num_fingers` is what was dropped.
    """
    if tail.alpha is None:
        return ClippedFit()
    x = np.sort(evals)
    for dropped in range(1, MOST_FINGERS + 1):
        alpha = fit_tail(x[:-dropped], rules=rules).alpha
        if alpha is not None and alpha < tail.alpha - FINGER_THRESHOLD:
            return ClippedFit(alpha_clipped=alpha, num_fingers=dropped)
    return ClippedFit(alpha_clipped=tail.alpha, num_fingers=0)


def weightwatcher_clip(evals: FloatArray) -> WeightWatcherClip:
    """Repeat fix_fingers='clip_xmax' of WeightWatcher 0.7.7, its off-by-one included.

    Input: (n,) float64 eigenvalues in any order, unit weight^2, not negative. It never drops one, starts
    with two, counts one fewer than it drops, and gives up at the first refit with alpha <= 2. Statuses of
    the fit: ok or failed; the fit's xmax is the largest eigenvalue left. Cost: up to nine fits. Read in its
    RMT_Util.fit_clipped_powerlaw.
    """
    x = np.sort(evals[evals > WEIGHTWATCHER_CUT])
    whole = fit_tail(x, "weightwatcher")
    best = WeightWatcherClip(fit=whole, num_fingers=0, raw_alpha=whole.alpha)
    last, dropped = whole, MOST_FINGERS
    for dropped in range(_WW_FIRST_CLIP, MOST_FINGERS + 1):
        if len(x) - dropped < _WW_LEAST or whole.alpha is None:
            return _WW_FAILED
        last = fit_tail(x[:-dropped], "weightwatcher")
        if last.alpha is None:
            continue
        if last.alpha + FINGER_THRESHOLD < whole.alpha:
            best = WeightWatcherClip(fit=last, num_fingers=dropped - 1, raw_alpha=whole.alpha)
            break
        if last.alpha <= _WW_MIN_ALPHA:
            break
    return _WW_FAILED if _checks_fail(x, last, dropped) else best


def weightwatcher_peak(evals: FloatArray) -> TailFit:
    """Fit as fix_fingers='xmin_peak' was meant: the rule of `alpha_peak_compat` on what WeightWatcher fits.

    Input: (n,) float64 eigenvalues in any order, unit weight^2, not negative. Statuses: ok; failed (fewer
    than two eigenvalues above 1e-5, or no candidate). WeightWatcher 0.7.7 itself fails on every layer here:
    its default fit takes no range of xmin, and its call of the powerlaw package ends in a TypeError. Cost:
    a histogram and a search.
    """
    x = np.sort(evals[evals > WEIGHTWATCHER_CUT])
    if len(x) < _WW_LEAST or x[0] == x[-1]:
        return _WW_FAILED.fit
    peak = _peak(x)
    start, b, distance = _closest(x, math.log10(_PEAK_FROM * peak), _PEAK_TO * peak)
    if start < 0:
        return _WW_FAILED.fit
    n_tail = len(x) - start
    return TailFit(
        estimator=WEIGHTWATCHER,
        status=FitStatus.OK,
        alpha=1.0 + b,
        alpha_stderr=b / math.sqrt(n_tail),
        xmin=float(x[start]),
        xmax=float(x[-1]),
        D_ks=distance,
        n_tail=n_tail,
    )


def farms_alpha(weights: Weights, rules: TailRules | None = None) -> float | None:
    """Hill's exponent of the eigenvalues of square windows: no bias from the aspect ratio of the matrix.

    Windows of side min(M, 256), at most four start positions along each axis, in every kernel slice of a
    convolution, pooled without weights. None below `rules.min_evals` eigenvalues above the cut, or when
    their upper half is one value. Reads at most 16 windows of each slice as float64; a window costs
    10/3 m^3 flops. Raises NumericsError (nonfinite, eigensolver_error). Source: FARMS (fixed-aspect-ratio
    matrix subsampling).
    """
    rules = rules or TailRules()
    side = min(*weights.shape[:2], FARMS_WINDOW)
    if side == 0:
        return None
    pooled = np.concatenate([_window_evals(window) for window in _windows(weights, side)])
    x = above_cut(pooled, rules)
    return hill(x) if len(x) >= max(rules.min_evals, 1) else None


def window_starts(length: int, side: int) -> list[int]:
    """First rows (or columns) of windows of `side` along an axis of `length` >= side: one to four of them."""
    if length == side:
        return [0]
    count = max(2, min(_FARMS_STARTS, math.ceil(length / side)))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


_WW_FAILED = WeightWatcherClip(
    fit=TailFit(estimator=WEIGHTWATCHER, status=FitStatus.FAILED),
    num_fingers=0,
)


def _checks_fail(x: FloatArray, last: TailFit, dropped: int) -> bool:
    """Say whether one of WeightWatcher's three refits for its log is left without two eigenvalues.

    It drops one more each time, and stops once alpha differs by more than the threshold from `last`.
    """
    for more in range(1, _WW_CHECKS + 1):
        left = len(x) - dropped - more
        if left < _WW_LEAST:
            return True
        alpha = fit_tail(x[:left], "weightwatcher").alpha if left < _WW_LEAST + _WW_CHECKS else None
        if alpha is not None and last.alpha is not None and abs(alpha - last.alpha) > FINGER_THRESHOLD:
            return False
    return False


def _peak(x: FloatArray) -> float:
    """Left edge of the first fullest of 100 bins of log10 x."""
    counts, edges = np.histogram(np.log10(x), bins=_PEAK_BINS)
    return float(10.0 ** float(edges[np.argmax(counts)]))


def _closest_alpha(x: FloatArray, low: float, high: float) -> float | None:
    start, b, _ = _closest(x, low, high)
    return None if start < 0 else 1.0 + b


def _closest(x: FloatArray, low: float, high: float) -> tuple[int, float, float]:
    """The tail from low <= xmin <= high with the least one-sided D: (start or -1, alpha - 1, D)."""
    from scanner.spectra.search import closest_tail, tail_models

    logs = np.log(x / x[-1])
    _, exponents = tail_models(x, logs)
    exponents[(x < low) | (x > high)] = 0.0
    found = closest_tail(logs, exponents, min_tail=2, two_sided=False)
    return found.start, float(exponents[found.start]), found.distance


def _windows(weights: Weights, side: int) -> Iterator[FloatArray]:
    rows, columns = weights.shape[:2]
    for row in window_starts(rows, side):
        for column in window_starts(columns, side):
            yield weights.block(slice(row, row + side), slice(column, column + side))


def _window_evals(window: FloatArray) -> FloatArray:
    """Eigenvalues of X^T X of a square window (m, m) or of its kernel slices (m, m, k...), in any order."""
    side = len(window)
    slices = window.reshape(side, side, -1).transpose(2, 0, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        grams = slices.transpose(0, 2, 1) @ slices
    return np.maximum(eigenvalues(grams), 0.0).ravel()


def hill(ascending: FloatArray) -> float | None:
    """Hill's exponent of the upper half of positive eigenvalues (n,), ascending; None if it is one value."""
    upper = ascending[len(ascending) // 2 :]
    excess = float(np.log(upper / upper[0]).sum())
    return 1.0 + len(upper) / excess if excess > 0.0 else None
