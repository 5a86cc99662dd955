"""The exact search for xmin when the power law ends at the largest eigenvalue.

For the tail that starts at i, u = logs_j - logs_i in [0, L_i], L_i = logs_{n-1} - logs_i, and

    survival of the model     g_i(j) = expm1(b_i (L_i - u)) / expm1(b_i L_i), (L_i - u) / L_i at b_i = 0
    exponent b_i = t / L_i    1/t - 1/(e^t - 1) = mean(u) / L_i, any real number

Deviations, the two-sided distance and the certificates are those of `search`; only the monotony of both
survivals is used, with a slack above the rounding of a survival, so the winner is that of brute force to the
last bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEYS = 24
_SEEDS = 32
_STRIDES = 64
_SLACK = 1e-13
_ABOVE_ANY_DISTANCE = 2.0
_SERIES_BELOW = 0.05
_NEWTON_STEPS = 100
_EPS = 2.0**-52

# Without fastmath: the certificates need IEEE rounding.
_compiled = numba.njit(nogil=True, cache=True)


class _Sample(NamedTuple):
    """logs, exponents b_i, and expm1(-|b_i| L_i), the denominator of the survivals."""

    logs: NDArray[np.float64]
    exponents: NDArray[np.float64]
    scales: NDArray[np.float64]


@_compiled
def curve(t: float) -> tuple[float, float]:
    """Return 1/t - 1/(e^t - 1) and its derivative for t >= 0."""
    if t < _SERIES_BELOW:
        value = 0.5 - t / 12.0 + t**3 / 720.0 - t**5 / 30240.0
        return value, -1.0 / 12.0 + t**2 / 240.0 - t**4 / 6048.0
    decay, rest = math.exp(-t), -math.expm1(-t)
    return 1.0 / t - decay / rest, decay / rest**2 - 1.0 / t**2


@_compiled
def root(ratio: float) -> float:
    """Solve 1/t - 1/(e^t - 1) = ratio, inside (0, 1), for t by Newton's method.

    The left side f satisfies f(-t) = 1 - f(t), is convex and lies above its tangent 1/2 - t/12 for t >= 0, so
    the steps from the tangent's root climb to the solution without ever passing it.
    """
    least = min(ratio, 1.0 - ratio)
    t = 12.0 * (0.5 - least)
    for _ in range(_NEWTON_STEPS):
        value, slope = curve(t)
        step = (least - value) / slope
        if step <= _EPS * t:
            break
        t += step
    return t if ratio <= 0.5 else -t


@_compiled
def _exponents(
    x: NDArray[np.float64], logs: NDArray[np.float64], excess: NDArray[np.float64]
) -> NDArray[np.float64]:
    n = len(x)
    found = np.full(n, math.nan)
    for i in range(n - 1):
        if i > 0 and x[i] == x[i - 1]:
            continue
        span, mean = logs[n - 1] - logs[i], excess[i] / (n - i)
        if 0.0 < mean < span:
            found[i] = root(mean / span) / span
    return found


@_compiled
def _survival(sample: _Sample, i: int, j: int) -> float:
    b, u = sample.exponents[i], sample.logs[j] - sample.logs[i]
    left = (sample.logs[-1] - sample.logs[i]) - u
    if b > 0.0:
        model = math.exp(-b * u) * math.expm1(-b * left) / sample.scales[i]
    elif b < 0.0:
        model = math.expm1(b * left) / sample.scales[i]
    else:
        model = left / (left + u)
    return float(model)


@_compiled
def _deviation(model: float, n: int, i: int, j: int) -> float:
    return max(abs(model - (n - j) / (n - i)), abs(model - (n - j - 1) / (n - i)))


@_compiled
def _refuted(sample: _Sample, keys: NDArray[np.int64], used: int, i: int, limit: float) -> tuple[bool, int]:
    """Whether a key puts D_i above the limit, moving that key one place to the front; survivals computed."""
    n = len(sample.logs)
    for k in range(used):
        j = keys[k]
        if j > i and _deviation(_survival(sample, i, j), n, i, j) > limit:
            if k > 0:
                keys[k - 1], keys[k] = j, keys[k - 1]
            return True, k + 1
    return False, used


@_compiled
def _judge(sample: _Sample, i: int, limit: float) -> tuple[float, int, int]:
    """D_i, or the first deviation above the limit; its j; survivals computed."""
    n = len(sample.logs)
    stride = max(1, (n - i) // _STRIDES)
    highest, where, count = -1.0, i, 0
    start, above = i, 1.0
    while True:
        end = min(start + stride, n - 1)
        below = _survival(sample, i, end)
        count += 1
        bound = max(above - (n - end) / (n - i), (n - start - 1) / (n - i) - below)
        first = start if start == i else start + 1
        if end - first > 1 and bound + _SLACK <= highest:
            first = end
        for j in range(first, end + 1):
            deviation = _deviation(_survival(sample, i, j), n, i, j)
            count += 1
            if deviation > highest:
                highest, where = deviation, j
                if highest > limit:
                    return highest, where, count
        if end == n - 1:
            return highest, where, count
        start, above = end, below


@_compiled
def _search(logs: NDArray[np.float64], exponents: NDArray[np.float64], last: int) -> tuple[int, float, int]:
    """Scattered seeds first, then every candidate; a candidate met twice does no harm."""
    n = len(logs)
    scales = np.empty(n)
    for i in range(n):
        scales[i] = math.expm1(-abs(exponents[i]) * (logs[-1] - logs[i]))
    sample = _Sample(logs, exponents, scales)
    keys = np.empty(_KEYS, dtype=np.int64)
    used, evaluations, winner, best = 0, 0, -1, _ABOVE_ANY_DISTANCE
    for step in range(_SEEDS + last + 1):
        i = last * step // _SEEDS if step < _SEEDS else step - _SEEDS
        if not math.isfinite(exponents[i]):
            continue
        refuted, more = _refuted(sample, keys, used, i, best)
        evaluations += more
        if refuted:
            continue
        distance, where, more = _judge(sample, i, best)
        evaluations += more
        used = min(used + 1, _KEYS)
        keys[used - 1] = where
        if distance < best or (distance == best and i < winner):
            winner, best = i, distance
    return winner, best, evaluations


class ClosestTruncated(NamedTuple):
    """The tail whose truncated power law is closest to it.

    start, distance: the smallest index among those with the least D, and D; -1 and 2.0 without a candidate.
    evaluations: model survivals computed.
    """

    start: int
    distance: float
    evaluations: int


def truncated_exponents(
    x: NDArray[np.float64], logs: NDArray[np.float64], excess: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Maximum-likelihood b_i = alpha_i - 1 of every tail cut at the largest value, NaN where there is none.

    Args:
        x: (n,) float64, ascending, positive; only the first of equal values has an exponent.
        logs: (n,) float64, natural logs of x, non-decreasing.
        excess: (n,) float64, sum over j >= i of ln(x_j / x_i), as `search.tail_models` gives it.

    Cost: five to seven Newton steps each. Source: Deluca and Corral 2013.
    """
    return _exponents(x, logs, excess)


def closest_truncated(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], *, min_tail: int
) -> ClosestTruncated:
    """Find the tail start whose power law on [xmin, xmax] is closest to its own tail, two-sided.

    Args:
        logs: (n,) float64, non-decreasing natural logs of the sample.
        exponents: (n,) float64, b_i of any sign; NaN where i is no candidate.
        min_tail: least number of points of a tail, so that i <= n - min_tail.

    Returns:
        A ClosestTruncated whose start and distance are bit-identical to brute force over the same deviations.

    Cost: O(n^2) survivals at worst, a few per cent of that measured; O(n) memory.
    """
    return ClosestTruncated(*_search(logs, exponents, len(logs) - min_tail))
