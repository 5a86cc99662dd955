"""Compiled: products of large matrices, for registers that hold eight numbers (simd.WIDE_REGISTERS).

One kernel holds 8 x 16 sums in sixteen registers while it goes along the inner dimension: 114 of the 116
GF/s that one core of a Zen 5 has, where OpenBLAS's dgemm reaches 89, its dsyrk 83 and its dsymm 55.

Matrices are rows in flat memory, `stride` numbers apart; sides are multiples of 16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scanner.spectra.simd import compiled, fetch, filling, inlined, loading, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

    Flat = NDArray[np.float64]
    Sums = tuple[Vector, Vector, Vector, Vector, Vector, Vector, Vector, Vector]

WIDTH = 16
_ROWS = 8
_LINE = 8
"""Numbers of a line of the cache."""
_TILE = 96
"""Side of the part of a matrix that is used twice while it is near: 0.07 MB."""
_NEAR = 1 << 16
"""Numbers of the left factor that stay near while the right one goes by: 0.5 MB."""

_all_of, _load = filling(WIDTH), loading(WIDTH)


@inlined
def sixteen(a: Flat, place: int) -> Vector:
    """The sixteen numbers from a flat place on."""
    found: Vector = _load(a, np.uintp(place))
    return found


@inlined
def sums_of(
    x: Flat, place: int, across: int, along: int, y: Flat, start: int, stride: int, depth: int
) -> Sums:
    """Sum over r < depth of x[place + l across + r along] y[start + r stride + (0..15)], for l = 0..7."""
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = _all_of(0.0)
    step, further = np.uintp(across), np.uintp(along)
    at = np.uintp(place)
    for r in range(depth):
        z = sixteen(y, start + r * stride)
        t0 += _all_of(x[at]) * z
        t1 += _all_of(x[at + step]) * z
        t2 += _all_of(x[at + np.uintp(2) * step]) * z
        t3 += _all_of(x[at + np.uintp(3) * step]) * z
        t4 += _all_of(x[at + np.uintp(4) * step]) * z
        t5 += _all_of(x[at + np.uintp(5) * step]) * z
        t6 += _all_of(x[at + np.uintp(6) * step]) * z
        t7 += _all_of(x[at + np.uintp(7) * step]) * z
        at += further
    return t0, t1, t2, t3, t4, t5, t6, t7


@inlined
def _expect(a: Flat, place: int, stride: int, width: int) -> None:
    """Have eight rows of a matrix come near before they are needed: a twentieth off each product."""
    for i in range(_ROWS):
        for j in range(0, width, _LINE):
            fetch(a, np.uintp(place + i * stride + j))


@inlined
def _plus(a: Flat, place: int, x: Vector) -> None:
    store(a, np.uintp(place), sixteen(a, place) + x)


@inlined
def add_sums(a: Flat, place: int, stride: int, t: Sums) -> None:
    """Add 8 x 16 sums to a matrix."""
    _plus(a, place, t[0])
    _plus(a, place + stride, t[1])
    _plus(a, place + 2 * stride, t[2])
    _plus(a, place + 3 * stride, t[3])
    _plus(a, place + 4 * stride, t[4])
    _plus(a, place + 5 * stride, t[5])
    _plus(a, place + 6 * stride, t[6])
    _plus(a, place + 7 * stride, t[7])


@compiled("void(float64[::1], int64, int64, int64, float64[:, :, ::1], float64[:, :, ::1])")
def add_product(
    a: Flat, origin: int, stride: int, side: int, left: NDArray[np.float64], right: NDArray[np.float64]
) -> None:
    """A += L R^T in the lower triangle, for a product that is symmetric; A of `side` begins at `origin`.

    L and R are packed as (side/16, depth, 16). What is right beside the diagonal is overwritten too. Of R 16
    rows stay in the first cache while L comes from the second.
    """
    depth = left.shape[1]
    x, y = left.reshape(-1), right.reshape(-1)
    near = max(_NEAR // (depth * WIDTH), 1) * WIDTH
    for top in range(0, side, near):
        end = min(top + near, side)
        for j in range(0, end, WIDTH):
            for i in range(max(top, j), end, _ROWS):
                to = origin + i * stride + j
                _expect(a, to, stride, WIDTH)
                place = i // WIDTH * WIDTH * depth + i % WIDTH
                add_sums(a, to, stride, sums_of(x, place, 1, WIDTH, y, j * depth, WIDTH, depth))


@inlined
def _mirror(a: Flat, place: int, stride: int, side: int) -> None:
    """Copy the lower triangle of a square part to its upper one."""
    for i in range(side):
        for j in range(i):
            a[place + j * stride + i] = a[place + i * stride + j]


@compiled("void(float64[::1], int64, int64, float64[:, ::1], float64[:, ::1])")
def symmetric_product(
    a: Flat, origin: int, stride: int, v: NDArray[np.float64], found: NDArray[np.float64]
) -> None:
    """A V for the symmetric A given by its lower triangle and V (side, b), b a multiple of 16, into `found`.

    A begins at `origin`. Each part of A is read once, for its rows and for its columns.
    """
    side, b = v.shape
    y, x = v.reshape(-1), found.reshape(-1)
    x[:] = 0.0
    for left in range(0, side, _TILE):
        width = min(_TILE, side - left)
        _mirror(a, origin + left * stride + left, stride, width)
        for top in range(left, side, _TILE):
            height = min(_TILE, side - top)
            tile = origin + top * stride + left
            for i in range(0, height, _ROWS):
                _expect(a, tile + (i + _ROWS) * stride, stride, width)
                for c in range(0, b, WIDTH):
                    t = sums_of(a, tile + i * stride, stride, 1, y, left * b + c, b, width)
                    add_sums(x, (top + i) * b + c, b, t)
            if top == left:
                continue
            for j in range(0, width, _ROWS):
                for c in range(0, b, WIDTH):
                    t = sums_of(a, tile + j, 1, stride, y, top * b + c, b, height)
                    add_sums(x, (left + j) * b + c, b, t)


@compiled("void(float64[:, :, ::1], float64[:, :, ::1])")
def slice_products(slices: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    """Add X^T X of each slice X to `found`, as `add_product` does; (k, depth, side), side at most 128."""
    count, depth, side = slices.shape
    x, a = slices.reshape(-1), found.reshape(-1)
    for s in range(count):
        first, origin = s * depth * side, s * side * side
        for i in range(0, side, _ROWS):
            for j in range(0, i + _ROWS, WIDTH):
                t = sums_of(x, first + i, 1, side, x, first + j, side, depth)
                add_sums(a, origin + i * side + j, side, t)


@inlined
def _number(matrix: NDArray[np.float64], i: int, j: int) -> float:
    """An element; beyond the matrix is 0."""
    found: float = matrix[i, j] if i < matrix.shape[0] and j < matrix.shape[1] else 0.0
    return found


@compiled("void(float64[:, ::1], float64[:, :, ::1], int64, float64)")
def pack_rows(matrix: NDArray[np.float64], packed: NDArray[np.float64], start: int, factor: float) -> None:
    """Packed[i // 16, start + k, i % 16] = factor matrix[i, k], as factors of `add_product` are laid out."""
    rows, depth = matrix.shape
    to = packed.reshape(-1)
    for row in range(len(packed) * WIDTH):
        place = (row // WIDTH * packed.shape[1] + start) * WIDTH + row % WIDTH
        for k in range(depth):
            to[place + k * WIDTH] = factor * matrix[row, k] if row < rows else 0.0


@compiled("void(float64[:, ::1], float64[:, :, ::1])")
def pack_columns(matrix: NDArray[np.float64], packed: NDArray[np.float64]) -> None:
    """Packed[j // 16, k, j % 16] = matrix[k, j]."""
    depth, to = len(matrix), packed.reshape(-1)
    for g in range(len(packed)):
        for k in range(depth):
            for j in range(WIDTH):
                to[(g * depth + k) * WIDTH + j] = _number(matrix, k, g * WIDTH + j)
