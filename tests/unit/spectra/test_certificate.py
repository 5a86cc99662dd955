"""Columns from a Gram spectrum: equal to those of an SVD where granted, refused where rounding could decide."""

from dataclasses import fields, replace

import numpy as np
import pytest

from scanner.layer import measure
from scanner.spectra.certificate import (
    RELATIVE,
    _counts_are_certain,
    certified_singular_values,
    least_singular_value,
)
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.weightwatcher import fit_squares
from schemas.config import SpectrumRules, profile_config
from schemas.refs import FileRef, MatrixRef, RepoRef, TensorRef
from schemas.rows import LayerMetrics

GRAM = profile_config("weightwatcher")
SVD = replace(GRAM, spectrum=SpectrumRules(method="svd"))
FILE = FileRef(RepoRef("owner/name", "0" * 40), "model.safetensors", 1 << 30, "content")
COLUMNS = [field.name for field in fields(LayerMetrics) if field.name.startswith("ww_")]


def row_of(array, config):
    tensor = TensorRef(FILE, "layer.weight", "F64", array.shape, 0, 0)
    return measure(
        MatrixRef(tensor=tensor, index=0, shape=array.shape, start=0, stop=0), DenseWeights(array), config
    )


def student(*shape, seed=0):
    return np.random.default_rng(seed).standard_t(3, shape) * 0.1


def with_evals(evals, rows=None):
    """A matrix with these eigenvalues of W^T W, and vectors without structure."""
    rng = np.random.default_rng(1)
    n = len(evals)
    left = np.linalg.qr(rng.standard_normal((rows or n, n)))[0]
    return left * np.sqrt(evals) @ np.linalg.qr(rng.standard_normal((n, n)))[0]


def certified(array, scale=1.0):
    weights = DenseWeights(array)
    known = certified_singular_values(weights, solve(weights), scale)
    return known and known.sigma


@pytest.mark.parametrize(
    "shape",
    [(300, 120), (200, 200), (384, 384), (64, 33, 3, 3), (48, 48, 3, 3), (140, 140, 1, 2), (40, 60, 1, 1)],
)
def test_every_column_is_that_of_an_svd(shape):
    fast, slow = row_of(student(*shape), GRAM), row_of(student(*shape), SVD)
    assert (fast.spectrum_method, slow.spectrum_method) == ("gram_f64", "svd_f64")
    assert fast.hard_rank == slow.hard_rank
    for column in COLUMNS:
        found, expected = getattr(fast, column), getattr(slow, column)
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=RELATIVE)
        assert found == expected, column


@pytest.mark.parametrize("rank", [50, 99])
def test_a_lost_rank_is_refused(rank):
    array = student(120, rank) @ student(rank, 100, seed=2)
    assert certified(array) is None
    row = row_of(array, GRAM)
    assert (row.spectrum_method, row.ww_rank_loss, row.hard_rank) == ("svd_f64", 100 - rank, rank)


def test_a_spectrum_of_less_precision_is_refused():
    weights = DenseWeights(student(200, 100))
    spectrum = solve(weights)
    assert certified_singular_values(weights, spectrum, 1.0) is not None
    assert certified_singular_values(weights, replace(spectrum, method="gram_f32"), 1.0) is None


def pruned(*shape):
    """A convolution without two of its filters and one of its inputs, all but blind at one position."""
    array = student(*shape)
    array[:2] = array[:, 3] = 0.0
    array[:, :, 1, 1] *= 1e-9 ** np.linspace(0, 1, shape[1])
    return array


def blind(*shape):
    """A convolution whose middle position is zero."""
    array = student(*shape)
    array[:, :, 1, 1] = 0.0
    return array


def twins(*shape):
    """A convolution whose sv_min lies beside its like, too near for inverse iteration, in its middle position."""
    side, array = shape[0], np.zeros(shape)
    for k in range(9):
        least = [1e-4, 1e-4] if k == 4 else [1e-5]
        sigma = np.append(least, np.linspace(0.1, 2.0 + k / 9, side - len(least)))
        array[:, :, k // 3, k % 3] = with_evals(sigma**2)
    return array


@pytest.mark.parametrize(("made", "lost"), [(blind, 32), (pruned, 18), (twins, 0)])
def test_slices_that_the_gram_matrix_does_not_resolve_are_solved_alone(made, lost):
    fast, slow = row_of(made(32, 32, 3, 3), GRAM), row_of(made(32, 32, 3, 3), SVD)
    assert (fast.spectrum_method, slow.spectrum_method) == ("gram_f64", "svd_f64")
    assert fast.ww_rank_loss == lost
    assert fast.hard_rank == slow.hard_rank == 9 * 32 - lost
    for column in COLUMNS:
        found, expected = getattr(fast, column), getattr(slow, column)
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=RELATIVE, abs=1e-17)
        assert found == expected, column


