"""Eigenvalues of positive semidefinite matrices, in two steps that may lie apart.

The first step makes a matrix tridiagonal, by way of a band where it is large, and the second takes little
longer for eight matrices than for one: it pays to let first steps gather. Where registers are narrow large
matrices are torch's, in one step.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from math import frexp, isfinite, ldexp
from typing import TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from scanner.spectra.company import reduce_in_company
from scanner.spectra.eight import LANES
from scanner.spectra.guards import nonfinite, solving
from scanner.spectra.householder import reduce_matrices
from scanner.spectra.rootfree import solve_tridiagonals
from scanner.spectra.simd import WIDE_REGISTERS
from schemas.errors import NumericsError
from schemas.records import record
from schemas.results import FailureKind, FloatArray

LARGE_SIDE = 2049
"""Side from which the one pass of householder.py waits for memory; below it torch is never imported."""

_COMPANY_SIDE = 192
"""Side up to which eight matrices at once take less time than one after the other (side 64: a third)."""


@record(kw_only=False)
class Tridiagonal:
    """k symmetric tridiagonal matrices of side M, each times a power of two that brings it near 1.

    `diagonal` and `squares` are float64 (k, M): the squares of the off-diagonal elements, the last of each 0.
    The eigenvalues wanted are those of these matrices times 2^exponent, (k,).
    """

    diagonal: FloatArray
    squares: FloatArray
    exponent: NDArray[np.int32]


Halfway: TypeAlias = Tridiagonal | FloatArray
"""What the eigenvalues follow from, or the eigenvalues, (k, M)."""

_Scaling: TypeAlias = tuple[NDArray[np.int32], FloatArray]
"""Exponents k, and 2^-k."""

_Reduction: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], None]


def eigenvalues(matrices: FloatArray) -> FloatArray:
    """All eigenvalues, ascending, of positive semidefinite float64 (..., M, M), from their lower triangles.

    Cost 4/3 M^3 flops each. Error a few eps of the largest, as LAPACK's. Raises NumericsError (nonfinite,
    eigensolver_error).
    """
    *stack, side, _ = matrices.shape
    return finished([halfway(np.ascontiguousarray(matrices).reshape(-1, side, side))])[0].reshape(
        *stack, side
    )


def halfway(matrices: FloatArray, spent: bool = False) -> Halfway:
    """The first step for (k, M, M), each given by its lower triangle; memory one more matrix.

    Large ones that are `spent` may be overwritten, and then take no more; their rows may lie apart. Raises
    NumericsError (nonfinite; eigensolver_error where torch is asked).
    """
    scaling = _scaling(matrices)
    if matrices.shape[1] < LARGE_SIDE:
        return _tridiagonal(matrices, scaling, _in_company)
    if WIDE_REGISTERS:
        return _tridiagonal(matrices, scaling, partial(_by_band, spent))
    import torch

    with solving("eigenvalues", torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return np.asarray(torch.linalg.eigvalsh(torch.from_numpy(matrices), UPLO="L").numpy())


def finished(halves: Sequence[Halfway]) -> list[FloatArray]:
    """The second step, for those of a side together: eigenvalues (k, M) of each, ascending.

    Raises NumericsError (eigensolver_error) where the iteration does not end: no finite matrix is known.
    """
    found: dict[int, FloatArray] = {}
    of_side: dict[int, dict[int, Tridiagonal]] = defaultdict(dict)
    for i, half in enumerate(halves):
        if isinstance(half, Tridiagonal):
            of_side[half.diagonal.shape[1]][i] = half
        else:
            found[i] = half
    for alike in of_side.values():
        found |= zip(alike, _eigenvalues(list(alike.values())), strict=True)
    return [found[i] for i in range(len(halves))]


def _tridiagonal(matrices: FloatArray, scaling: _Scaling, reduce: _Reduction) -> Tridiagonal:
    (exponents, scales), shape = scaling, matrices.shape[:2]
    diagonal, squares = np.empty(shape), np.empty(shape)
    reduce(matrices, scales, diagonal, squares)
    return Tridiagonal(diagonal, squares, exponents)


def _scaling(matrices: FloatArray) -> _Scaling:
    """Of each largest diagonal element. Raises NumericsError (nonfinite) for NaN and Inf, which stop here."""
    finite, exponents, scales = _powers_of_two(matrices)
    if not finite:
        raise nonfinite()
    return exponents, scales


@njit(nogil=True, cache=True)
def _powers_of_two(matrices: FloatArray) -> tuple[bool, NDArray[np.int32], FloatArray]:
    """Whether the diagonals are finite, and as `_scaling`."""
    count = len(matrices)
    finite, exponents, scales = True, np.empty(count, np.int32), np.empty(count)
    for k in range(count):
        largest = 0.0
        for i in range(matrices.shape[1]):
            value = matrices[k, i, i]
            finite &= isfinite(value)
            largest = max(largest, value)
        exponents[k] = frexp(largest)[1]
        scales[k] = ldexp(1.0, -exponents[k])
    return finite, exponents, scales


def _in_company(matrices: FloatArray, scales: FloatArray, diagonals: FloatArray, squares: FloatArray) -> None:
    """As householder.reduce_matrices; which matrix has company depends on its place alone."""
    count, side = diagonals.shape
    eights = count - count % LANES if side <= _COMPANY_SIDE else 0
    for reduce, part in (reduce_in_company, slice(0, eights)), (reduce_matrices, slice(eights, count)):
        if part.start != part.stop:
            reduce(matrices[part], scales[part], diagonals[part], squares[part])


def _by_band(
    spent: bool, matrices: FloatArray, scales: FloatArray, diagonals: FloatArray, squares: FloatArray
) -> None:
    """As householder.reduce_matrices."""
    # Imported here because these kernels take 8 s to compile, once, and few models have such sides.
    from scanner.spectra.band import band_of
    from scanner.spectra.chasing import chase

    for k, matrix in enumerate(matrices):
        chase(band_of(matrix, spent), scales[k], diagonals[k], squares[k])


def _eigenvalues(alike: Sequence[Tridiagonal]) -> list[FloatArray]:
    """Of matrices of one side."""
    values = np.concatenate([one.diagonal for one in alike])
    if not solve_tridiagonals(values, np.concatenate([one.squares for one in alike])):
        raise NumericsError(FailureKind.EIGENSOLVER_ERROR, "eigenvalues: the QL iteration did not converge")
    values.sort(axis=1)
    values = np.ldexp(values, np.concatenate([one.exponent for one in alike])[:, None])
    return np.split(values, np.cumsum([len(one.diagonal) for one in alike])[:-1])
