"""What LAPACK must not see, and what it could not solve, as values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import NumericsError
from schemas.results import FailureKind


def require_finite(values: NDArray[np.inexact[Any]]) -> None:
    """LAPACK on NaN may never return, so NaN stops here, as a NumericsError (nonfinite)."""
    if not np.isfinite(values).all():
        raise NumericsError(FailureKind.NONFINITE, "the weights, or their squares, are not finite in float64")


@contextmanager
def solving(what: str, unsolved: type[Exception] = np.linalg.LinAlgError) -> Iterator[None]:
    """Make a NumericsError (eigensolver_error) of what LAPACK could not solve; torch raises its own kind."""
    try:
        yield
    except unsolved as error:
        raise NumericsError(FailureKind.EIGENSOLVER_ERROR, f"{what}: {error}") from error
