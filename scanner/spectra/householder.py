"""Compiled: symmetric matrices made tridiagonal, which keeps their eigenvalues.

From the last row up, a reflection H = 1 - tau u u^T clears a row but for its diagonal and the element before
it, and what lies above becomes A - v w^T - w v^T with v = u, p = tau A u, w = p - (tau/2)(p . u) u (Golub &
Van Loan, Matrix Computations, 8.3.1). The update of one step and the product A u of the next are made in
one pass over the lower triangle, where LAPACK's dsytrd makes two.

Rows are cut into blocks of eight columns; those on the diagonal are kept whole, both triangles of them, so
that every load is one of eight numbers. What lies beyond the part still to be reduced holds leftovers, which
meet zeros of u, v and w.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scanner.spectra.aligned import zeros
from scanner.spectra.eight import LANES, all_of, dot, row, set_row
from scanner.spectra.simd import compiled, inlined, total

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

    Vectors = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    """v, w, u and p, as blocks (blocks, 8) or, in the same memory, as numbers."""

NOTHING = 1e-60
"""A row of this squared norm, beside a largest diagonal element of .5 to 1, is zero."""

_ROWS = 4
"""Rows of one pass: they share the loads of u, v, w and p, and leave room in 32 registers."""


@inlined
def _copy(matrix: NDArray[np.float64], scale: float, a: NDArray[np.float64]) -> None:
    """The lower triangle of a matrix, and the blocks on its diagonal whole, times `scale`."""
    for i in range(len(matrix)):
        for c in range(i + 1):
            a[i, c] = matrix[i, c] * scale
        for c in range(i - i % LANES, i):
            a[c, i] = a[i, c]


@inlined
def _clear(x: NDArray[np.float64], start: int, stop: int) -> None:
    for i in range(start, stop):
        x[i] = 0.0


@inlined
def _next_row(r: NDArray[np.float64], j: int, used: int, blocks: Vectors, numbers: Vectors) -> float:
    """Row j brought up to date into u, but for its diagonal element, which is returned; p begins at 0."""
    v, w, u, p = blocks
    vj, wj = all_of(numbers[0][j]), all_of(numbers[1][j])
    for c in range(used):
        set_row(u, c, row(r, c) - vj * row(w, c) - wj * row(v, c))
        set_row(p, c, all_of(0.0))
    found: float = numbers[2][j]
    _clear(numbers[2], j, used * LANES)
    return found


@inlined
def update(r: NDArray[np.float64], c: int, vi: Vector, wi: Vector, vc: Vector, wc: Vector) -> Vector:
    """Eight numbers of a row brought up to date: of eight columns, or of eight matrices."""
    x = row(r, c) - vi * wc - wi * vc
    set_row(r, c, x)
    return x


@inlined
def _pass(a: NDArray[np.float64], i: int, blocks: Vectors, numbers: Vectors) -> None:
    """Rows i to i + 3 brought up to date, and their part of A u in p, both at their columns and at the rows.

    The block on the diagonal, being whole, adds to the rows alone.
    """
    v, w, u, p = blocks
    vs, ws, us, ps = numbers
    v0, v1, v2, v3 = all_of(vs[i]), all_of(vs[i + 1]), all_of(vs[i + 2]), all_of(vs[i + 3])
    w0, w1, w2, w3 = all_of(ws[i]), all_of(ws[i + 1]), all_of(ws[i + 2]), all_of(ws[i + 3])
    u0, u1, u2, u3 = all_of(us[i]), all_of(us[i + 1]), all_of(us[i + 2]), all_of(us[i + 3])
    r0, r1, r2, r3 = a[i], a[i + 1], a[i + 2], a[i + 3]
    t0 = t1 = t2 = t3 = all_of(0.0)
    last = i // LANES
    for c in range(last):
        vc, wc, uc = row(v, c), row(w, c), row(u, c)
        x0, x1 = update(r0, c, v0, w0, vc, wc), update(r1, c, v1, w1, vc, wc)
        x2, x3 = update(r2, c, v2, w2, vc, wc), update(r3, c, v3, w3, vc, wc)
        t0, t1 = t0 + x0 * uc, t1 + x1 * uc
        t2, t3 = t2 + x2 * uc, t3 + x3 * uc
        set_row(p, c, row(p, c) + (x0 * u0 + x1 * u1) + (x2 * u2 + x3 * u3))
    vc, wc, uc = row(v, last), row(w, last), row(u, last)
    ps[i] += total(t0 + update(r0, last, v0, w0, vc, wc) * uc)
    ps[i + 1] += total(t1 + update(r1, last, v1, w1, vc, wc) * uc)
    ps[i + 2] += total(t2 + update(r2, last, v2, w2, vc, wc) * uc)
    ps[i + 3] += total(t3 + update(r3, last, v3, w3, vc, wc) * uc)


@inlined
def _next_update(j: int, used: int, tau: float, blocks: Vectors, numbers: Vectors) -> None:
    """The vectors v and w of this reflection, from u and p = A u."""
    v, w, u, p = blocks
    half, of_p = all_of(0.5 * tau * tau * dot(p, u, used)), all_of(tau)
    for c in range(used):
        set_row(v, c, row(u, c))
        set_row(w, c, of_p * row(p, c) - half * row(u, c))
    _clear(numbers[1], j, used * LANES)


@inlined
def _reduce(
    a: NDArray[np.float64],
    blocks: Vectors,
    numbers: Vectors,
    diagonal: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """One matrix, overwritten; the vectors are zeros."""
    u, us = blocks[2], numbers[2]
    for step in range(len(diagonal)):
        j = len(diagonal) - 1 - step
        used = j // LANES + 1
        diagonal[step] = _next_row(a[j], j, used, blocks, numbers)
        square = dot(u, u, used)
        squares[step] = square if square > NOTHING else 0.0
        if j == 0:
            return
        end = -math.copysign(math.sqrt(square), us[j - 1])
        tau = 1.0 / (end * (end - us[j - 1])) if square > NOTHING else 0.0
        us[j - 1] -= end
        for i in range(0, j, _ROWS):
            _pass(a, i, blocks, numbers)
        _next_update(j, used, tau, blocks, numbers)


@compiled("void(float64[:, :, ::1], float64[::1], float64[:, ::1], float64[:, ::1])")
def reduce_matrices(
    matrices: NDArray[np.float64],
    scales: NDArray[np.float64],
    diagonals: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """All of (k, M, M), each times its scale, by their lower triangles, into tridiagonal form.

    `diagonals` and `squares` are (k, M): of the off-diagonal elements the squares, the last of each 0. The
    first element belongs to the last row. Cost 4/3 M^3 flops each, and 8 M^2 bytes.
    """
    count, side = diagonals.shape
    blocks = (side + LANES - 1) // LANES
    flat = zeros(blocks * LANES, blocks * LANES)
    a = flat.reshape(blocks * LANES, blocks, LANES)
    v, w, u, p = zeros(blocks, LANES), zeros(blocks, LANES), zeros(blocks, LANES), zeros(blocks, LANES)
    vs, ws, us, ps = v.reshape(-1), w.reshape(-1), u.reshape(-1), p.reshape(-1)
    for k in range(count):
        _copy(matrices[k], scales[k], flat)
        _clear(vs, 0, len(vs))
        _clear(ws, 0, len(ws))
        _reduce(a, (v, w, u, p), (vs, ws, us, ps), diagonals[k], squares[k])
