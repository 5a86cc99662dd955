"""Compiled: eight float64 numbers side by side, one for each of eight columns or eight problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba.core import types

from scanner.spectra.simd import exceeds, filling, inlined, loading, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

LANES = 8

all_of = filling(LANES)
"""The same number in every lane."""
all_at = filling(LANES, types.int64)
"""The same place in every lane."""
_load, _load_places = loading(LANES), loading(LANES, types.int64)


@inlined
def row(a: NDArray[np.float64], i: int) -> Vector:
    """The eight numbers a[i]."""
    found: Vector = _load(a, np.uintp(i * LANES))
    return found


@inlined
def places(a: NDArray[np.int64], i: int) -> Any:
    """The eight places a[i]."""
    return _load_places(a, np.uintp(i * LANES))


@inlined
def set_row(a: NDArray[np.float64], i: int, x: Vector) -> None:
    """Put eight numbers at a[i]."""
    store(a, np.uintp(i * LANES), x)


@inlined
def positive(x: Vector) -> Any:
    """Where x > 0."""
    return exceeds(x, all_of(0.0))
