"""Compiled: eight float64 numbers side by side, one for each of eight columns or eight problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanner.spectra.simd import filling, inlined, loading_rows, storing_rows, total

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from scanner.spectra.simd import Vector

LANES = 8

all_of = filling(LANES)
"""The same number in every lane."""
row: Callable[[NDArray[np.float64], int], Vector] = loading_rows(LANES)
"""The eight numbers a[i]."""
set_row = storing_rows(LANES)
"""Put eight numbers at a[i]."""


@inlined
def dot(x: NDArray[np.float64], y: NDArray[np.float64], blocks: int) -> float:
    """The sum of products of the first blocks of eight."""
    eight = all_of(0.0)
    for c in range(blocks):
        eight += row(x, c) * row(y, c)
    found: float = total(eight)
    return found
