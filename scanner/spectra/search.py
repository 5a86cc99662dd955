"""The exact search for xmin: a certified pruned minimum of the Kolmogorov-Smirnov distance.

A sample x_0 <= ... <= x_{n-1} is given by `logs` (non-decreasing natural logs) and by `exponents`
b_i = alpha_i - 1 of the model fitted to the tail that starts at i. With n_i = n - i,

    survival of the model     g_i(j) = exp(-b_i (logs_j - logs_i))
    survival of the sample    E_i(j) = (n - j) / n_i
    deviation                 dev_i(j) = |g_i(j) - E_i(j)|, two-sided also |g_i(j) - E_i(j+1)|
    distance                  D_i = max over j >= i of dev_i(j)

An index whose b_i is not positive and finite is no candidate. The library's exp decides nothing but the
last bits: g is first taken from a polynomial that compilers turn into vector code and that is known to
within `_NEAR`. Three certificates then prune the n^2/2 deviations without changing a bit of the answer:
(A) one dev_i(j) above the best distance so far disqualifies i, and the j that disqualified one candidate
disqualifies whole blocks of its neighbours, so each j is tried on a block at a time; (B) a scan stops at
the first such j; (C) both survivals are monotone, so the ends of a block of points bound its inside.

Deviations marked "scaled" are times n_i: |g n_i - (n - j)|, without a division; the larger of |a| and
|a + 1| is |a + 1/2| + 1/2, so `half` = 1/2 makes them two-sided.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAR = 2.0**-24
"""Bound on the error of an approximate survival; the polynomial's own is 1.1e-8, a fifth of it."""
_FAR = 32.0
_KEYS = 24
_SEEDS = 16
# Odd, so that it visits every seed; the order is scattered, so that few seeds improve on the ones before.
_SEED_STRIDE = 5
_BLOCK = 256
_STEP = 16
_ABOVE_ANY_DISTANCE = 2.0
_DISTANCE_ERROR = 2.74

# Without fastmath: the certificates need IEEE rounding.
_compiled = numba.njit(nogil=True, cache=True)
_inlined = numba.njit(nogil=True, cache=True, inline="always")


class _Sample(NamedTuple):
    """logs, exponents, n_i as floats, every `_STEP`-th log, and 1/2 for the two-sided distance, else 0."""

    logs: NDArray[np.float64]
    exponents: NDArray[np.float64]
    sizes: NDArray[np.float64]
    coarse: NDArray[np.float64]
    half: float


class _Room(NamedTuple):
    """Scratch of one candidate: scaled survivals at the coarse points, block bounds, deviations."""

    survivals: NDArray[np.float64]
    bounds: NDArray[np.float64]
    deviations: NDArray[np.float64]


class _Verdict(NamedTuple):
    """Whether D_i > limit, a scaled deviation (its j is `where`) or else the exact D, and the cost."""

    refuted: bool
    value: float
    where: int
    evaluations: int


class _Progress(NamedTuple):
    """Least distance so far, its candidate, keys in use, survivals computed."""

    best: float
    winner: int
    used: int
    evaluations: int


@_inlined
def _near_survival(z: float) -> float:
    """exp(-z) to within `_NEAR` for z >= 0: a Taylor polynomial at z/64, squared six times."""
    y = -min(z, _FAR) / 64.0
    p = 1.0 + y * (1.0 + y * (0.5 + y * (1.0 / 6.0 + y * (1.0 / 24.0))))
    p *= p
    p *= p
    p *= p
    p *= p
    p *= p
    return float(p * p)


@_compiled
def _deviation(sample: _Sample, i: int, j: int) -> float:
    n = len(sample.logs)
    model = math.exp(-sample.exponents[i] * (sample.logs[j] - sample.logs[i]))
    deviation = abs(model - (n - j) / (n - i))
    if sample.half > 0.0:
        deviation = max(deviation, abs(model - (n - j - 1) / (n - i)))
    return deviation


@_compiled
def _largest(values: NDArray[np.float64]) -> tuple[float, int]:
    highest, where = -1.0, 0
    for k in range(len(values)):
        if values[k] > highest:
            highest, where = values[k], k
    return highest, where


