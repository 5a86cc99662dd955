"""Compiled: the certified pruned minimum of the Kolmogorov-Smirnov distance over every xmin.

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
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

from scanner.spectra.candidates import Progress, Room, Sample, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_F = TypeVar("_F", bound="Callable[..., Any]")
_UNCOUNTED: dict[str, Any] = {"_nrt": False}
_NEAR = 2.0**-24
"""Bound on the error of an approximate survival; the polynomial's own is 1.1e-8, a fifth of it."""
_FAR = 32.0
_KEYS = 24
_SEEDS = 4
# Odd, so that it visits every seed; the order is scattered, so that few seeds improve on the ones before.
_SEED_STRIDE = 3
_BLOCK = 256
_STEP = 16
_ABOVE_ANY_DISTANCE = 2.0
_DISTANCE_ERROR = 2.74

# Without fastmath: the certificates need IEEE rounding.
_compiled = numba.njit(nogil=True, cache=True)
_inlined = numba.njit(nogil=True, cache=True, inline="always")


def _lean(kernel: _F) -> _F:
    """For what allocates nothing: to count references to arrays was half the time of a small fit."""
    return cast("_F", numba.njit(nogil=True, cache=True, **_UNCOUNTED)(kernel))


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


@_lean
def _deviation(sample: Sample, i: int, j: int) -> float:
    n = len(sample.logs)
    model = math.exp(-sample.exponents[i] * (sample.logs[j] - sample.logs[i]))
    deviation = abs(model - (n - j) / (n - i))
    if sample.half > 0.0:
        deviation = max(deviation, abs(model - (n - j - 1) / (n - i)))
    return deviation


@_lean
def _largest(values: NDArray[np.float64]) -> tuple[float, int]:
    highest, where = -1.0, 0
    for k in range(len(values)):
        if values[k] > highest:
            highest, where = values[k], k
    return highest, where


@_lean
def _scan(sample: Sample, room: Room, i: int, first: int, stop: int) -> tuple[float, int]:
    """Note the scaled deviations of i at first <= j < stop; return the largest and its j."""
    b, origin, size = sample.exponents[i], sample.logs[i], sample.sizes[i]
    above = float(len(sample.logs) - first) - sample.half
    logs, noted = sample.logs[first:stop], room.deviations[first:stop]
    for k in range(len(logs)):
        noted[k] = abs(_near_survival(b * (logs[k] - origin)) * size - (above - k)) + sample.half
    highest, where = _largest(noted)
    return highest, first + where


@_lean
def _scan_coarse(sample: Sample, room: Room, i: int, first: int) -> tuple[float, int]:
    """Note the scaled survivals at the coarse points from the `first`; return the largest deviation."""
    b, origin, size = sample.exponents[i], sample.logs[i], sample.sizes[i]
    above = float(len(sample.logs) - first * _STEP) - sample.half
    logs, survivals, noted = sample.coarse[first:], room.survivals[first:], room.bounds[first:]
    for k in range(len(logs)):
        survivals[k] = _near_survival(b * (logs[k] - origin)) * size
        noted[k] = abs(survivals[k] - (above - k * _STEP)) + sample.half
    highest, where = _largest(noted)
    return highest, (first + where) * _STEP


@_lean
def _block_bound(sample: Sample, room: Room, block: int) -> float:
    """Bound the scaled deviations in a block of coarse points, from the survivals noted at its ends."""
    above = float(len(sample.logs) - block * _STEP)
    return float(max(room.survivals[block] - (above - _STEP), above - room.survivals[block + 1]))


