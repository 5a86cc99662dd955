"""The singular values of a convolution as a linear map on a periodic grid, frequency by frequency."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scanner.spectra.eigen import Weights, spectrum_of
from scanner.spectra.guards import require_finite, solving
from schemas.results import FloatArray, Spectrum

GRID = 32
"""Side of the grid, WeightWatcher's; a longer kernel gets its own length."""


@np.errstate(over="ignore", invalid="ignore")
def fourier_spectrum(
    weights: Weights, *, method: str = "gram", observe: Callable[[FloatArray], None]
) -> Spectrum:
    """Eigenvalues of X^H X for the transform X of the kernel at every frequency of a periodic grid.

    Shapes: (o, i, k) gives GRID matrices o x i, (o, i, a, b) GRID^2, so GRID^d * min(o, i) values, pooled,
    in `slices` frequency by frequency; together they are the squared singular values of the convolution with
    periodic padding. Their sum is GRID^d times the squared norm of the kernel. Unit weight^2. The kernel is
    real, so half of the frequencies are computed and stand for both. `observe` sees the entries once. Cost: a
    float64 copy of the weights, and for a 2-D kernel 544 complex Gram matrices and their eigenvalues. Raises
    NumericsError (nonfinite, eigensolver_error). Source: Sedghi, Gupta and Long 2019, theorem 6.
    """
    full = weights.block(slice(None), slice(None))
    observe(full)
    require_finite(full)
    lengths = [max(GRID, side) for side in full.shape[2:]]
    kernel, first = (full, lengths[0]) if len(lengths) == 2 else (full[:, :, None], 1)
    slices = np.concatenate([_row(kernel, u, first, lengths[-1], method) for u in range(first)])
    return spectrum_of(slices, full.shape, "svd_f64" if method == "svd" else "gram_f64")


def _row(kernel: FloatArray, u: int, first: int, second: int, method: str) -> FloatArray:
    """(second, M) eigenvalues at the u-th of `first` frequencies of one axis and all of the other."""
    wave = np.exp(-2j * np.pi * u * np.arange(kernel.shape[2]) / first)
    half = second // 2 + 1
    transform = np.fft.fft(kernel.transpose(0, 1, 3, 2) @ wave, second, axis=2)[:, :, :half]
    evals = _eigenvalues(np.ascontiguousarray(transform.transpose(2, 0, 1)), method)
    alone = np.arange(half) * 2 % second == 0
    return np.repeat(evals, np.where(alone, 1, 2), axis=0)


def _eigenvalues(matrices: NDArray[np.complex128], method: str) -> FloatArray:
    tall = matrices if matrices.shape[1] >= matrices.shape[2] else matrices.transpose(0, 2, 1)
    matrix = tall if method == "svd" else tall.conj().transpose(0, 2, 1) @ tall
    require_finite(matrix)
    with solving("eigenvalues"):
        if method == "svd":
            return np.asarray(np.linalg.svd(matrix, compute_uv=False)[:, ::-1] ** 2)
        return np.asarray(np.linalg.eigvalsh(matrix))
