"""Large symmetric matrices reduced to a band, which keeps their eigenvalues.

The block below each of the diagonal's blocks is made triangular by reflections, Q = 1 - V T V^T (Schreiber &
Van Loan, SIAM J. Sci. Stat. Comput. 10, 1989), and what lies beyond becomes Q^T A Q = A - V W^T - W V^T with
X = A V T, W = X - V T^T V^T X / 2 (Dongarra, Hammarling & Sorensen, J. Comput. Appl. Math. 27, 1989). Nearly
all is done by products of matrices, where tridiagonal form in one step is half products of a matrix and a
vector, which wait for memory (Bischof, Lang & Sun, ACM TOMS 26, 2000). The band is dealt with in chasing.py.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from scanner.spectra.aligned import APART, aligned
from scanner.spectra.panel import reflect
from scanner.spectra.products import WIDTH, add_product, pack_rows, symmetric_product
from schemas.results import FloatArray

BAND = 64
"""Sub-diagonals that are left. A wider band costs less here and more in chasing.py."""


def band_of(matrix: FloatArray, spent: bool = False) -> FloatArray:
    """The band of a matrix with the eigenvalues of this one, (M, 65): [j, d] is element (j + d, j).

    Of `matrix`, float64 (M, M), the lower triangle is read. Cost 4/3 M^3 flops, memory one more matrix; none
    where it is `spent`, which lets it be overwritten, and M is a multiple of 64.
    """
    side = -(-len(matrix) // BAND) * BAND
    room = matrix if spent and side == len(matrix) else _room(matrix, side)
    stride = room.strides[0] // room.itemsize
    flat = as_strided(room, ((side - 1) * stride + side,), (room.itemsize,))
    band, scale = np.zeros((side, BAND + 1)), np.ldexp(1.0, -np.frexp(np.diagonal(room).max())[1])
    for at in range(0, side - BAND, BAND):
        below = slice(at + BAND, side)
        v, t, r = _reflections(room[below, at : at + BAND], scale)
        _keep(band, at, np.tril(room[at : at + BAND, at : at + BAND]), r)
        origin = (at + BAND) * (stride + 1)
        x = aligned(*v.shape)
        symmetric_product(flat, origin, stride, v, x)
        w = x @ t
        w -= v @ (0.5 * (t.T @ (v.T @ w)))
        add_product(flat, origin, stride, len(v), *_packed(v, w))
    at = side - BAND
    _keep(band, at, np.tril(room[at:, at:]), np.zeros((BAND, BAND)))
    return band[: len(matrix)]


def _room(matrix: FloatArray, side: int) -> FloatArray:
    """A copy with zeros around it, which stay by themselves."""
    room = aligned(side, side + APART)[:, :side]
    room[len(matrix) :] = 0.0
    room[:, len(matrix) :] = 0.0
    room[: len(matrix), : len(matrix)] = matrix
    return room


def _reflections(block: FloatArray, scale: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """V (rows, 64), T and R of block = (1 - V T V^T) R; `scale`, a power of two, brings the block near 1."""
    v, t, r = aligned(*block.shape), np.empty((BAND, BAND)), np.empty((BAND, BAND))
    np.multiply(block, scale, out=v)
    reflect(v, t, r)
    return v, t, r / scale


def _keep(band: FloatArray, at: int, diagonal: FloatArray, below: FloatArray) -> None:
    columns = np.arange(BAND)[:, None]
    band[at : at + BAND] = np.vstack([diagonal, below])[columns + np.arange(BAND + 1), columns]


def _packed(v: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Factors of - V W^T - W V^T."""
    left, right = (aligned(len(v) // WIDTH, 2 * BAND, WIDTH) for _ in range(2))
    pack_rows(v, left, 0, -1.0)
    pack_rows(w, left, BAND, -1.0)
    pack_rows(w, right, 0, 1.0)
    pack_rows(v, right, BAND, 1.0)
    return left, right
