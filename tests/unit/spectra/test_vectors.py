"""Entropies of singular vectors against a direct computation from the SVD."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from scanner.spectra.eigen import DenseWeights
from scanner.spectra.vectors import entropy, vector_entropies
from schemas.errors import NumericsError

Floats = NDArray[np.float64]


def direct(slices: list[Floats], xmin: float) -> tuple[float, float]:
    """The definition, written out: right singular vectors of the tall W, 100 bins of |v| - mean|v|."""
    tail, bulk = [], []
    for one in slices:
        tall = one if one.shape[0] >= one.shape[1] else one.T
        _, sigma, right = np.linalg.svd(tall, full_matrices=False)
        for value, v in zip(sigma**2, right, strict=True):
            magnitudes = np.abs(v) - np.abs(v).mean()
            shares = np.histogram(magnitudes, bins=100)[0] / len(v)
            found = -sum(p * math.log(p) for p in shares if p > 0)
            (tail if value >= xmin * (1 - 1e-9) else bulk).append(found)
    return float(np.mean(tail)), float(np.mean(bulk))


@pytest.mark.parametrize("shape", [(80, 50), (50, 80), (60, 60), (24, 20, 3, 3), (20, 24, 5)])
def test_is_the_definition(shape: tuple[int, ...]) -> None:
    W = np.random.default_rng(1).standard_t(3, shape)
    slices = list(np.moveaxis(W.reshape(*shape[:2], -1), 2, 0))
    evals = np.concatenate([np.linalg.svd(one, compute_uv=False) ** 2 for one in slices])
    xmin = float(np.quantile(evals, 0.8))
    fit = vector_entropies(DenseWeights(W), xmin)
    assert (fit.vec_entropy_tail, fit.vec_entropy_bulk) == pytest.approx(direct(slices, xmin), abs=1e-9)


def test_one_entry_has_no_entropy_and_spread_entries_have_the_most() -> None:
    assert entropy(np.full(400, 0.05)) == 0.0
    assert entropy(np.linspace(0, 1, 100_000)) == pytest.approx(math.log(100), abs=1e-3)
    localised = np.zeros(400)
    localised[3] = 1.0
    assert entropy(localised) == pytest.approx(-(399 * math.log(399 / 400) + math.log(1 / 400)) / 400)


def test_a_localised_tail_is_told_from_a_delocalised_bulk() -> None:
    W = np.random.default_rng(2).standard_normal((300, 200))
    W[0, 0] = 60.0
    fit = vector_entropies(DenseWeights(W), 2000.0)
    assert fit.vec_entropy_tail < 0.5 * fit.vec_entropy_bulk


def test_no_vector_on_a_side_is_none() -> None:
    W = DenseWeights(np.random.default_rng(3).standard_normal((40, 30)))
    assert vector_entropies(W, 1e9).vec_entropy_tail is None
    assert vector_entropies(W, 1e-9).vec_entropy_bulk is None


def test_nan_is_refused() -> None:
    with pytest.raises(NumericsError):
        vector_entropies(DenseWeights(np.full((10, 10), np.nan)), 1.0)
