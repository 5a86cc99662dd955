"""A matrix against its base: the spectrum of the change, and how far the leading directions turned.

Everything is of W_NM, the matrix or its transpose, whichever is tall: like the spectrum, the numbers do not
depend on how a matrix is stored (only a square one has left vectors as stored). A convolution has the
spectrum of its pooled slices; its directions are those of the flattened (out, in * k) matrix.
"""

from dataclasses import dataclass
from math import frexp

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.blas import dsymv
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from scanner.spectra.eigen import Weights, blocks, gram
from scanner.spectra.estimators import hill
from scanner.spectra.guards import solving
from scanner.spectra.metrics import Norms, norms
from scanner.spectra.tailfit import above_cut
from schemas.config import TailRules
from schemas.results import FloatArray, Spectrum

LEADING = 10
"""Singular vectors a side of `subspace_overlap10`."""

_LANCZOS_FROM = 512
"""Short side from which Lanczos is tried: 1.8 (noise) to 6 times (trained weights) faster than LAPACK at 1024
and 2048, equal at 384 (measured 2026-11)."""

_KRYLOV = 60
_RESIDUAL = 1e-12
"""Residual, of lambda_max, above which Lanczos vectors are not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A spectrum against that of the base, and of the change; the columns of `layers` of the same names.

    Each number is None where it needs the logarithm of zero: a zero matrix, a zero base, or no change.
    """

    rel_delta: float | None
    d_log_norm: float | None
    d_log_spectral_norm: float | None
    delta_log_spectral_norm: float | None
    delta_stable_rank: float | None
    delta_alpha_hill: float | None


class Difference:
    """W - W0 as weights: subtracted block by block in float64, so the whole is never in memory."""

    def __init__(self, weights: Weights, base: Weights) -> None:
        """Raises ValueError if the shapes differ."""
        if weights.shape != base.shape:
            raise ValueError(f"shape {weights.shape} has no difference to {base.shape}")
        self._weights, self._base = weights, base

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of both."""
        return self._weights.shape

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 [rows, columns, ...] of the difference."""
        return self._weights.block(rows, columns) - self._base.block(rows, columns)


@dataclass(frozen=True, slots=True)
class Side:
    """One matrix of a pair: 2-D weights, the lower triangle of their Gram matrix, eigenvalues if known."""

    weights: Weights
    gram: FloatArray
    evals: FloatArray | None = None


def side(weights: Weights, spectrum: Spectrum, known: FloatArray | None, block: int = 512) -> Side:
    """A matrix, or a convolution flattened, made ready for `overlap` and `cka`.

    `known` is the Gram matrix (M, M) that `solve` kept, None where it formed none; then N M^2 flops.
    """
    if len(weights.shape) > 2:
        flat = _Flat(weights)
        return Side(flat, gram(flat, block))
    return Side(weights, gram(weights, block) if known is None else known, spectrum.evals)


def change(own: Spectrum, base: Spectrum, delta: Spectrum, rules: TailRules) -> Change:
    """Norms of W, W0 and Delta = W - W0 held against each other.

    rel_delta = ||Delta||_F / ||W0||_F; d_* = own minus base; delta_stable_rank and delta_alpha_hill are of
    Delta's eigenvalues, the latter above the cut of `rules` and None below `rules.min_evals` of them. Logs
    base 10 of weight^2. Cost O(n). rel_delta is FRO_DIST of nsfzyzz/Generalization_metrics_for_NLP by layer.
    """
    ours, theirs, of_delta = norms(own), norms(base), norms(delta)
    return Change(
        rel_delta=float(np.sqrt(delta.evals.sum() / theirs.norm)) if theirs else None,
        d_log_norm=ours.log_norm - theirs.log_norm if ours and theirs else None,
        d_log_spectral_norm=ours.log_spectral_norm - theirs.log_spectral_norm if ours and theirs else None,
        delta_log_spectral_norm=of_delta.log_spectral_norm if of_delta else None,
        delta_stable_rank=of_delta.stable_rank if of_delta else None,
        delta_alpha_hill=_delta_hill(delta, of_delta, rules),
    )


def overlap(own: Side, base: Side, count: int = LEADING, block: int = 512) -> float | None:
    """||U^T U0||_F^2 / count of the `count` leading left singular vectors, in [0, 1].

    1 when both span the same space, count / N for random ones. None when either has fewer than `count`
    singular values above rounding. Exact to 1e-8 where the gap after the last vector is above 1e-7 of
    lambda_max. Cost: two Lanczos runs or reductions of M x M and 2 count N M flops a side.
    """
    left = [_left_vectors(one, count, block) for one in (own, base)]
    if left[0] is None or left[1] is None:
        return None
    return float(min(np.sum((left[0].T @ left[1]) ** 2) / count, 1.0))


