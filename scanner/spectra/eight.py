"""Compiled: arithmetic on eight float64 numbers side by side, one for each of eight problems.

Eight numbers are a tuple, which LLVM keeps in one or two vector registers. Callers are compiled with
`in_lanes`; after a change here delete their caches, for numba watches a function's own file only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Eight = tuple[float, float, float, float, float, float, float, float]
    Flags = tuple[bool, bool, bool, bool, bool, bool, bool, bool]
    Places = tuple[int, int, int, int, int, int, int, int]

LANES = 8

_F = TypeVar("_F", bound=Callable[..., Any])
_FUSED = {"contract"}
"""A product may be fused with a sum; nothing else that IEEE forbids."""

inlined = numba.njit(nogil=True, fastmath=_FUSED, error_model="numpy")
"""For the parts of a function compiled with `in_lanes`."""


def in_lanes(signature: str) -> Callable[[_F], _F]:
    """Compile a function of this `signature` with LLVM's superword vectorizer, which numba leaves off."""

    def compiled(function: _F) -> _F:
        settings: Any = numba.config
        usual, settings.SLP_VECTORIZE = settings.SLP_VECTORIZE, 1
        try:
            jit: Any = numba.njit(signature, cache=True, nogil=True, fastmath=_FUSED, error_model="numpy")
            return cast(_F, jit(function))
        finally:
            settings.SLP_VECTORIZE = usual

    return compiled


@inlined
def all_of(x: float) -> Eight:
    """The same number in every lane."""
    return (x, x, x, x, x, x, x, x)


@inlined
def row(a: NDArray[np.float64], i: int) -> Eight:
    """The eight numbers a[i]."""
    return (a[i, 0], a[i, 1], a[i, 2], a[i, 3], a[i, 4], a[i, 5], a[i, 6], a[i, 7])


@inlined
def places(a: NDArray[np.int64], i: int) -> Places:
    """The eight places a[i]."""
    return (a[i, 0], a[i, 1], a[i, 2], a[i, 3], a[i, 4], a[i, 5], a[i, 6], a[i, 7])


@inlined
def set_row(a: NDArray[np.float64], i: int, x: Eight) -> None:
    """Put eight numbers at a[i]."""
    a[i, 0], a[i, 1], a[i, 2], a[i, 3] = x[0], x[1], x[2], x[3]
    a[i, 4], a[i, 5], a[i, 6], a[i, 7] = x[4], x[5], x[6], x[7]


@inlined
def plus(x: Eight, y: Eight) -> Eight:
    """Sum."""
    return (
        x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3],
        x[4] + y[4], x[5] + y[5], x[6] + y[6], x[7] + y[7],
    )  # fmt: skip


@inlined
def minus(x: Eight, y: Eight) -> Eight:
    """Difference."""
    return (
        x[0] - y[0], x[1] - y[1], x[2] - y[2], x[3] - y[3],
        x[4] - y[4], x[5] - y[5], x[6] - y[6], x[7] - y[7],
    )  # fmt: skip


@inlined
def times(x: Eight, y: Eight) -> Eight:
    """Product."""
    return (
        x[0] * y[0], x[1] * y[1], x[2] * y[2], x[3] * y[3],
        x[4] * y[4], x[5] * y[5], x[6] * y[6], x[7] * y[7],
    )  # fmt: skip


@inlined
def plus_product(t: Eight, x: Eight, y: Eight) -> Eight:
    """Sum of t and x y."""
    return (
        t[0] + x[0] * y[0], t[1] + x[1] * y[1], t[2] + x[2] * y[2], t[3] + x[3] * y[3],
        t[4] + x[4] * y[4], t[5] + x[5] * y[5], t[6] + x[6] * y[6], t[7] + x[7] * y[7],
    )  # fmt: skip


@inlined
def minus_product(t: Eight, x: Eight, y: Eight) -> Eight:
    """Difference of t and x y."""
    return (
        t[0] - x[0] * y[0], t[1] - x[1] * y[1], t[2] - x[2] * y[2], t[3] - x[3] * y[3],
        t[4] - x[4] * y[4], t[5] - x[5] * y[5], t[6] - x[6] * y[6], t[7] - x[7] * y[7],
    )  # fmt: skip


@inlined
def inverse(x: Eight) -> Eight:
    """Of 1 / x, and 1 where x is not positive."""
    y = either(positive(x), x, all_of(1.0))
    return (
        1.0 / y[0], 1.0 / y[1], 1.0 / y[2], 1.0 / y[3],
        1.0 / y[4], 1.0 / y[5], 1.0 / y[6], 1.0 / y[7],
    )  # fmt: skip


@inlined
def positive(x: Eight) -> Flags:
    """Whether x > 0."""
    return (
        x[0] > 0.0, x[1] > 0.0, x[2] > 0.0, x[3] > 0.0,
        x[4] > 0.0, x[5] > 0.0, x[6] > 0.0, x[7] > 0.0,
    )  # fmt: skip


@inlined
def from_on(i: int, first: Places) -> Flags:
    """Whether i has come to each lane's place."""
    return (
        i >= first[0], i >= first[1], i >= first[2], i >= first[3],
        i >= first[4], i >= first[5], i >= first[6], i >= first[7],
    )  # fmt: skip


@inlined
def within(i: int, first: Places, last: Places) -> Flags:
    """Whether first - 1 <= i < last."""
    return (
        first[0] <= i + 1 and i < last[0], first[1] <= i + 1 and i < last[1],
        first[2] <= i + 1 and i < last[2], first[3] <= i + 1 and i < last[3],
        first[4] <= i + 1 and i < last[4], first[5] <= i + 1 and i < last[5],
        first[6] <= i + 1 and i < last[6], first[7] <= i + 1 and i < last[7],
    )  # fmt: skip


@inlined
def either(on: Flags, x: Eight, y: Eight) -> Eight:
    """Of x where `on`, else of y."""
    return (
        x[0] if on[0] else y[0], x[1] if on[1] else y[1], x[2] if on[2] else y[2], x[3] if on[3] else y[3],
        x[4] if on[4] else y[4], x[5] if on[5] else y[5], x[6] if on[6] else y[6], x[7] if on[7] else y[7],
    )  # fmt: skip
