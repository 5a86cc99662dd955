"""How localised the singular vectors are: the mean histogram entropy of those in the tail and in the bulk."""

from dataclasses import dataclass

import numpy as np

from scanner.spectra.eigen import Weights
from scanner.spectra.guards import require_finite, solving
from schemas.results import FloatArray

BINS = 100
_SAME = 1e-9
"""Relative distance below which an eigenvalue is xmin itself, computed another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFit:
    """Mean entropy, nats in [0, ln 100], of the vectors with lambda >= xmin and < xmin; None without any."""

    vec_entropy_tail: float | None = None
    vec_entropy_bulk: float | None = None


def vector_entropies(weights: Weights, xmin: float) -> VectorFit:
    """Average the discrete entropies of the right singular vectors over the tail and over the bulk.

    Shapes: (r, c), or (o, i, k...) whose prod(k) slices are taken one by one and pooled; a right singular
    vector has the length of the short side. Entropy of v: -sum p ln p, p the shares of 100 equal bins of |v|
    over [min, max] (subtracting mean |v| moves no entry to another bin). `xmin`: unit weight^2. Vectors of
    equal eigenvalues are one basis of many, so their entropies are not unique. Cost: eigenvectors, two to
    four times a Gram spectrum (measured), a float64 copy of the weights and 16 M^2 bytes. Raises
    NumericsError (nonfinite, eigensolver_error). Source: the discrete vector entropy of WeightWatcher 0.7.7
    without its added 1e-10.
    """
    entries = weights.block(slice(None), slice(None))
    slices = entries.reshape(*entries.shape[:2], -1).transpose(2, 0, 1)
    both = [_eigenvectors(one if one.shape[0] >= one.shape[1] else one.T) for one in slices]
    evals = np.concatenate([values for values, _ in both])
    entropies = np.array([entropy(v) for _, vectors in both for v in vectors.T])
    tail = evals >= xmin * (1.0 - _SAME)
    return VectorFit(vec_entropy_tail=_mean(entropies[tail]), vec_entropy_bulk=_mean(entropies[~tail]))


def entropy(vector: FloatArray) -> float:
    """Entropy in nats of the 100-bin histogram of |vector|, in [0, ln 100]."""
    counts, _ = np.histogram(np.abs(vector), bins=BINS)
    p = counts[counts > 0] / len(vector)
    return max(0.0, float(-(p * np.log(p)).sum()))


def _eigenvectors(tall: FloatArray) -> tuple[FloatArray, FloatArray]:
    gram = tall.T @ tall
    require_finite(np.diagonal(gram))
    with solving("eigenvectors"):
        values, vectors = np.linalg.eigh(gram)
    return np.asarray(values), np.asarray(vectors)


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if values.size else None
