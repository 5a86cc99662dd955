"""The Gram matrix of the short side of X, X^T X or X X^T, added up from blocks along its long side."""

from typing import Protocol

import numpy as np
from numba import njit
from scipy.linalg.blas import dsyrk

from scanner.spectra.aligned import APART, aligned
from scanner.spectra.products import WIDTH, add_product, pack_columns, pack_rows, slice_products
from scanner.spectra.simd import WIDE_REGISTERS
from scanner.spectra.symmetric import LARGE_SIDE
from schemas.results import FloatArray

_PACKED_FROM_SIDE = 192
"""Below this side packing costs what the faster product gains."""
_SMALL_SIDE = 128
"""Up to this side rows of a slice lie near enough together to be taken as they are: 24 us in place of 64."""
_MANY_POSITIONS = 8
"""Positions of a kernel from which numpy, whose inner loop they are, takes half as long again."""
_DEPTH = 256
"""Numbers along the inner dimension of one product: what is packed stays near."""


class Sum(Protocol):
    """A Gram matrix on the way."""

    def add(self, piece: FloatArray) -> None:
        """A C-contiguous float64 block: (depth, side), or (side, depth) of a wide matrix."""

    def lower(self) -> FloatArray:
        """The lower triangle of the sum, float64 (side, side); rows of a large one lie a little apart."""


def summing(side: int, wide: bool) -> Sum:
    """Nothing yet, for blocks of a matrix that is tall or `wide`, by the faster product of this machine."""
    packed = WIDE_REGISTERS and side >= _PACKED_FROM_SIDE
    return PackedSum(side, wide) if packed else BlasSum(side, wide)


def slice_grams(piece: FloatArray, tall: bool) -> FloatArray:
    """Lower triangles of X^T X, or X X^T if not `tall`, of the slices of (o, i, k...), as (k, side, side)."""
    slices = kernel_first(piece, tall)
    side = slices.shape[2]
    if not WIDE_REGISTERS or side % WIDTH or side > _SMALL_SIDE:
        return slices.transpose(0, 2, 1) @ slices
    found = np.zeros((len(slices), side, side))
    slice_products(slices, found)
    return found


def kernel_first(piece: FloatArray, tall: bool = True) -> FloatArray:
    """(o, i, k...) as contiguous (prod k, o, i), or (prod k, i, o) if not `tall`; positions row-major."""
    flat = piece.reshape(*piece.shape[:2], -1)
    rows = flat if tall else flat.transpose(1, 0, 2)
    if rows.shape[2] < _MANY_POSITIONS:
        return np.ascontiguousarray(rows.transpose(2, 0, 1))
    found = np.empty((rows.shape[2], *rows.shape[:2]))
    _copy_kernel_first(rows, found)
    return found


@njit(nogil=True, cache=True)
def _copy_kernel_first(rows: FloatArray, found: FloatArray) -> None:
    for a in range(rows.shape[0]):
        for position in range(rows.shape[2]):
            for b in range(rows.shape[1]):
                found[position, a, b] = rows[a, b, position]


class BlasSum:
    """By the BLAS's dsyrk."""

    def __init__(self, side: int, wide: bool) -> None:
        self._wide = wide
        self._total = np.zeros((side, side), order="F")

    def add(self, piece: FloatArray) -> None:
        """As Sum says."""
        self._total = dsyrk(1.0, piece.T, beta=1.0, c=self._total, trans=int(self._wide), overwrite_c=1)

    def lower(self) -> FloatArray:
        """As Sum says."""
        return np.asarray(self._total.T)


class PackedSum:
    """By our own product (products.py)."""

    def __init__(self, side: int, wide: bool) -> None:
        self._side, self._wide = side, wide
        self._groups = -(-side // WIDTH)
        rows = self._groups * WIDTH
        self._total = aligned(rows, rows + APART * (side >= LARGE_SIDE))
        self._total[:] = 0.0
        self._room = aligned(self._groups * WIDTH * _DEPTH)

    def add(self, piece: FloatArray) -> None:
        """As Sum says."""
        depth = piece.shape[int(self._wide)]
        for start in range(0, depth, _DEPTH):
            part = slice(start, start + _DEPTH)
            self._add(np.ascontiguousarray(piece[:, part]) if self._wide else piece[part])

    def _add(self, part: FloatArray) -> None:
        depth = part.shape[int(self._wide)]
        packed = self._room[: self._groups * depth * WIDTH].reshape(self._groups, depth, WIDTH)
        if self._wide:
            pack_rows(part, packed, 0, 1.0)
        else:
            pack_columns(part, packed)
        side, stride = self._total.shape
        add_product(self._total.reshape(-1), 0, stride, side, packed, packed)

    def lower(self) -> FloatArray:
        """As Sum says."""
        found = self._total[: self._side, : self._side]
        return found if self._side >= LARGE_SIDE else np.ascontiguousarray(found)
