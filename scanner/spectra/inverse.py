"""Compiled: the least singular pair of a square matrix, whose other singular values are known, by inverse iteration.

Each step x <- (W^T W)^-1 x - x / lambda_j also takes out the vector of another eigenvalue lambda_j, so that
after a few of them little is left of any but the least (Golub & Van Loan, Matrix Computations, 8.2.1, with the
shifts of a polynomial filter). Columns are read as they lie in memory, one after the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sums in any order, which makes them vector code.
_compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


@_compiled
def _solve(factors: NDArray[np.float64], pivots: NDArray[np.int32], x: NDArray[np.float64]) -> None:
    """Put A^-1 x in place of x, given the factors of A, a column of L U in each row."""
    for k in range(len(x)):
        x[k], x[pivots[k]] = x[pivots[k]], x[k]
    for k in range(len(x)):
        known = x[k]
        for i in range(k + 1, len(x)):
            x[i] -= known * factors[k, i]
    for k in range(len(x) - 1, -1, -1):
        known = x[k] / factors[k, k]
        x[k] = known
        for i in range(k):
            x[i] -= known * factors[k, i]


@_compiled
def _solve_transposed(factors: NDArray[np.float64], pivots: NDArray[np.int32], x: NDArray[np.float64]) -> None:
    """Put A^-T x in place of x."""
    for k in range(len(x)):
        total = 0.0
        for i in range(k):
            total += factors[k, i] * x[i]
        x[k] = (x[k] - total) / factors[k, k]
    for k in range(len(x) - 1, -1, -1):
        total = 0.0
        for i in range(k + 1, len(x)):
            total += factors[k, i] * x[i]
        x[k] -= total
    for k in range(len(x) - 1, -1, -1):
        x[k], x[pivots[k]] = x[pivots[k]], x[k]


@_compiled
def _normalise(x: NDArray[np.float64]) -> float:
    square = 0.0
    for i in range(len(x)):
        square += x[i] * x[i]
    norm = math.sqrt(square)
    for i in range(len(x)):
        x[i] /= norm
    return norm


@_compiled
def _residual(matrix: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[float, float]:
    """s = |W v| for a unit vector v, and the residual |W^T u - s v| where W v = s u."""
    u, beside = np.empty(len(v)), np.zeros(len(v))
    for i in range(len(v)):
        total = 0.0
        for j in range(len(v)):
            total += matrix[i, j] * v[j]
        u[i] = total
    least = _normalise(u)
    for i in range(len(v)):
        weight = u[i]
        for j in range(len(v)):
            beside[j] += weight * matrix[i, j]
    square = 0.0
    for j in range(len(v)):
        square += (beside[j] - least * v[j]) ** 2
    return least, math.sqrt(square)


@_compiled
def closer(
    matrix: NDArray[np.float64],
    factors: NDArray[np.float64],
    pivots: NDArray[np.int32],
    evals: NDArray[np.float64],
    x: NDArray[np.float64],
) -> tuple[float, float]:
    """Turn x towards the least right singular vector v of W; s = |W v| and the residual of W^T u = s v.

    `factors` and `pivots` are LAPACK's of the transpose of W, transposed; `evals` the least lambda, ascending.
    Cost 4 M^2 multiplications for each of `evals`.
    """
    before = np.empty_like(x)
    for j in range(1, len(evals) + 1):
        ratio = evals[0] / evals[j] if j < len(evals) else 0.0
        before[:] = x
        _solve(factors, pivots, x)
        _solve_transposed(factors, pivots, x)
        for i in range(len(x)):
            x[i] = evals[0] * x[i] - ratio * before[i]
    _normalise(x)
    return _residual(matrix, x)
