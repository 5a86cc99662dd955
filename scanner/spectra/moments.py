"""Moments of a matrix's entries, gathered while its blocks pass by."""

from dataclasses import dataclass
from math import isfinite
from typing import Self

import numpy as np
from numba import njit

from schemas.results import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Entries of one matrix: counts, mean, population std, largest magnitude and excess kurtosis.

    With a NaN or Inf among them only `count` and `num_nonfinite` mean anything, the rest is None;
    `kurtosis` is None when std is 0 or its square leaves float64.
    """

    count: int
    num_nonfinite: int
    zero_frac: float | None = None
    mean: float | None = None
    std: float | None = None
    abs_max: float | None = None
    kurtosis: float | None = None


class MomentsAccumulator:
    """Adds float64 blocks of any shape; power sums about the first block's mean, so no cancellation."""

    __slots__ = ("_count", "_nonfinite", "_pivot", "_sums")

    def __init__(self) -> None:
        self._count = 0
        self._nonfinite = 0
        self._pivot: float | None = None
        self._sums = np.zeros(6)

    @classmethod
    def summed(cls, count: int, num_nonfinite: int, pivot: float, sums: FloatArray) -> Self:
        """The accumulator after `count` entries whose sums were taken elsewhere.

        `sums` (6,): the first four powers of entry - pivot, the largest magnitude, the number of zeros.
        """
        found = cls()
        found._count, found._nonfinite, found._pivot = count, num_nonfinite, pivot
        found._sums[:] = sums
        return found

    def add(self, block: FloatArray) -> None:
        """Account for every entry of a C-contiguous float64 block. Cost: about 1 ns an entry."""
        flat = block.reshape(-1)
        if self._pivot is None:
            mean = float(flat[:4096].mean()) if flat.size else 0.0
            self._pivot = mean if np.isfinite(mean) else 0.0
        self._count += flat.size
        self._nonfinite += _accumulate(flat, self._pivot, self._sums)

    def result(self) -> Moments:
        """Return the moments of everything added so far."""
        n = self._count
        if self._nonfinite or n == 0:
            return Moments(count=n, num_nonfinite=self._nonfinite)
        s1, s2, s3, s4, abs_max, zeros = self._sums
        shift = s1 / n
        with np.errstate(over="ignore", invalid="ignore"):
            variance = max(s2 / n - shift**2, 0.0)
        return Moments(
            count=n,
            num_nonfinite=0,
            zero_frac=float(zeros / n),
            mean=float((self._pivot or 0.0) + shift),
            std=float(np.sqrt(variance)),
            abs_max=float(abs_max),
            kurtosis=_kurtosis(shift, variance, s2 / n, s3 / n, s4 / n),
        )


def _kurtosis(shift: float, variance: float, m2: float, m3: float, m4: float) -> float | None:
    """Excess kurtosis from moments about the pivot; None where std is 0 or fourth powers leave float64."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        fourth = m4 - 4 * shift * m3 + 6 * shift**2 * m2 - 3 * shift**4
        kurtosis = float(np.float64(fourth) / np.float64(variance) ** 2 - 3)
    return kurtosis if isfinite(kurtosis) else None


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _power_sums(x: FloatArray, pivot: float, sums: FloatArray) -> None:
    s1 = s2 = s3 = s4 = 0.0
    top = sums[4]
    zeros = 0
    for value in x:
        d = value - pivot
        q = d * d
        s1 += d
        s2 += q
        s3 += q * d
        s4 += q * q
        top = max(top, abs(value))
        zeros += value == 0.0
    sums[0] += s1
    sums[1] += s2
    sums[2] += s3
    sums[3] += s4
    sums[4] = top
    sums[5] += zeros


def _accumulate(x: FloatArray, pivot: float, sums: FloatArray) -> int:
    before = sums.copy()
    _power_sums(x, pivot, sums)
    if np.isfinite(sums[:4]).all():
        return 0
    nonfinite = int(x.size - np.count_nonzero(np.isfinite(x)))
    sums[:] = before if nonfinite else sums
    return nonfinite
