"""Compiled: eigenvalues of symmetric tridiagonal matrices, eight matrices at once.

The root-free QL iteration of Pal, Walker and Kahan (Parlett, The Symmetric Eigenvalue Problem, 8.15), which
is also LAPACK's dsterf. Each rotation waits for the one before it, so that one matrix leaves a processor idle
for most of the time; eight side by side take little more than one. Every lane has a place, a shift and an end
of its own, and its numbers do not depend on its company.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scanner.spectra.eight import (
    LANES,
    all_of,
    either,
    from_on,
    in_lanes,
    inlined,
    inverse,
    minus,
    minus_product,
    plus,
    positive,
    row,
    set_row,
    times,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scanner.spectra.eight import Eight, Places

_EPS2 = float(np.finfo(np.float64).eps) ** 2
_FAINT = 1e-8
"""An off-diagonal element below 1e-4 eps of the largest diagonal one is none."""

_MOST_SWEEPS = 40
"""Sweeps for each eigenvalue; all but contrived matrices take 1.8."""


@inlined
def _advance(
    d: NDArray[np.float64],
    e: NDArray[np.float64],
    first: NDArray[np.int64],
    faint: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> int:
    """Take every lane past what it has found, and choose its shift; returns the least place of all."""
    last = len(d) - 1
    least = last
    for lane in range(LANES):
        i = first[lane]
        while i < last and e[i, lane] <= _EPS2 * (abs(d[i, lane] * d[i + 1, lane]) + faint[lane]):
            e[i, lane] = 0.0
            i += 1
        first[lane], shift[0, lane] = i, 0.0
        least = min(least, i)
        if i < last:
            root = math.sqrt(e[i, lane])
            z = (d[i + 1, lane] - d[i, lane]) / (2.0 * root)
            shift[0, lane] = d[i, lane] - root / (z + math.copysign(math.sqrt(z * z + 1.0), z))
    return least


@inlined
def _sweep(d: NDArray[np.float64], e: NDArray[np.float64], first: Places, shift: Eight, least: int) -> None:
    """One QL sweep from the end up to each lane's place; above that place a lane changes nothing."""
    c, s = all_of(1.0), all_of(0.0)
    gamma = minus(row(d, len(d) - 1), shift)
    p = times(gamma, gamma)
    for step in range(len(d) - 1 - least):
        i = len(d) - 2 - step
        b, alpha = row(e, i), row(d, i)
        r = plus(p, b)
        below, here = from_on(i + 1, first), from_on(i, first)
        set_row(e, i + 1, either(below, times(s, r), row(e, i + 1)))
        before, old = c, gamma
        c = either(positive(r), times(p, inverse(r)), all_of(1.0))
        s = times(b, inverse(r))
        gamma = minus_product(times(c, minus(alpha, shift)), s, old)
        found = plus(old, either(here, minus(alpha, gamma), shift))
        set_row(d, i + 1, either(below, found, row(d, i + 1)))
        p = either(positive(p), times(times(gamma, gamma), times(r, inverse(p))), times(before, b))
    ends = from_on(least, first)
    set_row(e, least, either(ends, times(s, p), row(e, least)))
    set_row(d, least, either(ends, plus(shift, gamma), row(d, least)))


@inlined
def _solve_eight(
    d: NDArray[np.float64],
    e: NDArray[np.float64],
    first: NDArray[np.int64],
    faint: NDArray[np.float64],
    shift: NDArray[np.float64],
) -> bool:
    """Sweep until every lane has found all of its eigenvalues; (M, 8) in place."""
    for _ in range(_MOST_SWEEPS * len(d)):
        least = _advance(d, e, first, faint, shift)
        if least == len(d) - 1:
            return True
        f = first
        places = (f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7])
        _sweep(d, e, places, row(shift, 0), least)
    return False


@in_lanes("boolean(float64[:, ::1], float64[:, ::1])")
def solve_tridiagonals(diagonals: NDArray[np.float64], squares: NDArray[np.float64]) -> bool:
    """Eigenvalues of k matrices of side M, unsorted, in place of `diagonals` (k, M); False if one resists.

    `squares` (k, M), overwritten: the squares of the off-diagonal elements, the last of each 0. Cost about
    1.8 M sweeps of M/2 rotations for each eight. Error a few eps of the norm, as dsterf's.
    """
    count, side = diagonals.shape
    d, e = np.empty((side, LANES)), np.empty((side, LANES))
    first, faint, shift = np.empty(LANES, np.int64), np.empty(LANES), np.empty((1, LANES))
    for start in range(0, count, LANES):
        for lane in range(LANES):
            of = min(start + lane, count - 1)
            most = 0.0
            for i in range(side):
                d[i, lane], e[i, lane] = diagonals[of, i], squares[of, i]
                most = max(most, abs(d[i, lane]))
            first[lane], faint[lane] = 0, _FAINT * most * most
        if not _solve_eight(d, e, first, faint, shift):
            return False
        for lane in range(min(LANES, count - start)):
            for i in range(side):
                diagonals[start + lane, i] = d[i, lane]
    return True
