"""Exact eigenvalues of W^T W for a matrix or a pooled convolution, block by block. For a GPU see device.py.

The Gram matrix of the short side is accumulated in float64 from blocks of W as stored, so a float64 copy
of W never exists. Its eigenvalues carry an absolute error of a few eps * lambda_max (measured 1..10):
the tail of any spectrum with lambda_max/xmin below 1e8 is exact to 1e-8 or far better. SVD is for the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from math import isnan
from operator import iadd
from typing import Any, Protocol

import numpy as np
from numba import njit

from scanner.spectra.gram import kernel_first, slice_grams, summing
from scanner.spectra.guards import require_finite, solving
from scanner.spectra.symmetric import Halfway, finished, halfway
from schemas.errors import NumericsError
from schemas.records import record
from schemas.results import FailureKind, FloatArray, Spectrum

METHODS = ("gram", "svd")

_MAGNITUDE = 1e290
"""Eigenvalues outside 1/_MAGNITUDE.._MAGNITUDE leave float64's comfortable range."""


class Weights(Protocol):
    """Entries of one row of `layers`, handed out as float64 blocks.

    `shape` is (rows, columns) or (out, in, k...) for a convolution whose kernel positions are pooled.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 copy of [rows, columns, ...]."""


class DenseWeights:
    """Weights over a numpy array."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._array.shape)

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 copy of [rows, columns, ...]."""
        return np.ascontiguousarray(self._array[rows, columns], dtype=np.float64)


def _ignore(_: FloatArray) -> None:
    return None


def solve(
    weights: Weights,
    *,
    method: str = "gram",
    block: int = 512,
    observe: Callable[[FloatArray], None] = _ignore,
    keep: Callable[[FloatArray], None] | None = None,
) -> Spectrum:
    """Eigenvalues of X^T X for every slice X of `weights`, exact in float64.

    Shapes: (r, c) gives M = min(r, c) values; (o, i, k...) gives prod(k) * min(o, i), pooled. Unit weight^2,
    ascending, negative round-off set to 0. `method`: gram (N M^2 + 4/3 M^3 flops; peak 8 M^2 to 2 * 8 M^2
    bytes beyond W and one block) or svd (QR, then SVD of R: about 5x the time, N M float64 of memory,
    resolves eigenvalues below eps * lambda_max). `observe` sees every block exactly once; entries must be
    finite. `keep` is given a copy of the lower triangle of the Gram matrix of a plain matrix, where one is
    formed. Squares that leave float64 are an error of ours, not a warning of numpy's.
    Raises NumericsError (eigensolver_error, nonfinite). Source: definition of the ESD, arXiv 1810.01075.
    """
    return finish([begin(weights, method=method, block=block, observe=observe, keep=keep)])[0]


@record(kw_only=False)
class Begun:
    """Weights of `shape` on the way to their spectrum, but for a step that costs less in company."""

    shape: tuple[int, ...]
    method: str
    slices: Halfway


