"""The exact search for xmin: a certified pruned minimum of the Kolmogorov-Smirnov distance.

A sample x_0 <= ... <= x_{n-1} is given by `logs` (non-decreasing natural logs) and by `exponents`
b_i = alpha_i - 1 of the model fitted to the tail that starts at i. With n_i = n - i,

    survival of the model     g_i(j) = exp(-b_i (logs_j - logs_i))
    survival of the sample    E_i(j) = (n - j) / n_i
    deviation                 dev_i(j) = |g_i(j) - E_i(j)|, two-sided also |g_i(j) - E_i(j+1)|
    distance                  D_i = max over j >= i of dev_i(j)

A b_i that is not positive (or NaN) marks an index that is not a candidate. Three certificates prune the
n^2/2 deviations without changing a bit of the answer: (A) one dev_i(j) above the best distance so far
disqualifies i, and the j that killed one candidate tends to kill its neighbours; (B) a scan stops at the
first such j; (C) both survivals are monotone, so the ends of a block bound what its inside can add.
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
_BLOCKS = 64
_SMALL = 4 * _BLOCKS
_ABOVE_ANY_DISTANCE = 2.0
# Certificate C compares rounded survivals: each side is off by less than 5 eps.
_SLACK = 8.0 * 2.0**-52

# Without fastmath: the certificates need IEEE rounding.
_compiled = numba.njit(nogil=True, cache=True)


class _Tail(NamedTuple):
    """The tail from `start` on, under the model with exponent `b`."""

    logs: NDArray[np.float64]
    b: float
    start: int
    two_sided: bool


@_compiled
def _survival(tail: _Tail, j: int) -> float:
    return math.exp(-tail.b * (tail.logs[j] - tail.logs[tail.start]))


@_compiled
def _deviation(tail: _Tail, j: int) -> float:
    model = _survival(tail, j)
    above = len(tail.logs) - j
    size = len(tail.logs) - tail.start
    deviation = abs(model - above / size)
    if tail.two_sided:
        deviation = max(deviation, abs(model - (above - 1) / size))
    return deviation


@_compiled
def _scan(tail: _Tail, points: range, running: tuple[float, int], limit: float) -> tuple[float, int, int]:
    """Raise `running` (maximum, its j) over `points`, stopping above `limit`; also count survivals."""
    highest, where = running
    evaluations = 0
    for j in points:
        deviation = _deviation(tail, j)
        evaluations += 1
        if deviation > highest:
            highest, where = deviation, j
            if highest > limit:
                break
    return highest, where, evaluations


@_compiled
def _block_bound(tail: _Tail, first: int, stop: int) -> float:
    """Bound the deviations at first < j < stop."""
    n = len(tail.logs)
    size = n - tail.start
    least = n - stop if tail.two_sided else n - stop + 1
    return max(_survival(tail, first) - least / size, (n - first - 1) / size - _survival(tail, stop))


@_compiled
def _distance(tail: _Tail, limit: float) -> tuple[float, int, int]:
    """Return D of the tail and its j when D <= limit, otherwise some deviation above `limit` and its j.

    The third number counts the model survivals computed.
    """
    last = len(tail.logs) - 1
    size = len(tail.logs) - tail.start
    stride = size // _BLOCKS if size > _SMALL else 1
    running = (_deviation(tail, last), last)
    highest, where, evaluations = _scan(tail, range(tail.start, last, stride), running, limit)
    evaluations += 1
    if stride == 1 or highest > limit:
        return highest, where, evaluations
    for first in range(tail.start, last, stride):
        stop = min(first + stride, last)
        evaluations += 2
        if _block_bound(tail, first, stop) + _SLACK <= highest:
            continue
        highest, where, more = _scan(tail, range(first + 1, stop), (highest, where), limit)
        evaluations += more
        if highest > limit:
            break
    return highest, where, evaluations


@_compiled
def _refuted(tail: _Tail, limit: float, keys: NDArray[np.int64], used: int) -> tuple[bool, int]:
    """Try the first `used` keys for a proof of D > limit; the key that proves it moves one place forward."""
    evaluations = 0
    for place in range(used):
        j = keys[place]
        if j <= tail.start:
            continue
        evaluations += 1
        if _deviation(tail, j) > limit:
            if place > 0:
                keys[place], keys[place - 1] = keys[place - 1], j
            return True, evaluations
    return False, evaluations


@_compiled
def _candidate(last: int, step: int) -> int:
    """Return the index to try at a step: evenly spread seeds first, then every index in order."""
    return last * step // _SEEDS if step < _SEEDS else step - _SEEDS


@_compiled
def _search(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], last: int, two_sided: bool
) -> tuple[int, float, int]:
    best, winner = _ABOVE_ANY_DISTANCE, -1
    keys = np.empty(_KEYS, dtype=np.int64)
    used = 0
    evaluations = 0
    for step in range(_SEEDS + last + 1 if last >= 0 else 0):
        i = _candidate(last, step)
        if not exponents[i] > 0.0:
            continue
        tail = _Tail(logs, exponents[i], i, two_sided)
        refuted, more = _refuted(tail, best, keys, used)
        evaluations += more
        if refuted:
            continue
        distance, where, more = _distance(tail, best)
        evaluations += more
        used = min(used + 1, _KEYS)
        keys[used - 1] = where
        if distance < best or (distance == best and i < winner):
            best, winner = distance, i
    return winner, best, evaluations


@_compiled
def _count_within(
    logs: NDArray[np.float64],
    exponents: NDArray[np.float64],
    limits: NDArray[np.float64],
    last: int,
    two_sided: bool,
) -> int:
    keys = np.empty(_KEYS, dtype=np.int64)
    used = 0
    count = 0
    for i in range(last + 1):
        if not exponents[i] > 0.0:
            continue
        tail = _Tail(logs, exponents[i], i, two_sided)
        if _refuted(tail, limits[i], keys, used)[0]:
            continue
        distance, where, _ = _distance(tail, limits[i])
        if distance <= limits[i]:
            count += 1
            continue
        used = min(used + 1, _KEYS)
        keys[used - 1] = where
    return count


def closest_tail(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], *, min_tail: int, two_sided: bool
) -> tuple[int, float, int]:
    """Find the tail start whose power law is closest to its own tail in Kolmogorov-Smirnov distance.

    Args:
        logs: (n,) float64, non-decreasing natural logs of the sample.
        exponents: (n,) float64, alpha_i - 1; not positive or NaN where i is no candidate.
        min_tail: least number of points of a tail, so that i <= n - min_tail.
        two_sided: the true KS distance; otherwise the lower step of the sample only.

    Returns:
        (index, D, evaluations): the smallest index among those with the least D, bit-identical to brute
        force over the same deviations; (-1, 2.0, 0) without a candidate. `evaluations` counts model
        survivals looked at.

    Cost: O(n^2) at worst, measured below 3 % of n^2/2 from n = 1024; O(1) extra memory. Source of the
    objective: Clauset, Shalizi and Newman 2009, equation 3.9.
    """
    winner, best, evaluations = _search(logs, exponents, len(logs) - min_tail, two_sided)
    return winner, best, evaluations


def count_within(
    logs: NDArray[np.float64],
    exponents: NDArray[np.float64],
    limits: NDArray[np.float64],
    *,
    min_tail: int,
    two_sided: bool,
) -> int:
    """Count the candidates i with D_i <= limits_i.

    Args:
        logs: as in `closest_tail`.
        exponents: as in `closest_tail`.
        limits: (n,) float64.
        min_tail: as in `closest_tail`.
        two_sided: as in `closest_tail`.

    With limits_i = best + slack_best + slack_i, slack being a bound on the error of each D_i, the count
    is that of the candidates which an error of the sample could make the winner, the winner included.
    Cost: one more pass of the same kind.
    """
    return _count_within(logs, exponents, limits, len(logs) - min_tail, two_sided)
