"""Compiled: the reflections that make a tall panel triangular, for registers that hold eight numbers.

Q = 1 - V T V^T (Schreiber & Van Loan, SIAM J. Sci. Stat. Comput. 10, 1989). Sixteen columns are cleared one
after the other while they lie near: one pass over the rows applies a column's reflection to those beside it
and makes the next column's products with them. What is right of the sixteen follows by products of matrices,
and so do the products of the columns of V, which give T.

Panels are rows in flat memory, `b` numbers each; b and the number of rows are multiples of 16.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scanner.spectra.products import WIDTH, add_sums, sixteen, sums_of
from scanner.spectra.simd import compiled, filling, inlined, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

    Flat = NDArray[np.float64]
    Matrix = NDArray[np.float64]

_NOTHING = 1e-60
"""A column of this squared norm, beside a largest element of .5 to 1, is zero."""

_ROWS = 8
_APIECE = 32
"""Rows whose products are summed alone, as round-off adds up over a column of equal numbers."""
_DEPTH = 256
"""The same for products of matrices."""
_all_of = filling(WIDTH)


@inlined
def _step(p: Flat, place: int, k: int, factor: float, w: Vector) -> Vector:
    """A row less w times its number k."""
    x: Vector = sixteen(p, place) - _all_of(p[place + k] * factor) * w
    store(p, np.uintp(place), x)
    return x


@inlined
def _pass(p: Flat, places: range, b: int, k: int, factor: float, w: Flat, then: int, dots: Flat) -> None:
    """Take w times column k from rows that begin at `places`; `dots`: their products with column `then`."""
    of_w, found = sixteen(w, 0), _all_of(0.0)
    whole = places.start + len(places) // _APIECE * _APIECE * b
    for start in range(places.start, whole, _APIECE * b):
        t0 = t1 = t2 = t3 = _all_of(0.0)
        for place in range(start, start + _APIECE * b, 4 * b):
            x0, x1 = _step(p, place, k, factor, of_w), _step(p, place + b, k, factor, of_w)
            x2, x3 = _step(p, place + 2 * b, k, factor, of_w), _step(p, place + 3 * b, k, factor, of_w)
            t0, t1 = t0 + _all_of(p[place + then]) * x0, t1 + _all_of(p[place + b + then]) * x1
            t2, t3 = t2 + _all_of(p[place + 2 * b + then]) * x2, t3 + _all_of(p[place + 3 * b + then]) * x3
        found += (t0 + t1) + (t2 + t3)
    for place in range(whole, places.stop, b):
        x0 = _step(p, place, k, factor, of_w)
        found += _all_of(p[place + then]) * x0
    store(dots, np.uintp(0), found)


@inlined
def _reflection(first: float, square: float) -> tuple[float, float, float]:
    """What a column becomes, tau, and the factor of the numbers below its first, of this sum of squares."""
    if square <= _NOTHING:
        return first, 0.0, 0.0
    end = -math.copysign(math.sqrt(first * first + square), first)
    return end, (end - first) / end, 1.0 / (first - end)


@inlined
def _clear(p: Flat, rows: int, b: int, first: int, taus: Flat) -> None:
    """Make sixteen columns R above and, below the diagonal, V."""
    w, dots, factors = np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH)
    end = rows * b
    _pass(p, range((first + 1) * b + first, end, b), b, 0, 0.0, w, 0, dots)
    for k in range(WIDTH):
        place = (first + k) * b + first
        p[place + k], taus[first + k], factors[k] = _reflection(p[place + k], dots[k])
        w[k] = 0.0
        for j in range(k + 1, WIDTH):
            w[j] = taus[first + k] * (p[place + j] + factors[k] * dots[j])
            p[place + j] -= w[j]
        if k + 1 < WIDTH:
            below = place + b
            _step(p, below, k, factors[k], sixteen(w, 0))
            _pass(p, range(below + b, end, b), b, k, factors[k], w, k + 1, dots)
    for i in range(first, first + WIDTH):
        for k in range(i - first):
            p[i * b + first + k] *= factors[k]
    for place in range((first + WIDTH) * b + first, end, b):
        store(p, np.uintp(place), sixteen(p, place) * sixteen(factors, 0))


@inlined
def _take_out(p: Flat, b: int, first: int, start: int, stop: int, r: Matrix) -> None:
    """Move these columns of sixteen rows, on and above the diagonal, to R; V has 1 and 0 there."""
    for i in range(first, first + WIDTH):
        for j in range(max(i, start), stop):
            r[i, j] = p[i * b + j]
            p[i * b + j] = 1.0 if i == j else 0.0


@inlined
def _products(p: Flat, rows: int, b: int, first: int, g: Matrix) -> None:
    """Of sixteen columns of V with the panel."""
    for start in range(first, rows, _DEPTH):
        depth = min(_DEPTH, rows - start)
        for j in range(0, b, WIDTH):
            for k in range(first, first + WIDTH, _ROWS):
                found = sums_of(p, start * b + k, 1, b, p, start * b + j, b, depth)
                add_sums(g.reshape(-1), k * b + j, b, found)


@inlined
def _extend(t: Matrix, first: int, taus: Flat, g: Matrix) -> None:
    """Sixteen columns of T, from the products g of those of V with all before them."""
    for k in range(first, first + WIDTH):
        t[k, k] = taus[k]
        for i in range(k):
            found = 0.0
            for j in range(i, k):
                found += t[i, j] * g[k, j]
            t[i, k] = -taus[k] * found


@inlined
def _follow(p: Flat, rows: int, b: int, first: int, t: Matrix, g: Matrix, z: Matrix) -> None:
    """Apply the reflections of sixteen columns, of products g with the panel, to those right of them."""
    right = first + WIDTH
    z[:] = 0.0
    for m in range(WIDTH):
        for k in range(m, WIDTH):
            for j in range(right, b):
                z[k, j] -= t[first + m, first + k] * g[first + m, j]
    for i in range(first, rows, _ROWS):
        for j in range(right, b, WIDTH):
            add_sums(p, i * b + j, b, sums_of(p, i * b + first, b, 1, z.reshape(-1), j, b, WIDTH))


@compiled("void(float64[:, ::1], float64[:, ::1], float64[:, ::1])")
def reflect(panel: Matrix, t: Matrix, r: Matrix) -> None:
    """V in place of a panel (rows, b), largest element .5 to 1; T and R (b, b), upper triangles.

    The panel was (1 - V T V^T) R. Cost 4 b^2 flops a row.
    """
    rows, b = panel.shape
    p, g, z, taus = panel.reshape(-1), np.zeros((b, b)), np.zeros((WIDTH, b)), np.zeros(b)
    t[:], r[:] = 0.0, 0.0
    for first in range(0, b, WIDTH):
        _clear(p, rows, b, first, taus)
        _take_out(p, b, first, first, first + WIDTH, r)
        _products(p, rows, b, first, g)
        _extend(t, first, taus, g)
        _follow(p, rows, b, first, t, g, z)
        _take_out(p, b, first, first + WIDTH, b, r)
