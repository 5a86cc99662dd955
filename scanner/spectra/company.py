"""Compiled: eight symmetric matrices of one side made tridiagonal at once, a matrix in each lane.

The reflections of householder.py, whose rows are too short at small sides to keep a vector busy. With a
matrix in each lane every vector is full and no sum runs across lanes. The lower triangles lie packed, row
after row; of the last four rows those that no matrix has are zeros.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scanner.spectra.aligned import zeros
from scanner.spectra.eight import LANES, all_of, row, set_row
from scanner.spectra.householder import NOTHING, update
from scanner.spectra.simd import compiled, inlined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

    Vectors = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    """v, w, u and p of every lane, (rows, 8)."""

_ROWS = 4
"""Rows of one pass: they share the loads of u, v, w and p, and leave room in 32 registers."""


@inlined
def _start(i: int) -> int:
    """Where row i of a packed triangle begins."""
    return i * (i + 1) // 2


@inlined
def _copy(matrices: NDArray[np.float64], scales: NDArray[np.float64], a: NDArray[np.float64]) -> None:
    """The lower triangles of (8, M, M), each times its scale."""
    for i in range(matrices.shape[1]):
        for c in range(i + 1):
            for lane in range(LANES):
                a[_start(i) + c, lane] = matrices[lane, i, c] * scales[lane]


@inlined
def _next_row(a: NDArray[np.float64], j: int, vectors: Vectors, diagonal: NDArray[np.float64]) -> Vector:
    """Row j brought up to date, its diagonal element at diagonal[0], the rest in u; its squared norm."""
    v, w, u, _ = vectors
    vj, wj = row(v, j), row(w, j)
    square: Vector = all_of(0.0)
    for c in range(j):
        x = row(a, _start(j) + c) - vj * row(w, c) - wj * row(v, c)
        square += x * x
        set_row(u, c, x)
    set_row(diagonal, 0, row(a, _start(j) + j) - vj * wj - wj * vj)
    return square


@inlined
def _corner(a: NDArray[np.float64], i: int, vectors: Vectors) -> None:
    """As `_pass`, of the columns that are rows of the pass too."""
    v, w, u, p = vectors
    for k in range(i, i + _ROWS):
        vk, wk, uk, t = row(v, k), row(w, k), row(u, k), row(p, k)
        for c in range(i, k):
            x = update(a, _start(k) + c, vk, wk, row(v, c), row(w, c))
            t += x * row(u, c)
            set_row(p, c, row(p, c) + x * uk)
        set_row(p, k, t + update(a, _start(k) + k, vk, wk, vk, wk) * uk)


@inlined
def _pass(a: NDArray[np.float64], i: int, vectors: Vectors) -> None:
    """Rows i to i + 3 brought up to date, and their part of A u in p, at their columns and at the rows."""
    v, w, u, p = vectors
    v0, v1, v2, v3 = row(v, i), row(v, i + 1), row(v, i + 2), row(v, i + 3)
    w0, w1, w2, w3 = row(w, i), row(w, i + 1), row(w, i + 2), row(w, i + 3)
    u0, u1, u2, u3 = row(u, i), row(u, i + 1), row(u, i + 2), row(u, i + 3)
    r0, r1, r2, r3 = _start(i), _start(i + 1), _start(i + 2), _start(i + 3)
    t0 = t1 = t2 = t3 = all_of(0.0)
    for c in range(i):
        vc, wc, uc = row(v, c), row(w, c), row(u, c)
        x0, x1 = update(a, r0 + c, v0, w0, vc, wc), update(a, r1 + c, v1, w1, vc, wc)
        x2, x3 = update(a, r2 + c, v2, w2, vc, wc), update(a, r3 + c, v3, w3, vc, wc)
        t0, t1 = t0 + x0 * uc, t1 + x1 * uc
        t2, t3 = t2 + x2 * uc, t3 + x3 * uc
        set_row(p, c, row(p, c) + (x0 * u0 + x1 * u1) + (x2 * u2 + x3 * u3))
    set_row(p, i, t0)
    set_row(p, i + 1, t1)
    set_row(p, i + 2, t2)
    set_row(p, i + 3, t3)
    _corner(a, i, vectors)


@inlined
def _next_update(j: int, rows: int, tau: Vector, vectors: Vectors) -> None:
    """The vectors v and w of these reflections, from u and p = A u."""
    v, w, u, p = vectors
    inner = all_of(0.0)
    for c in range(j):
        inner += row(p, c) * row(u, c)
    half = all_of(0.5) * tau * tau * inner
    for c in range(j):
        set_row(v, c, row(u, c))
        set_row(w, c, tau * row(p, c) - half * row(u, c))
    for c in range(j, rows):
        set_row(v, c, all_of(0.0))
        set_row(w, c, all_of(0.0))


@inlined
def _reflect(last: NDArray[np.float64], square: NDArray[np.float64], tau: NDArray[np.float64]) -> None:
    """The tau of each lane, from the squared norm of its row and the last element, which becomes u's."""
    for lane in range(LANES):
        end = -math.copysign(math.sqrt(square[lane]), last[lane])
        tau[lane] = 1.0 / (end * (end - last[lane])) if square[lane] > NOTHING else 0.0
        square[lane] = square[lane] if square[lane] > NOTHING else 0.0
        last[lane] -= end


@inlined
def _reduce(a: NDArray[np.float64], side: int, vectors: Vectors, found: NDArray[np.float64]) -> None:
    """Eight matrices, overwritten; v and w are zeros. `found` (2, side, 8): diagonals and squares."""
    u, tau = vectors[2], zeros(1, LANES)
    for step in range(side):
        j = side - 1 - step
        square = _next_row(a, j, vectors, found[0, step:])
        set_row(found[1], step, square)
        if j == 0:
            return
        _reflect(u[j - 1], found[1, step], tau[0])
        for c in range(j, len(u)):
            set_row(u, c, all_of(0.0))
        for i in range(0, j, _ROWS):
            _pass(a, i, vectors)
        _next_update(j, len(u), row(tau, 0), vectors)


@compiled("void(float64[:, :, ::1], float64[::1], float64[:, ::1], float64[:, ::1])")
def reduce_in_company(
    matrices: NDArray[np.float64],
    scales: NDArray[np.float64],
    diagonals: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """As householder.reduce_matrices, for a multiple of eight matrices; 32 M^2 bytes."""
    count, side = diagonals.shape
    rows = -(-side // _ROWS) * _ROWS
    a, found = zeros(_start(rows), LANES), zeros(2 * side, LANES).reshape(2, side, LANES)
    v, w, u, p = zeros(rows, LANES), zeros(rows, LANES), zeros(rows, LANES), zeros(rows, LANES)
    for first in range(0, count, LANES):
        _copy(matrices[first : first + LANES], scales[first : first + LANES], a)
        v[:], w[:] = 0.0, 0.0
        _reduce(a, side, (v, w, u, p), found)
        for lane in range(LANES):
            for i in range(side):
                diagonals[first + lane, i] = found[0, i, lane]
                squares[first + lane, i] = found[1, i, lane]
