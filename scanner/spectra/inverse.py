"""Compiled: inverse iteration to the least singular pair of a square matrix whose others are known.

A step x <- (W^T W)^-1 x - x / lambda_j makes the vector of the least eigenvalue grow (Golub & Van Loan,
Matrix Computations, 8.2.2) and takes out that of another one, lambda_j, so that after a few steps little is
left of any but the least. Views of a few numbers would cost more than the sums over them.
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
def _solve(rows: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    """Put (L L^T)^-1 x in place of x, given the rows of L."""
    n = len(x)
    for k in range(n):
        row, total = rows[k], 0.0
        for i in range(k):
            total += row[i] * x[i]
        x[k] = (x[k] - total) / row[k]
    for j in range(n):
        k = n - 1 - j
        row = rows[k]
        x[k] = known = x[k] / row[k]
        for i in range(k):
            x[i] -= known * row[i]


@_compiled
def _norm(x: NDArray[np.float64]) -> float:
    square = 0.0
    for i in range(len(x)):
        square += x[i] * x[i]
    return math.sqrt(square)


@_compiled
def _residual(matrix: NDArray[np.float64], v: NDArray[np.float64]) -> tuple[float, float]:
    """Singular value s = |W v| for a unit vector v, and the residual |W^T u - s v| where W v = s u."""
    n = len(v)
    image, back = np.zeros(n), np.zeros(n)
    for i in range(n):
        row, total = matrix[i], 0.0
        for j in range(n):
            total += row[j] * v[j]
        image[i] = total
        for j in range(n):
            back[j] += total * row[j]
    least = _norm(image)
    for j in range(n):
        back[j] = back[j] / least - least * v[j]
    return least, _norm(back)


@_compiled
def closer(
    matrix: NDArray[np.float64],
    rows: NDArray[np.float64],
    evals: NDArray[np.float64],
    x: NDArray[np.float64],
) -> tuple[float, float]:
    """Turn x into a unit vector nearer to the least right singular one; return what `_residual` says of it.

    `rows` are those of L, where W^T W = L L^T; `evals` the least eigenvalues of W^T W, ascending. Cost M^2
    multiplications for each of `evals`.
    """
    for j in range(1, len(evals) + 1):
        ratio = evals[0] / evals[j] if j < len(evals) else 0.0
        before = ratio * x
        _solve(rows, x)
        x *= evals[0]
        x -= before
    x /= _norm(x)
    return _residual(matrix, x)
