"""Compiled: eigenvalues of symmetric tridiagonal matrices, sixteen matrices at once.

The root-free QL iteration of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue Problem, 8.15), which
is also LAPACK's dsterf. Each rotation waits for the one before it, so that one matrix leaves a processor idle
for most of the time; what two registers hold takes little more than one. Every lane has a place, a shift and
an end of its own, and its numbers do not depend on its company.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba.core import types

from scanner.spectra.aligned import zeros
from scanner.spectra.simd import (
    WIDE_REGISTERS,
    both,
    compiled,
    either,
    exceeds,
    filling,
    inlined,
    loading_rows,
    reaches,
    storing_rows,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

LANES = 16 if WIDE_REGISTERS else 8
_all_of, _all_at = filling(LANES), filling(LANES, types.int64)
_row, _places, _set_row = loading_rows(LANES), loading_rows(LANES, types.int64), storing_rows(LANES)

_EPS2 = float(np.finfo(np.float64).eps) ** 2
_FAINT = 1e-8
"""An off-diagonal element below 1e-4 eps of the largest diagonal one is none."""

_MOST_SWEEPS = 40
"""Sweeps for each eigenvalue; all but contrived matrices take 1.8."""


@inlined
def _faint(d: NDArray[np.float64], e: NDArray[np.float64], i: int, lane: int, least: float) -> bool:
    small: bool = e[i, lane] <= _EPS2 * (abs(d[i, lane] * d[i + 1, lane]) + least)
    return small


@inlined
def _advance(
    d: NDArray[np.float64], e: NDArray[np.float64], ends: NDArray[np.int64], least: float, lane: int
) -> float:
    """Leave out what a lane has found at both ends of its part, and return its shift."""
    first, last = ends[0, lane], ends[1, lane]
    while first < last and _faint(d, e, first, lane, least):
        e[first, lane] = 0.0
        first += 1
    while first < last and _faint(d, e, last - 1, lane, least):
        last -= 1
        e[last, lane] = 0.0
    ends[0, lane], ends[1, lane] = first, last
    if first == last:
        return 0.0
    root = math.sqrt(e[first, lane])
    z = (d[first + 1, lane] - d[first, lane]) / (2.0 * root)
    shift: float = d[first, lane] - root / (z + math.copysign(math.sqrt(z * z + 1.0), z))
    return shift


@inlined
def _sweep(
    d: NDArray[np.float64],
    e: NDArray[np.float64],
    first: Any,
    last: Any,
    start: int,
    stop: int,
    shift: Vector,
) -> None:
    """One QL sweep from place `start` up to `stop`; a lane changes its part, `first` to `last`, alone."""
    nothing, one = _all_of(0.0), _all_of(1.0)
    c, s = one, nothing
    gamma = _row(d, start) - shift
    p = gamma * gamma
    for step in range(start - stop):
        i = start - 1 - step
        b, alpha = _row(e, i), _row(d, i)
        r, rotates, follows = p + b, exceeds(b, nothing), exceeds(p, nothing)
        begun = reaches(_all_at(i), first)
        touched = both(reaches(_all_at(i + 1), first), reaches(last, _all_at(i + 1)))
        _set_row(e, i + 1, either(touched, s * r, _row(e, i + 1)))
        inverse = one / r
        before, old = c, gamma
        c, s = either(rotates, p * inverse, one), either(rotates, b * inverse, nothing)
        gamma = c * (alpha - shift) - s * old
        found = old + either(begun, alpha - gamma, shift)
        _set_row(d, i + 1, either(touched, found, _row(d, i + 1)))
        square = gamma * gamma
        rotated = either(follows, square * (r / p), before * b)
        p = either(rotates, rotated, square)
    at_end = reaches(_all_at(stop), first)
    _set_row(e, stop, either(at_end, s * p, _row(e, stop)))
    _set_row(d, stop, either(at_end, shift + gamma, _row(d, stop)))


@inlined
def _solve_lanes(d: NDArray[np.float64], e: NDArray[np.float64], least: NDArray[np.float64]) -> bool:
    """Sweep until every lane has found all of its eigenvalues; (M, lanes) in place."""
    ends, shift = np.zeros((2, LANES), np.int64), np.empty((1, LANES))
    ends[1] = len(d) - 1
    for _ in range(_MOST_SWEEPS * len(d)):
        start, stop = 0, len(d) - 1
        for lane in range(LANES):
            shift[0, lane] = _advance(d, e, ends, least[lane], lane)
            if ends[0, lane] < ends[1, lane]:
                start, stop = max(start, ends[1, lane]), min(stop, ends[0, lane])
        if start <= stop:
            return True
        _sweep(d, e, _places(ends, 0), _places(ends, 1), start, stop, _row(shift, 0))
    return False


@compiled("boolean(float64[:, ::1], float64[:, ::1])")
def solve_tridiagonals(diagonals: NDArray[np.float64], squares: NDArray[np.float64]) -> bool:
    """Eigenvalues of k matrices of side M, unsorted, in place of `diagonals` (k, M); False if one resists.

    `squares` (k, M): the squares of the off-diagonal elements, the last of each 0. Cost about 1.8 M sweeps of
    M/2 rotations for each sixteen. Error a few eps of the norm, as dsterf's.
    """
    count, side = diagonals.shape
    d, e, least = zeros(side, LANES), zeros(side, LANES), np.empty(LANES)
    for start in range(0, count, LANES):
        for lane in range(LANES):
            of = min(start + lane, count - 1)
            least[lane] = 0.0
            for i in range(side):
                d[i, lane], e[i, lane] = diagonals[of, i], squares[of, i]
                least[lane] = max(least[lane], _FAINT * d[i, lane] ** 2)
        if not _solve_lanes(d, e, least):
            return False
        for lane in range(min(LANES, count - start)):
            for i in range(side):
                diagonals[start + lane, i] = d[i, lane]
    return True
