"""How far values lie from their median, and how far such values usually lie: a few outliers move neither."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MAD_TO_SD = 1.4826


def deviations(values: Sequence[float | None]) -> tuple[NDArray[np.float64], float]:
    """Distances of values (n,), n > 0, from their median, and 1.4826 MAD: a Gaussian's standard deviation."""
    found = np.array(values, dtype=np.float64)
    found -= np.median(found)
    return found, _MAD_TO_SD * float(np.median(np.abs(found)))