@_compiled
def _scan(sample: _Sample, room: _Room, i: int, first: int, stop: int) -> tuple[float, int]:
    """Note the scaled deviations of i at first <= j < stop; return the largest and its j."""
    b, origin, size = sample.exponents[i], sample.logs[i], sample.sizes[i]
    above = float(len(sample.logs) - first) - sample.half
    logs, noted = sample.logs[first:stop], room.deviations[first:stop]
    for k in range(len(logs)):
        noted[k] = abs(_near_survival(b * (logs[k] - origin)) * size - (above - k)) + sample.half
    highest, where = _largest(noted)
    return highest, first + where


@_compiled
def _scan_coarse(sample: _Sample, room: _Room, i: int, first: int) -> tuple[float, int]:
    """Note the scaled survivals at the coarse points from the `first`; return the largest deviation."""
    b, origin, size = sample.exponents[i], sample.logs[i], sample.sizes[i]
    above = float(len(sample.logs) - first * _STEP) - sample.half
    logs, survivals, noted = sample.coarse[first:], room.survivals[first:], room.bounds[first:]
    for k in range(len(logs)):
        survivals[k] = _near_survival(b * (logs[k] - origin)) * size
        noted[k] = abs(survivals[k] - (above - k * _STEP)) + sample.half
    highest, where = _largest(noted)
    return highest, (first + where) * _STEP


@_compiled
def _block_bound(sample: _Sample, room: _Room, block: int) -> float:
    """Bound the scaled deviations in a block of coarse points, from the survivals noted at its ends."""
    above = float(len(sample.logs) - block * _STEP)
    return float(max(room.survivals[block] - (above - _STEP), above - room.survivals[block + 1]))


@_compiled
def _scan_blocks(
    sample: _Sample, room: _Room, i: int, first: int, limit: float, running: tuple[float, int]
) -> tuple[float, int, int]:
    """Raise `running` (scaled, its j) in the blocks from the `first`, stopping above the scaled `limit`."""
    highest, where = running
    unsure = 2.0 * _NEAR * sample.sizes[i]
    evaluations = 0
    for block in range(first, len(sample.coarse) - 1):
        bound = _block_bound(sample, room, block)
        room.bounds[block] = bound
        if bound <= highest - unsure:
            continue
        deviation, j = _scan(sample, room, i, block * _STEP, (block + 1) * _STEP)
        evaluations += _STEP
        if deviation > highest:
            highest, where = deviation, j
            if highest > limit:
                break
    return highest, where, evaluations


@_compiled
def _exact(sample: _Sample, room: _Room, i: int, points: range, level: float) -> float:
    """Return the largest deviation among the points whose noted deviation reaches the scaled `level`."""
    highest = -1.0
    for j in points:
        if room.deviations[j] >= level:
            highest = max(highest, _deviation(sample, i, j))
    return highest


@_compiled
def _exact_distance(sample: _Sample, room: _Room, i: int, first: int, level: float) -> float:
    n, blocks = len(sample.logs), len(sample.coarse) - 1
    distance = _exact(sample, room, i, range(i, min(first * _STEP, n)), level)
    if first > blocks:
        return distance
    distance = max(distance, _exact(sample, room, i, range(blocks * _STEP, n), level))
    for block in range(first, blocks):
        if room.bounds[block] > level:
            points = range(block * _STEP, (block + 1) * _STEP)
            distance = max(distance, _exact(sample, room, i, points, level))
    return distance