@np.errstate(over="ignore", invalid="ignore")
def begin(
    weights: Weights,
    *,
    method: str = "gram",
    block: int = 512,
    observe: Callable[[FloatArray], None] = _ignore,
    keep: Callable[[FloatArray], None] | None = None,
) -> Begun:
    """The part of `solve` that needs the weights. Raises NumericsError as it does."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    pooled = len(weights.shape) > 2
    if method == "svd":
        evals = _conv_svd(weights, observe) if pooled else _svd(weights, observe)[None]
        return Begun(weights.shape, "svd_f64", evals)
    grams = _conv_gram(weights, block, observe) if pooled else _gram(weights, block, observe)[None]
    if keep is not None and not pooled:
        keep(grams[0].copy())
    return Begun(weights.shape, "gram_f64", halfway(grams, spent=True))


@np.errstate(over="ignore", invalid="ignore")
def finish(begun: Sequence[Begun]) -> list[Spectrum]:
    """The spectra of matrices begun, in order; those of one side are solved together.

    Raises NumericsError (eigensolver_error) if one of them cannot be solved.
    """
    return [
        spectrum_of(evals, one.shape, one.method)
        for one, evals in zip(begun, finished([one.slices for one in begun]), strict=True)
    ]


def spectrum_of(slices: FloatArray, shape: Sequence[int], method: str, device: str = "cpu") -> Spectrum:
    """Eigenvalues (slices, M), each row ascending, of weights of `shape` as a checked Spectrum.

    Raises NumericsError (eigensolver_error) for NaN, Inf, or a scale at the end of float64's range.
    """
    known, sound = _without_round_off(slices)
    evals = known[0]
    if pooled := len(shape) > 2:
        evals = known.flatten()
        evals.sort()
    _require_range(evals, sound)
    return Spectrum(
        evals=_read_only(evals),
        N=max(shape[:2]),
        M=min(shape[:2]),
        method=method,
        device=device,
        slices=_read_only(known) if pooled else None,
    )


@njit(nogil=True, cache=True)
def _without_round_off(slices: FloatArray) -> tuple[FloatArray, bool]:
    """A copy of (slices, M) whose values below zero are zero, and whether none is NaN."""
    found, sound = np.empty(slices.shape), True
    for k in range(slices.shape[0]):
        for j in range(slices.shape[1]):
            value = slices[k, j]
            sound &= not isnan(value)
            found[k, j] = value if value > 0.0 else 0.0
    return found, sound


def gram(weights: Weights, block: int = 512, observe: Callable[[FloatArray], None] = _ignore) -> FloatArray:
    """Lower triangle of the Gram matrix of the short side, float64 (M, M), from blocks of `weights`.

    Cost N M^2 flops (half of a gemm); peak 8 M^2 bytes, twice that where M is large, and two float64 blocks.
    """
    return np.ascontiguousarray(_gram(weights, block, observe))


def _gram(weights: Weights, block: int, observe: Callable[[FloatArray], None]) -> FloatArray:
    """As gram; rows of a large one lie a little apart."""
    rows, columns = weights.shape
    total = summing(min(rows, columns), rows < columns)
    for piece in blocks(weights, block):
        observe(piece)
        total.add(piece)
    return total.lower()


def blocks(weights: Weights, block: int) -> Iterator[FloatArray]:
    """Float64 blocks along the long side: (block, columns) of a tall matrix, (rows, block) of a wide one."""
    rows, columns = weights.shape[:2]
    whole = slice(None)
    if rows >= columns:
        for start in range(0, rows, block):
            yield weights.block(slice(start, start + block), whole)
    else:
        for start in range(0, columns, block):
            yield weights.block(whole, slice(start, start + block))


def _svd(weights: Weights, observe: Callable[[FloatArray], None]) -> FloatArray:
    full = weights.block(slice(None), slice(None))
    observe(full)
    return np.sort(_squared_singular_values(full))


def _squared_singular_values(full: FloatArray) -> FloatArray:
    require_finite(full)
    tall = full if full.shape[0] >= full.shape[1] else full.T
    with solving("singular values"):
        if tall.shape[0] > 1.2 * tall.shape[1]:
            tall = np.asarray(np.linalg.qr(tall, mode="r"))
        return np.asarray(np.linalg.svd(tall, compute_uv=False) ** 2)


def slice_of(weights: Weights, which: int) -> FloatArray:
    """One slice X of `weights`, (rows, columns) float64: the matrix itself, or a kernel position.

    Weights that know a method of this name decode no more than that.
    """
    if hasattr(weights, "slice_of"):
        return np.asarray(weights.slice_of(which))
    full = weights.block(slice(None), slice(None))
    return np.ascontiguousarray(full.reshape(*full.shape[:2], -1)[:, :, which])


def _conv_gram(weights: Weights, block: int, observe: Callable[[FloatArray], None]) -> FloatArray:
    tall = weights.shape[0] >= weights.shape[1]
    return reduce(iadd, (_slice_grams(piece, tall, observe) for piece in blocks(weights, block)))


def _slice_grams(piece: FloatArray, tall: bool, observe: Callable[[FloatArray], None]) -> FloatArray:
    observe(piece)
    return slice_grams(piece, tall)


def _conv_svd(weights: Weights, observe: Callable[[FloatArray], None]) -> FloatArray:
    full = weights.block(slice(None), slice(None))
    observe(full)
    require_finite(full)
    with solving("singular values"):
        return np.asarray(np.linalg.svd(kernel_first(full), compute_uv=False)[:, ::-1] ** 2)


def _require_range(evals: FloatArray, sound: bool) -> None:
    top = float(evals[-1]) if evals.size else 0.0
    if not sound:
        raise NumericsError(FailureKind.EIGENSOLVER_ERROR, "the eigensolver returned NaN")
    if top > 0 and not 1 / _MAGNITUDE < top < _MAGNITUDE:
        raise NumericsError(
            FailureKind.EIGENSOLVER_ERROR,
            f"lambda_max {top:.1e} leaves the range of float64: rescale the weights",
        )


def _read_only(array: FloatArray) -> FloatArray:
    array.flags.writeable = False
    return array
