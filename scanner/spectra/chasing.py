"""Compiled: symmetric band matrices made tridiagonal, which keeps their eigenvalues.

A sweep clears a column below the element under its diagonal by a reflection of rows, H = 1 - tau u u^T; what
that fills in beyond the band is pushed along it, block after block, to the end (Schwarz, Numer. Math. 12,
1968). Of each block that is filled only the first column is cleared, for the next sweep comes one column
later (Bischof, Lang & Sun, ACM TOMS 26, 2000).

Element (i, j) of the matrix lies at i stride + j of flat memory, which holds a row's part within two bands
left of the diagonal, and so each block below the diagonal is an ordinary matrix. Columns are taken by eight;
what lies beside a block meets zeros of the vectors, and blocks of eight on the diagonal are whole, both
triangles of them.
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

    Numbers = NDArray[np.float64]
    """Flat, or by eight as (count, 8), which is the same memory."""
    Vectors = tuple[Numbers, Numbers, Numbers, Numbers]
    """By eight: u of this block, x of the next, y and z."""

_NOTHING = 1e-60
"""A column of this squared norm, beside a largest diagonal element of .5 to 1, is zero."""

_ROWS = 4


@inlined
def _blocks(lead: int, count: int) -> int:
    """Blocks of eight that `count` numbers cover which begin `lead` after the start of one."""
    return (lead + count + LANES - 1) // LANES


@inlined
def _keep_only(x: Numbers, lead: int, count: int) -> None:
    """Set to zero what is beside the `count` numbers from `lead` on."""
    for i in range(lead):
        x[i] = 0.0
    for i in range(lead + count, _blocks(lead, count) * LANES):
        x[i] = 0.0


@inlined
def _reflection(u: Numbers, lead: int, count: int) -> tuple[float, float]:
    """Make u of the column in its place: H moves it all into its first element, returned with tau."""
    square = 0.0
    for i in range(lead, lead + count):
        square += u[i] * u[i]
    if square <= _NOTHING or count == 1:
        kept: float = u[lead]
        for i in range(lead, lead + count):
            u[i] = 0.0
        return kept, 0.0
    end = -math.copysign(math.sqrt(square), u[lead])
    tau = 1.0 / (end * (end - u[lead]))
    u[lead] -= end
    return end, tau


@inlined
def _times_lower(a: Numbers, at: int, stride: int, rows: int, u: Numbers, us: Numbers, p: Numbers) -> None:
    """P + D u by its lower triangle; D is whole where it meets the diagonal. As in householder.py."""
    ps = p.reshape(-1)
    for i in range(0, rows, _ROWS):
        r0 = at + i * stride
        r1, r2, r3 = r0 + stride, r0 + 2 * stride, r0 + 3 * stride
        u0, u1, u2, u3 = all_of(us[i]), all_of(us[i + 1]), all_of(us[i + 2]), all_of(us[i + 3])
        t0 = t1 = t2 = t3 = all_of(0.0)
        last = i // LANES
        for c in range(last):
            x0, x1, x2, x3 = row(a, r0 + c), row(a, r1 + c), row(a, r2 + c), row(a, r3 + c)
            uc = row(u, c)
            t0, t1, t2, t3 = t0 + x0 * uc, t1 + x1 * uc, t2 + x2 * uc, t3 + x3 * uc
            set_row(p, c, row(p, c) + (x0 * u0 + x1 * u1) + (x2 * u2 + x3 * u3))
        uc = row(u, last)
        ps[i] += total(t0 + row(a, r0 + last) * uc)
        ps[i + 1] += total(t1 + row(a, r1 + last) * uc)
        ps[i + 2] += total(t2 + row(a, r2 + last) * uc)
        ps[i + 3] += total(t3 + row(a, r3 + last) * uc)


@inlined
def _minus_products(
    a: Numbers, at: int, stride: int, rows: int, columns: int, x: Numbers, z: Numbers, y: Numbers, u: Numbers
) -> None:
    """B - x z^T - y u^T for x and y of rows, z and u of columns; with no `columns`, the lower triangle."""
    for i in range(0, rows, _ROWS):
        r0 = at + i * stride
        r1, r2, r3 = r0 + stride, r0 + 2 * stride, r0 + 3 * stride
        x0, x1, x2, x3 = all_of(x[i]), all_of(x[i + 1]), all_of(x[i + 2]), all_of(x[i + 3])
        y0, y1, y2, y3 = all_of(y[i]), all_of(y[i + 1]), all_of(y[i + 2]), all_of(y[i + 3])
        for c in range(columns if columns else i // LANES + 1):
            zc, uc = row(z, c), row(u, c)
            set_row(a, r0 + c, row(a, r0 + c) - x0 * zc - y0 * uc)
            set_row(a, r1 + c, row(a, r1 + c) - x1 * zc - y1 * uc)
            set_row(a, r2 + c, row(a, r2 + c) - x2 * zc - y2 * uc)
            set_row(a, r3 + c, row(a, r3 + c) - x3 * zc - y3 * uc)


@inlined
def _both_sides(
    a: Numbers, at: int, stride: int, lead: int, count: int, tau: float, u: Numbers, p: Numbers
) -> None:
    """D becomes H D H = D - u w^T - w u^T for w = p - (tau/2)(p . u) u, p = tau D u."""
    blocks = _blocks(lead, count)
    rows = _blocks(lead, count) * LANES
    us, ps = u.reshape(-1), p.reshape(-1)
    for c in range(blocks):
        set_row(p, c, all_of(0.0))
    _times_lower(a, at, stride, rows, u, us, p)
    _keep_only(ps, lead, count)
    half, of_p = all_of(0.5 * tau * tau * dot(p, u, blocks)), all_of(tau)
    for c in range(blocks):
        set_row(p, c, of_p * row(p, c) - half * row(u, c))
    _minus_products(a, at, stride, rows, 0, us, p, ps, u)


@inlined
def _times(
    a: Numbers, at: int, stride: int, rows: int, columns: int, u: Numbers, factor: float, y: Numbers
) -> None:
    """Y = factor B u."""
    for i in range(0, rows, _ROWS):
        r0 = at + i * stride
        r1, r2, r3 = r0 + stride, r0 + 2 * stride, r0 + 3 * stride
        t0 = t1 = t2 = t3 = all_of(0.0)
        for c in range(columns):
            uc = row(u, c)
            t0, t1 = t0 + row(a, r0 + c) * uc, t1 + row(a, r1 + c) * uc
            t2, t3 = t2 + row(a, r2 + c) * uc, t3 + row(a, r3 + c) * uc
        y[i], y[i + 1] = factor * total(t0), factor * total(t1)
        y[i + 2], y[i + 3] = factor * total(t2), factor * total(t3)


@inlined
def _times_from_left(
    a: Numbers, at: int, stride: int, rows: int, columns: int, x: Numbers, z: Numbers
) -> None:
    """Z = B^T x."""
    for c in range(columns):
        set_row(z, c, all_of(0.0))
    for i in range(0, rows, _ROWS):
        r0 = at + i * stride
        r1, r2, r3 = r0 + stride, r0 + 2 * stride, r0 + 3 * stride
        x0, x1, x2, x3 = all_of(x[i]), all_of(x[i + 1]), all_of(x[i + 2]), all_of(x[i + 3])
        for c in range(columns):
            two = row(a, r0 + c) * x0 + row(a, r1 + c) * x1
            set_row(z, c, row(z, c) + two + (row(a, r2 + c) * x2 + row(a, r3 + c) * x3))


@inlined
def _mirror(numbers: Numbers, at: int, stride: int, low: int, below: int) -> None:
    """Make the block of eight whole that lies astride the last `low` columns of B and the rows under D."""
    for i in range(low, min(low + below, LANES)):
        for j in range(low):
            numbers[(at + j * stride) * LANES + i] = numbers[(at + i * stride) * LANES + j]


@inlined
def _push_on(
    a: Numbers, at: int, stride: int, lead: int, count: int, below: int, tau: float, vectors: Vectors
) -> float:
    """B, the `below` rows under D, becomes G B H; G, in place of x, clears its first column. Returns G's tau.

    B H = B - y u^T with y = tau B u, and G B H = B - y u^T - x z^T with z = tau' (B^T x - (x . y) u).
    """
    u, x, y, z = vectors
    xs, ys, zs = x.reshape(-1), y.reshape(-1), z.reshape(-1)
    columns = _blocks(lead, count)
    low = (lead + count) % LANES
    blocks = _blocks(low, below)
    rows, down = blocks * LANES, at + (lead + count - low) * stride
    _times(a, down, stride, rows, columns, u, tau, ys)
    _keep_only(ys, low, below)
    first, numbers = u.reshape(-1)[lead], a.reshape(-1)
    for c in range(len(x)):
        set_row(x, c, all_of(0.0))
    for i in range(low, low + below):
        xs[i] = numbers[(down + i * stride) * LANES + lead] - ys[i] * first
    end, next_tau = _reflection(xs, low, below)
    _times_from_left(a, down, stride, rows, columns, xs, z)
    of_u, of_z = all_of(dot(x, y, blocks)), all_of(next_tau)
    for c in range(columns):
        set_row(z, c, of_z * (row(z, c) - of_u * row(u, c)))
    _keep_only(zs, lead, count)
    _minus_products(a, down, stride, rows, columns, xs, z, ys, u)
    numbers[(down + low * stride) * LANES + lead] = end
    _mirror(numbers, down + (lead + count - low) // LANES, stride, low, below)
    return next_tau


@inlined
def _first_column(numbers: Numbers, j: int, count: int, stride: int, u: Numbers) -> tuple[float, float]:
    """Make u of the `count` elements below the diagonal's, and return what is kept of them and tau."""
    lead = (j + 1) % LANES
    u[:] = 0.0
    for i in range(count):
        u[lead + i] = numbers[(j + 1 + i) * stride * LANES + j]
    return _reflection(u, lead, count)


