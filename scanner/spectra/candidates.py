"""What the compiled search passes from one kernel to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Sample(NamedTuple):
    """logs, exponents, n_i as floats, every `_STEP`-th log, and 1/2 for the two-sided distance, else 0."""

    logs: NDArray[np.float64]
    exponents: NDArray[np.float64]
    sizes: NDArray[np.float64]
    coarse: NDArray[np.float64]
    half: float


class Room(NamedTuple):
    """Scratch of one candidate: scaled survivals at the coarse points, block bounds, deviations."""

    survivals: NDArray[np.float64]
    bounds: NDArray[np.float64]
    deviations: NDArray[np.float64]


class Verdict(NamedTuple):
    """Whether D_i > limit, a scaled deviation (its j is `where`) or else the exact D, and the cost."""

    refuted: bool
    value: float
    where: int
    evaluations: int


class Progress(NamedTuple):
    """Least distance so far, its candidate, keys in use, survivals computed."""

    best: float
    winner: int
    used: int
    evaluations: int