@_compiled
def _judge(sample: _Sample, room: _Room, i: int, limit: float) -> _Verdict:
    """Find a deviation above `limit` or else D_i: the ends of the tail, coarse points, blocks, exp."""
    n, size = len(sample.logs), sample.sizes[i]
    scaled_limit = (limit + _NEAR) * size
    first = (i + _STEP - 1) // _STEP
    head = min(first * _STEP, n)
    highest, where = _scan(sample, room, i, i, head)
    evaluations = head - i
    if highest <= scaled_limit and head < n:
        deviation, j = _scan_coarse(sample, room, i, first)
        if deviation > highest:
            highest, where = deviation, j
        last = (len(sample.coarse) - 1) * _STEP
        deviation, j = _scan(sample, room, i, last, n)
        if deviation > highest:
            highest, where = deviation, j
        evaluations += len(sample.coarse) - first + n - last
        if highest <= scaled_limit:
            highest, where, more = _scan_blocks(sample, room, i, first, scaled_limit, (highest, where))
            evaluations += more
    if highest > scaled_limit:
        return _Verdict(True, highest, where, evaluations)
    level = highest - 2.0 * _NEAR * size
    return _Verdict(False, _exact_distance(sample, room, i, first, level), where, evaluations)


@_compiled
def _raise_floors(
    sample: _Sample, floors: NDArray[np.float64], first: int, stop: int, j: int, limit: float
) -> int:
    """Raise the floors of first <= i < stop <= j by dev_i(j); return how many stay within `limit`."""
    log, above, half = sample.logs[j], (len(sample.logs) - j) - sample.half, sample.half
    level = limit + _NEAR
    logs, exponents = sample.logs[first:stop], sample.exponents[first:stop]
    sizes, raised = sample.sizes[first:stop], floors[first:stop]
    alive = 0
    for k in range(len(raised)):
        deviation = abs(_near_survival(exponents[k] * (log - logs[k])) * sizes[k] - above) + half
        floor = deviation if deviation > raised[k] else raised[k]
        raised[k] = floor
        alive += floor <= level * sizes[k]
    return alive


@_compiled
def _to_front(keys: NDArray[np.int64], place: int, key: int) -> None:
    for p in range(place, 0, -1):
        keys[p] = keys[p - 1]
    keys[0] = key


@_compiled
def _try_keys(
    sample: _Sample,
    floors: NDArray[np.float64],
    keys: NDArray[np.int64],
    block: tuple[int, int],
    progress: _Progress,
) -> tuple[int, int]:
    """Raise the floors of a block by the keys until none is within the best: (how many are, evaluations)."""
    first, stop = block
    alive, evaluations = stop - first, 0
    for place in range(progress.used):
        j = keys[place]
        end = min(stop, j)
        if end <= first:
            continue
        left = _raise_floors(sample, floors, first, end, j, progress.best)
        evaluations += end - first
        if end == stop:
            alive = left
            if alive == 0:
                _to_front(keys, place, j)
                break
    return alive, evaluations


@_compiled
def _lowest(sample: _Sample, floors: NDArray[np.float64], block: tuple[int, int], limit: float) -> int:
    """Return the candidate of a block with the lowest floor within `limit`, or -1."""
    lowest, where = limit + _NEAR, -1
    for i in range(block[0], block[1]):
        floor = floors[i]
        if floor <= lowest * sample.sizes[i]:
            lowest, where = floor / sample.sizes[i], i
    return where


@_compiled
def _settle(
    sample: _Sample,
    room: _Room,
    floors: NDArray[np.float64],
    keys: NDArray[np.int64],
    block: tuple[int, int],
    progress: _Progress,
) -> _Progress:
    """Disqualify the candidates of a block or make one the winner, the lowest floor first."""
    best, winner, used, evaluations = progress
    alive, more = _try_keys(sample, floors, keys, block, progress)
    evaluations += more
    while alive > 0:
        i = _lowest(sample, floors, block, best)
        if i < 0:
            break
        verdict = _judge(sample, room, i, best)
        evaluations += verdict.evaluations
        floors[i] = verdict.value if verdict.refuted else math.inf
        if not verdict.refuted and (verdict.value < best or (verdict.value == best and i < winner)):
            best, winner = verdict.value, i
        used = min(used + 1, _KEYS)
        _to_front(keys, used - 1, verdict.where)
        end = min(block[1], verdict.where)
        if end > block[0]:
            _raise_floors(sample, floors, block[0], end, verdict.where, best)
            evaluations += end - block[0]
    return _Progress(best, winner, used, evaluations)


@_compiled
def _is_candidate(exponent: float) -> bool:
    return 0.0 < exponent < math.inf