def cka(own: Side, base: Side, block: int = 512) -> float | None:
    """Linear CKA ||A^T B||_F^2 / (||A^T A||_F ||B^T B||_F) of W and W0 without their column means, in [0, 1].

    Invariant under rotation and scale. None where all rows of one are equal. Cost 2 N M^2 flops and
    24 M^2 bytes. Source: arXiv 1905.00414; W_CKA of nsfzyzz/Generalization_metrics_for_NLP.
    """
    length = max(own.weights.shape)
    one, other = _unit(own.gram), _unit(base.gram)
    cross, sum_own, sum_base = _cross(own.weights, base.weights, block)
    cross, sum_own, sum_base = cross / (one * other), sum_own / one, sum_base / other
    shared = float(np.sum((cross - np.outer(sum_own, sum_base) / length) ** 2))
    alone = _centred_norm(own.gram / one**2, sum_own, length)
    alone *= _centred_norm(base.gram / other**2, sum_base, length)
    return min(shared / alone, 1.0) if alone > 0 else None


class _Flat:
    """A convolution (out, in, k...) as one (out, in * k) matrix, read by whole input channels."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._kernel = int(np.prod(weights.shape[2:]))

    @property
    def shape(self) -> tuple[int, ...]:
        out, channels = self._weights.shape[:2]
        return out, channels * self._kernel

    def block(self, rows: slice, columns: slice) -> FloatArray:
        start, stop, _ = columns.indices(self.shape[1])
        first, last = start // self._kernel, -(-stop // self._kernel)
        piece = self._weights.block(rows, slice(first, last))
        whole = piece.reshape(len(piece), -1)
        return np.ascontiguousarray(whole[:, start - first * self._kernel : stop - first * self._kernel])


def _delta_hill(delta: Spectrum, of_delta: Norms | None, rules: TailRules) -> float | None:
    if of_delta is None:
        return None
    sample = above_cut(delta.evals, rules)
    return hill(sample) if sample.size >= rules.min_evals else None


def _left_vectors(one: Side, count: int, block: int) -> FloatArray | None:
    """Orthonormal (N, count); QR also removes what rounding mixed into the weaker vectors."""
    right = _right_vectors(one, count)
    if right is None:
        return None
    tall = one.weights.shape[0] >= one.weights.shape[1]
    products = [(piece if tall else piece.T) @ right for piece in blocks(one.weights, block)]
    return np.asarray(np.linalg.qr(np.concatenate(products))[0])


def _right_vectors(one: Side, count: int) -> FloatArray | None:
    """Eigenvectors (M, count) of the largest eigenvalues of the Gram matrix, the largest first."""
    size = len(one.gram)
    if size < count:
        return None
    values, vectors = _lanczos(one, count) or _lapack(one.gram, count)
    if values[0] <= max(1e-12, size * np.finfo(np.float64).eps) * values[-1]:
        return None
    return np.ascontiguousarray(vectors[:, ::-1])


def _lapack(lower: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    size = len(lower)
    with solving("singular vectors"):
        return eigh(lower, lower=True, subset_by_index=(size - count, size - 1))  # type: ignore[no-any-return]


def _lanczos(one: Side, count: int) -> tuple[FloatArray, FloatArray] | None:
    """The same by Lanczos, or None where it can't be proved right.

    The proof: small residuals, and the eigenvalues known from the full spectrum, so that none was missed.
    """
    size = len(one.gram)
    if size < _LANCZOS_FROM or one.evals is None or one.evals.size != size:
        return None
    upper = one.gram.T
    operator = LinearOperator((size, size), matvec=lambda v: dsymv(1.0, upper, v), dtype=np.float64)
    start = np.random.default_rng(size).standard_normal(size)
    try:
        values, vectors = eigsh(operator, k=count, ncv=_KRYLOV, v0=start, tol=0)
    except ArpackError:
        return None
    order = np.argsort(values)
    values, vectors = values[order], vectors[:, order]
    images = np.column_stack([dsymv(1.0, upper, v) for v in vectors.T])
    top = one.evals[-1]
    residual = np.linalg.norm(images - vectors * values, axis=0).max()
    missed = np.abs(values - one.evals[-count:]).max()
    return (values, vectors) if max(residual, missed) <= _RESIDUAL * top else None


def _cross(own: Weights, base: Weights, block: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """W^T W0 of the short side (M, M), and the column sums of both."""
    tall = own.shape[0] >= own.shape[1]
    short = min(own.shape)
    cross, sums = np.zeros((short, short)), np.zeros((2, short))
    for pair in zip(blocks(own, block), blocks(base, block), strict=True):
        a, b = pair if tall else (pair[0].T, pair[1].T)
        cross += a.T @ b
        sums += a.sum(axis=0), b.sum(axis=0)
    return cross, sums[0], sums[1]


def _unit(gram: FloatArray) -> float:
    """A power of two of the scale of the weights, so that squares of the Gram matrix stay in float64."""
    return float(2.0 ** (frexp(np.diagonal(gram).max())[1] // 2))


def _centred_norm(lower: FloatArray, sums: FloatArray, length: int) -> float:
    """||A^T A||_F of the centred A, from the lower triangle of W^T W."""
    centred = np.tril(lower) - np.tril(np.outer(sums, sums) / length)
    diagonal = np.diagonal(centred)
    return float(np.sqrt(2 * np.sum(centred**2) - np.sum(diagonal**2)))
