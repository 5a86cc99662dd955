"""Eigenvalues of a product of two thin factors, without the product."""

from dataclasses import replace

import numpy as np

from scanner.spectra.eigen import DenseWeights, solve
from schemas.errors import NumericsError
from schemas.results import FailureKind, FloatArray, Spectrum

METHOD = "lora_qr"


def solve_product(left: FloatArray, right: FloatArray, scale: float = 1.0) -> Spectrum:
    """Eigenvalues of X^T X for X = scale * left @ right that can differ from zero, exact in float64.

    Shapes: left (m, r), right (r, n), float64; gives min(m, n, r) values, unit weight^2, ascending; the other
    eigenvalues of X are zero. left = Q_l R_l, right^T = Q_r R_r, so the singular values of X are those of
    scale * R_l R_r^T. Absolute error of a singular value: a few eps times the largest. Cost 2 (m + n) r^2
    flops and an SVD of r x r. Raises NumericsError (nonfinite, eigensolver_error). Source: arXiv 2106.09685
    (the update), Golub and Van Loan 5.4 (the factorisation).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        core = scale * (_triangle(left) @ _triangle(right.T).T)
    spectrum = solve(DenseWeights(core), method="svd")
    if core.any() and spectrum.evals[-1] == 0:
        raise NumericsError(
            FailureKind.EIGENSOLVER_ERROR, "squares of the product underflow float64: rescale the factors"
        )
    short, long = sorted((left.shape[0], right.shape[1]))
    return replace(spectrum, N=long, M=short, method=METHOD)


def _triangle(tall: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.qr(tall, mode="r"))