@_compiled
def _prepared(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], two_sided: bool
) -> tuple[_Sample, _Room]:
    n = len(logs)
    sizes = np.empty(n)
    for i in range(n):
        sizes[i] = float(n - i)
    coarse = logs[::_STEP].copy()
    sample = _Sample(logs, exponents, sizes, coarse, 0.5 if two_sided else 0.0)
    return sample, _Room(np.empty(len(coarse)), np.empty(len(coarse)), np.empty(n))


@_compiled
def _initial_floors(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    floors = np.empty(len(exponents))
    for i in range(len(floors)):
        floors[i] = 0.0 if _is_candidate(exponents[i]) else math.inf
    return floors


@_compiled
def _search(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], last: int, two_sided: bool
) -> tuple[int, float, int, NDArray[np.float64]]:
    """Settle scattered seeds, then blocks of candidates outward from the best seed."""
    sample, room = _prepared(logs, exponents, two_sided)
    floors = _initial_floors(exponents)
    keys = np.empty(_KEYS, dtype=np.int64)
    progress = _Progress(_ABOVE_ANY_DISTANCE, -1, 0, 0)
    if last >= 0:
        for step in range(_SEEDS):
            seed = last * (step * _SEED_STRIDE % _SEEDS) // _SEEDS
            progress = _settle(sample, room, floors, keys, (seed, seed + 1), progress)
    centre = max(progress.winner, 0) // _BLOCK
    blocks = (last + _BLOCK) // _BLOCK
    for step in range(2 * blocks):
        place = centre + (step + 1) // 2 if step % 2 else centre - step // 2
        if 0 <= place < blocks:
            block = (place * _BLOCK, min((place + 1) * _BLOCK, last + 1))
            progress = _settle(sample, room, floors, keys, block, progress)
    return progress.winner, progress.best, progress.evaluations, floors


@_compiled
def _count_within(
    logs: NDArray[np.float64],
    exponents: NDArray[np.float64],
    limits: NDArray[np.float64],
    floors: NDArray[np.float64],
    last: int,
    two_sided: bool,
) -> int:
    sample, room = _prepared(logs, exponents, two_sided)
    count = 0
    for i in range(last + 1):
        if math.inf > floors[i] > (limits[i] + _NEAR) * sample.sizes[i] or not _is_candidate(exponents[i]):
            continue
        verdict = _judge(sample, room, i, limits[i])
        if not verdict.refuted and verdict.value <= limits[i]:
            count += 1
    return count