def test_a_convolution_of_zeros_is_refused():
    array = np.zeros((32, 32, 3, 3))
    assert certified(array) is None
    assert row_of(array, GRAM).ww_rank_loss == row_of(array, SVD).ww_rank_loss


@pytest.mark.parametrize("limit", [1e-5, 1e-6])
@pytest.mark.parametrize("side", [1 - 1e-15, 1 + 1e-15])
def test_an_eigenvalue_at_an_absolute_limit_is_refused(limit, side):
    evals = np.append(limit * side, np.linspace(0.5, 1.0, 99) ** -3)
    assert certified(with_evals(evals)) is None
    evals[0] *= 3
    assert certified(with_evals(evals)) is not None


def test_the_limits_are_those_of_the_scaled_weights():
    evals = np.append(2e-5, np.linspace(0.5, 1.0, 99) ** -3)
    assert certified(with_evals(evals), scale=1.0) is not None
    assert certified(with_evals(evals), scale=0.5**0.5) is None


def test_a_tail_far_below_the_largest_eigenvalue_is_refused():
    evals = np.linspace(0.5, 1.0, 100) ** -3
    assert certified(with_evals(evals, 150)) is not None
    evals[-1] = 1e7
    assert certified(with_evals(evals, 150)) is None


def test_a_tail_that_rounding_could_begin_elsewhere_is_refused():
    bulk, tail = np.linspace(0.1, 0.2, 60), np.linspace(0.05, 1.0, 40) ** -0.5
    evals, fit = fit_squares(np.sqrt(np.append(bulk, tail))[None])
    assert _counts_are_certain(evals, fit)
    assert not _counts_are_certain(evals, replace(fit, near_ties=2))
    evals[evals.searchsorted(fit.xmin) - 1] = fit.xmin * (1 - 1e-15)
    assert not _counts_are_certain(evals, fit)


def test_a_trace_log_condition_met_exactly_is_refused():
    """The 20 largest of 32 eigenvalues multiply to one, and the mean of all is one."""
    high = 2.0 * 1.05 ** np.arange(10)
    top = np.append(high, 1.0 / high)
    rest = np.linspace(0.98, 1.02, 12) * (32.0 - top.sum()) / 12
    assert certified(with_evals(np.append(rest, top), 60)) is None
    assert certified(with_evals(np.append(rest * 0.99, top), 60)) is not None


@pytest.mark.parametrize("ratio", [1e-2, 1e-3, 1e-4])
def test_the_least_singular_value_of_a_large_square_matrix(ratio):
    sigma = np.append(np.linspace(0.1, 3.0, 199), ratio)
    array = with_evals(sigma**2)
    exact = np.linalg.svd(array, compute_uv=False)[-1]
    evals = solve(DenseWeights(array)).evals
    found = least_singular_value(array, evals, 64 * 2.2e-16 * evals[-1])
    assert found == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("side", [9, 16, 33, 64])
def test_the_least_singular_value_of_a_slice(side):
    array = student(side, side)
    evals = solve(DenseWeights(array)).evals
    found = least_singular_value(array, evals, 64 * 2.2e-16 * evals[-1])
    assert found == pytest.approx(np.linalg.svd(array, compute_uv=False)[-1], rel=1e-11)


@pytest.mark.parametrize("apart", [0.5, 0.2])
def test_several_small_singular_values_close_together(apart):
    sigma = np.append(np.linspace(0.1, 3.0, 54), 1e-3 * (1 + apart * np.arange(10)))
    array = with_evals(sigma**2)
    evals = solve(DenseWeights(array)).evals
    found = least_singular_value(array, evals, 64 * 2.2e-16 * evals[-1])
    assert found == pytest.approx(1e-3, rel=1e-9)


def test_two_least_singular_values_that_cannot_be_told_apart_have_no_answer():
    sigma = np.append(np.linspace(0.1, 3.0, 198), [1e-4, 1.0000001e-4])
    array = with_evals(sigma**2)
    evals = solve(DenseWeights(array)).evals
    assert least_singular_value(array, evals, 64 * 2.2e-16 * evals[-1]) is None


def test_a_nearly_singular_matrix_has_no_certified_least_singular_value():
    array = with_evals(np.append(np.linspace(0.1, 3.0, 199), 1e-7) ** 2)
    evals = solve(DenseWeights(array)).evals
    assert least_singular_value(array, evals, 64 * 2.2e-16 * evals[-1]) is None
