"""Compiled: symmetric matrices of small and middle side made tridiagonal, which keeps their eigenvalues.

For each column a reflection H = 1 - tau u u^T clears what lies below the subdiagonal, and the rest becomes
A - v w^T - w v^T with v = u, p = tau A u, w = p - (tau/2)(p . u) u (Golub & Van Loan, Matrix Computations,
8.3.1). The update of one step and the product A u of the next are made in one pass over the lower triangle,
where LAPACK's dsytrd makes two. Up to side `LANES_TO_SIDE` eight matrices are reduced side by side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

from scanner.spectra.eight import (
    LANES,
    all_of,
    in_lanes,
    inlined,
    minus,
    minus_product,
    plus,
    plus_product,
    reflection,
    row,
    set_row,
    times,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANES_TO_SIDE = 192
"""Beyond it eight matrices outgrow the caches, and one at a time is as fast (measured 2026-11)."""

# Sums may be taken in any order here: no result depends on the last bits.
_compiled = numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")


@_compiled
def _two_rows(
    r: NDArray[np.float64],
    s: NDArray[np.float64],
    at_r: tuple[float, float, float],
    at_s: tuple[float, float, float],
    v: NDArray[np.float64],
    w: NDArray[np.float64],
    u: NDArray[np.float64],
    p: NDArray[np.float64],
) -> tuple[float, float]:
    """Two rows updated, and what they add to p = A u: at the columns in place, at the rows returned."""
    vr, wr, ur = at_r
    vs, ws, us = at_s
    of_r = of_s = 0.0
    for c in range(len(r)):
        x = r[c] - (vr * w[c] + wr * v[c])
        y = s[c] - (vs * w[c] + ws * v[c])
        r[c], s[c] = x, y
        of_r += x * u[c]
        of_s += y * u[c]
        p[c] += x * ur + y * us
    return of_r, of_s


@_compiled
def reduce_one(a: NDArray[np.float64], diagonal: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
    """One matrix (M, M), whose lower triangle is overwritten, into `diagonal` and `squares`, (M,) each.

    `squares` holds the squares of the off-diagonal elements and a last 0. Cost 4/3 M^3 flops.
    """
    side = len(a)
    v, w, u, p = np.zeros(side), np.zeros(side), np.zeros(side), np.zeros(side)
    for j in range(side):
        diagonal[j] = a[j, j] - 2.0 * v[j] * w[j]
        squares[j] = 0.0
        if j == side - 1:
            break
        next_, size = j + 1, side - j - 1
        v_, w_, u_, p_ = v[next_:], w[next_:], u[next_:], p[next_:]
        for i in range(size):
            u_[i], p_[i] = a[next_ + i, j] - (v[j] * w_[i] + w[j] * v_[i]), 0.0
            squares[j] += u_[i] * u_[i]
        end = -math.copysign(math.sqrt(squares[j]), u_[0])
        tau = end * (end - u_[0])
        tau = 1.0 / tau if tau > 0.0 else 0.0
        u_[0] -= end
        if size % 2:
            a[next_, next_] -= 2.0 * v_[0] * w_[0]
            p_[0] += a[next_, next_] * u_[0]
        for i in range(size % 2, size, 2):
            k = next_ + i
            r, s = a[k, next_:k], a[k + 1, next_:k]
            at_r, at_s = (v_[i], w_[i], u_[i]), (v_[i + 1], w_[i + 1], u_[i + 1])
            of_r, of_s = _two_rows(r, s, at_r, at_s, v_, w_, u_, p_)
            a[k, k] -= 2.0 * v_[i] * w_[i]
            a[k + 1, k] -= v_[i + 1] * w_[i] + w_[i + 1] * v_[i]
            a[k + 1, k + 1] -= 2.0 * v_[i + 1] * w_[i + 1]
            p_[i] += of_r + a[k, k] * u_[i] + a[k + 1, k] * u_[i + 1]
            p_[i + 1] += of_s + a[k + 1, k] * u_[i] + a[k + 1, k + 1] * u_[i + 1]
        dot = 0.0
        for i in range(size):
            p_[i] *= tau
            dot += p_[i] * u_[i]
        for i in range(size):
            v_[i], w_[i] = u_[i], p_[i] - 0.5 * tau * dot * u_[i]


@inlined
def _reduce_eight(a: NDArray[np.float64], d: NDArray[np.float64], e: NDArray[np.float64]) -> None:
    """Eight matrices (M, M, 8), overwritten, into d and e, (M, 8) each, in the steps of `reduce_one`."""
    side = len(a)
    v, w = np.zeros((side, LANES)), np.zeros((side, LANES))
    u, p = np.zeros((side, LANES)), np.zeros((side, LANES))
    for j in range(side):
        vj, wj = row(v, j), row(w, j)
        set_row(d, j, minus_product(minus_product(row(a[j], j), vj, wj), vj, wj))
        square = all_of(0.0)
        for i in range(j + 1, side):
            x = minus_product(minus_product(row(a[i], j), vj, row(w, i)), wj, row(v, i))
            square = plus_product(square, x, x)
            set_row(u, i, x)
            set_row(p, i, all_of(0.0))
        set_row(e, j, square)
        if j == side - 1:
            break
        end, tau = reflection(square, row(u, j + 1))
        set_row(u, j + 1, minus(row(u, j + 1), end))
        for i in range(j + 1, side):
            vi, wi, ui, of_row = row(v, i), row(w, i), row(u, i), all_of(0.0)
            for c in range(j + 1, i):
                x = minus_product(minus_product(row(a[i], c), vi, row(w, c)), wi, row(v, c))
                set_row(a[i], c, x)
                of_row = plus_product(of_row, x, row(u, c))
                set_row(p, c, plus_product(row(p, c), x, ui))
            x = minus_product(minus_product(row(a[i], i), vi, wi), wi, vi)
            set_row(a[i], i, x)
            set_row(p, i, plus(row(p, i), plus_product(of_row, x, ui)))
        dot = all_of(0.0)
        for i in range(j + 1, side):
            set_row(p, i, times(row(p, i), tau))
            dot = plus_product(dot, row(p, i), row(u, i))
        half = times(times(dot, tau), all_of(0.5))
        for i in range(j + 1, side):
            set_row(v, i, row(u, i))
            set_row(w, i, minus_product(row(p, i), half, row(u, i)))


@in_lanes("void(float64[:, :, ::1], float64[::1], float64[:, ::1], float64[:, ::1])")
def reduce_eights(
    matrices: NDArray[np.float64],
    scales: NDArray[np.float64],
    diagonals: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """All of (k, M, M), each times its scale, into `diagonals` and `squares`, (k, M) each; see reduce_one."""
    count, side = diagonals.shape
    a = np.empty((side, side, LANES))
    d, e = np.empty((side, LANES)), np.empty((side, LANES))
    for start in range(0, count, LANES):
        for lane in range(LANES):
            of = min(start + lane, count - 1)
            for i in range(side):
                for c in range(i + 1):
                    a[i, c, lane] = matrices[of, i, c] * scales[of]
        _reduce_eight(a, d, e)
        for lane in range(min(LANES, count - start)):
            for i in range(side):
                diagonals[start + lane, i], squares[start + lane, i] = d[i, lane], e[i, lane]