@_compiled
def _tail_models(
    x: NDArray[np.float64], logs: NDArray[np.float64], correction: float, least_excess: float, distinct: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = len(x)
    excess, exponents = np.zeros(n), np.zeros(n)
    total = 0.0
    for i in range(n - 2, -1, -1):
        # A vectorised log may break monotony by one ulp.
        logs[i] = min(logs[i], logs[i + 1])
        total += (logs[i + 1] - logs[i]) * (n - i - 1)
        excess[i] = total
    for i in range(n):
        repeated = distinct and i > 0 and x[i] == x[i - 1]
        if excess[i] > least_excess and not repeated:
            exponents[i] = (n - i - correction) / excess[i]
    return excess, exponents


@_compiled
def _best_fit(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    error: float,
    min_tail: int,
    two_sided: bool,
    rule: tuple[float, float, bool],
) -> tuple[int, float, int, float, float, float]:
    n, top = len(x), x[-1]
    excess, exponents = _tail_models(x, logs, rule[0], rule[1], rule[2])
    start, distance, _, floors = _search(logs, exponents, n - min_tail, two_sided)
    if start < 0:
        return start, distance, 0, 0.0, 0.0, excess[n // 2]
    slack = _DISTANCE_ERROR * error * exponents / (x / top)
    limits = distance + slack[start] + slack
    near_ties = _count_within(logs, exponents, limits, floors, n - min_tail, two_sided)
    return start, distance, near_ties, exponents[start], excess[start], excess[n // 2]


class BestFit(NamedTuple):
    """The power law that is closest to its own tail, and how sure that is.

    start, distance: as in `Closest`. near_ties: tails that an error of the sample could make the winner, it
    included. exponent, excess: b and T of the winner. upper_excess: T of the upper half of the sample.
    """

    start: int
    distance: float
    near_ties: int
    exponent: float
    excess: float
    upper_excess: float


def best_fit(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    *,
    error: float,
    min_tail: int,
    two_sided: bool,
    correction: float = 0.0,
    least_excess: float = 0.0,
    distinct: bool = False,
) -> BestFit:
    """`tail_models`, `closest_tail` and `count_within` in one call, which small samples are the better for.

    Args:
        x: as in `tail_models`.
        logs: as in `tail_models`.
        error: relative error of the largest of x; that of x_i is x_max / x_i times as large.
        min_tail: as in `closest_tail`.
        two_sided: as in `closest_tail`.
        correction: as in `tail_models`.
        least_excess: as in `tail_models`.
        distinct: as in `tail_models`.

    A distance D_i errs by at most 2.74 b_i delta for relative errors delta of the eigenvalues.
    """
    rule = correction, least_excess, distinct
    return BestFit(*_best_fit(x, logs, error, min_tail, two_sided, rule))


class Closest(NamedTuple):
    """The tail whose power law is closest to it.

    start, distance: the smallest index among those with the least D, and D; -1 and 2.0 without a
    candidate. evaluations: model survivals computed, approximate ones included. floors: (n,) a deviation
    of each candidate times n_i, or inf where D was computed or there is no candidate; for `count_within`.
    """

    start: int
    distance: float
    evaluations: int
    floors: NDArray[np.float64]


def closest_tail(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], *, min_tail: int, two_sided: bool
) -> Closest:
    """Find the tail start whose power law is closest to its own tail in Kolmogorov-Smirnov distance.

    Args:
        logs: (n,) float64, non-decreasing natural logs of the sample.
        exponents: (n,) float64, alpha_i - 1; not positive, not finite or NaN where i is no candidate.
        min_tail: least number of points of a tail, so that i <= n - min_tail.
        two_sided: the true KS distance; otherwise the lower step of the sample only.

    Returns:
        A Closest whose start and distance are bit-identical to brute force over the same deviations.

    Cost: O(n^2) survivals at worst, 2 n to 13 n measured from n = 1024, nearly all without exp; O(n)
    memory. Source of the objective: Clauset, Shalizi and Newman 2009, equation 3.9.
    """
    return Closest(*_search(logs, exponents, len(logs) - min_tail, two_sided))


def count_within(
    logs: NDArray[np.float64],
    exponents: NDArray[np.float64],
    limits: NDArray[np.float64],
    floors: NDArray[np.float64],
    *,
    min_tail: int,
    two_sided: bool,
) -> int:
    """Count the candidates i with D_i <= limits_i.

    Args:
        logs: as in `closest_tail`.
        exponents: as in `closest_tail`.
        limits: (n,) float64.
        floors: what `closest_tail` returned for the same sample; zeros give the same count slowly.
        min_tail: as in `closest_tail`.
        two_sided: as in `closest_tail`.

    With limits_i = best + slack_best + slack_i, slack being a bound on the error of each D_i, the count
    is that of the candidates which an error of the sample could make the winner, the winner included.
    Cost: one comparison for every candidate whose floor exceeds its limit, a scan of its tail for others.
    """
    return _count_within(logs, exponents, limits, floors, len(logs) - min_tail, two_sided)


def tail_models(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    *,
    correction: float = 0.0,
    least_excess: float = 0.0,
    distinct: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum every tail of an ascending sample and take the maximum-likelihood exponent of each.

    Args:
        x: (n,) float64, ascending, positive.
        logs: (n,) float64, natural logs of x, any constant apart; made non-decreasing in place.
        correction: what is taken from n_i in the exponent.
        least_excess: a tail at or below it has no exponent.
        distinct: only the first of equal values has an exponent.

    Returns:
        (T, b): T_i = sum over j >= i of ln(x_j / x_i), and b_i = (n_i - correction) / T_i or 0. Cost:
        one pass. Source: Clauset, Shalizi and Newman 2009, equation 3.1.
    """
    return _tail_models(x, logs, correction, least_excess, distinct)