@inlined
def _unfolded(band: Numbers, scale: float, stride: int) -> Numbers:
    """The memory of the matrix, by eight, with a band [j, d] = (j + d, j) in it."""
    side, width = band.shape
    rows = _blocks(0, side) * LANES
    a = zeros(rows * stride + rows // LANES, LANES)
    numbers = a.reshape(-1)
    for j in range(side):
        for i in range(j, min(j + width, side)):
            numbers[i * stride * LANES + j] = band[j, i - j] * scale
            if i // LANES == j // LANES:
                numbers[j * stride * LANES + i] = band[j, i - j] * scale
    return a


@compiled("void(float64[:, ::1], float64, float64[::1], float64[::1])")
def chase(band: Numbers, scale: float, diagonal: Numbers, squares: Numbers) -> None:
    """A band (M, b + 1), [j, d] its element (j + d, j), times `scale`, made tridiagonal.

    `diagonal` and `squares` are (M,): of the off-diagonal elements the squares, the last of them 0. Cost
    6 M^2 b flops, memory 16 M (b + 8) bytes.
    """
    side, b = len(band), band.shape[1] - 1
    stride, blocks = _blocks(2 * LANES, 2 * b), _blocks(LANES, b)
    a = _unfolded(band, scale, stride)
    numbers = a.reshape(-1)
    u, x, y, z = zeros(blocks, LANES), zeros(blocks, LANES), zeros(blocks, LANES), zeros(blocks, LANES)
    for j in range(side):
        diagonal[j] = numbers[j * stride * LANES + j]
        first, count = j + 1, min(b, side - j - 1)
        end, tau = _first_column(numbers, j, count, stride, u.reshape(-1)) if count else (0.0, 0.0)
        squares[j] = end * end
        while count:
            lead = first % LANES
            at = (first - lead) * stride + first // LANES
            _both_sides(a, at, stride, lead, count, tau, u, z)
            below = min(b, side - first - count)
            if below:
                tau = _push_on(a, at, stride, lead, count, below, tau, (u, x, y, z))
                u, x = x, u
            first, count = first + count, below