@_lean
def _scan_blocks(
    sample: Sample, room: Room, i: int, first: int, limit: float, running: tuple[float, int]
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


@_lean
def _exact(sample: Sample, room: Room, i: int, points: range, level: float) -> float:
    """Return the largest deviation among the points whose noted deviation reaches the scaled `level`."""
    highest = -1.0
    for j in points:
        if room.deviations[j] >= level:
            highest = max(highest, _deviation(sample, i, j))
    return highest


@_lean
def _exact_distance(sample: Sample, room: Room, i: int, first: int, level: float) -> float:
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


@_lean
def _judge(sample: Sample, room: Room, i: int, limit: float) -> Verdict:
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
        return Verdict(True, highest, where, evaluations)
    level = highest - 2.0 * _NEAR * size
    return Verdict(False, _exact_distance(sample, room, i, first, level), where, evaluations)


@_lean
def _raise_floors(
    sample: Sample, floors: NDArray[np.float64], first: int, stop: int, j: int, limit: float
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


@_lean
def _to_front(keys: NDArray[np.int64], place: int, key: int) -> None:
    for p in range(place, 0, -1):
        keys[p] = keys[p - 1]
    keys[0] = key


@_lean
def _try_keys(
    sample: Sample,
    floors: NDArray[np.float64],
    keys: NDArray[np.int64],
    block: tuple[int, int],
    progress: Progress,
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


@_lean
def _lowest(sample: Sample, floors: NDArray[np.float64], block: tuple[int, int], limit: float) -> int:
    """Return the candidate of a block with the lowest floor within `limit`, or -1."""
    lowest, where = limit + _NEAR, -1
    for i in range(block[0], block[1]):
        floor = floors[i]
        if floor <= lowest * sample.sizes[i]:
            lowest, where = floor / sample.sizes[i], i
    return where


@_lean
def _settle(
    sample: Sample,
    room: Room,
    floors: NDArray[np.float64],
    keys: NDArray[np.int64],
    block: tuple[int, int],
    progress: Progress,
) -> Progress:
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
    return Progress(best, winner, used, evaluations)


@_lean
def _is_candidate(exponent: float) -> bool:
    return 0.0 < exponent < math.inf


@_compiled
def _prepared(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], two_sided: bool
) -> tuple[Sample, Room]:
    n = len(logs)
    sizes = np.empty(n)
    for i in range(n):
        sizes[i] = float(n - i)
    coarse = logs[::_STEP].copy()
    sample = Sample(logs, exponents, sizes, coarse, 0.5 if two_sided else 0.0)
    return sample, Room(np.empty(len(coarse)), np.empty(len(coarse)), np.empty(n))


@_compiled
def _initial_floors(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    floors = np.empty(len(exponents))
    for i in range(len(floors)):
        floors[i] = 0.0 if _is_candidate(exponents[i]) else math.inf
    return floors


@_compiled
def find_closest(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], last: int, two_sided: bool
) -> tuple[int, float, int, NDArray[np.float64]]:
    """Settle scattered seeds, then blocks of candidates outward from the best seed."""
    sample, room = _prepared(logs, exponents, two_sided)
    floors = _initial_floors(exponents)
    keys = np.empty(_KEYS, dtype=np.int64)
    progress = Progress(_ABOVE_ANY_DISTANCE, -1, 0, 0)
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
def count_close(
    logs: NDArray[np.float64],
    exponents: NDArray[np.float64],
    limits: NDArray[np.float64],
    floors: NDArray[np.float64],
    last: int,
    two_sided: bool,
) -> int:
    """Candidates up to `last` with D_i <= limits_i; `floors` are `find_closest`'s, or zeros (slower)."""
    sample, room = _prepared(logs, exponents, two_sided)
    count = 0
    for i in range(last + 1):
        if math.inf > floors[i] > (limits[i] + _NEAR) * sample.sizes[i] or not _is_candidate(exponents[i]):
            continue
        verdict = _judge(sample, room, i, limits[i])
        if not verdict.refuted and verdict.value <= limits[i]:
            count += 1
    return count


@numba.njit(nogil=True, cache=True, error_model="numpy")
def sum_tails(
    x: NDArray[np.float64], logs: NDArray[np.float64], correction: float, least_excess: float, distinct: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Excess and exponent of every tail; see `search.tail_models`."""
    n = len(x)
    excess, exponents = np.zeros(n), np.zeros(n)
    total, above = 0.0, logs[n - 1] if n else 0.0
    for i in range(n - 2, -1, -1):
        # A vectorised log may break monotony by one ulp.
        log = min(logs[i], above)
        total += (above - log) * (n - i - 1)
        excess[i], logs[i], above = total, log, log
    for i in range(n):
        repeated = distinct and i > 0 and x[i] == x[i - 1]
        if excess[i] > least_excess and not repeated:
            exponents[i] = (n - i - correction) / excess[i]
    return excess, exponents


@_compiled
def fit_closest(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    error: float,
    min_tail: int,
    two_sided: bool,
    rule: tuple[float, float, bool],
) -> tuple[int, float, int, float, float, float]:
    """The winner, its distance and near ties, its b and T, and T of the upper half; see `search.best_fit`."""
    n, top = len(x), x[-1]
    excess, exponents = sum_tails(x, logs, rule[0], rule[1], rule[2])
    start, distance, _, floors = find_closest(logs, exponents, n - min_tail, two_sided)
    if start < 0:
        return start, distance, 0, 0.0, 0.0, excess[n // 2]
    slack = _DISTANCE_ERROR * error * exponents / (x / top)
    limits = distance + slack[start] + slack
    near_ties = count_close(logs, exponents, limits, floors, n - min_tail, two_sided)
    return start, distance, near_ties, exponents[start], excess[start], excess[n // 2]
