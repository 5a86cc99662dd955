"""What LAPACK must not see, and what it could not solve, as values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import NumericsError
from schemas.results import FailureKind

_LOST_MEMORY = ("ALLOC_FAILED", "out of memory", "can't allocate memory", "not enough memory")
"""Handles of CUDA's libraries, their own messages, and CPU tensors of two versions of torch."""


def require_finite(values: NDArray[np.inexact[Any]]) -> None:
    """LAPACK on NaN may never return, so NaN stops here, as a NumericsError (nonfinite)."""
    if not np.isfinite(values).all():
        raise nonfinite()


def nonfinite() -> NumericsError:
    """What to raise for NaN or Inf among the weights or their squares."""
    return NumericsError(FailureKind.NONFINITE, "the weights, or their squares, are not finite in float64")


@contextmanager
def solving(what: str, unsolved: type[Exception] = np.linalg.LinAlgError) -> Iterator[None]:
    """Make a NumericsError (eigensolver_error) of what LAPACK could not solve; torch raises its own kind.

    Raises MemoryError also where torch finds no memory, which it calls a RuntimeError.
    """
    try:
        yield
    except unsolved as error:
        raise NumericsError(FailureKind.EIGENSOLVER_ERROR, f"{what}: {error}") from error
    except RuntimeError as error:
        if not lost_memory(error):
            raise
        raise MemoryError(f"{what}: no memory") from error


def lost_memory(error: RuntimeError) -> bool:
    """Whether it is how torch says that an allocation failed, if not as torch.cuda.OutOfMemoryError."""
    return any(mark in str(error) for mark in _LOST_MEMORY)
