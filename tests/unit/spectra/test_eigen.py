"""Eigenvalues by every path against SVDs made elsewhere."""

import numpy as np
import pytest
import scipy.linalg
import torch
from stored import TORCH, stored

from scanner.spectra import eigen
from scanner.spectra.eigen import DenseWeights, gram, solve
from scanner.spectra.symmetric import LARGE_SIDE, eigenvalues
from schemas.errors import NumericsError
from schemas.results import FailureKind

SHAPES = [(40, 40), (300, 24), (24, 300), (65, 64), (1, 9), (9, 1), (1, 1)]
KERNELS = [(12, 20, 5), (20, 12, 3, 3), (12, 20, 2, 3), (8, 9, 2, 3, 2), (6, 1, 3, 3)]


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_t(3, shape)


def squared_svd(array):
    return np.sort(scipy.linalg.svd(array, compute_uv=False, lapack_driver="gesvd") ** 2)


def pooled_svd(array):
    slices = [squared_svd(array[(slice(None), slice(None), *k)]) for k in np.ndindex(array.shape[2:])]
    return np.sort(np.concatenate(slices))


def assert_spectrum(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=20 * np.finfo(float).eps * expected[-1])


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_matrix_has_the_squares_of_its_singular_values(shape, method):
    array = draw(shape)
    found = solve(DenseWeights(array), method=method)
    assert_spectrum(found.evals, squared_svd(array))
    torch_values = torch.linalg.svdvals(torch.from_numpy(array)).numpy() ** 2
    assert_spectrum(found.evals, np.sort(torch_values))
    assert (found.N, found.M, found.slices) == (max(shape), min(shape), None)
    assert found.method == f"{method}_f64"
    assert found.evals.dtype == np.float64


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", KERNELS)
def test_a_convolution_pools_its_slices(shape, method):
    array = draw(shape)
    found = solve(DenseWeights(array), method=method)
    assert_spectrum(found.evals, pooled_svd(array))
    assert found.slices.shape == (int(np.prod(shape[2:])), min(shape[:2]))
    assert found.kernel_size == len(found.slices)
    for at, k in enumerate(np.ndindex(shape[2:])):
        assert_spectrum(found.slices[at], squared_svd(array[(slice(None), slice(None), *k)]))


@pytest.mark.parametrize("shape", [(90, 31), (31, 90), (31, 90, 3), (90, 31, 2, 2)])
def test_any_block_gives_the_same_eigenvalues(shape):
    array = draw(shape)
    whole = solve(DenseWeights(array), block=10_000).evals
    for block in (1, 7, 31, 89, 90):
        assert_spectrum(solve(DenseWeights(array), block=block).evals, whole)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", [(90, 31), (31, 90), (31, 90, 3), (90, 31, 2, 2)])
def test_every_entry_is_observed_once(shape, method):
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    seen = []
    solve(DenseWeights(array), method=method, block=13, observe=lambda piece: seen.append(piece.copy()))
    np.testing.assert_array_equal(np.sort(np.concatenate([piece.ravel() for piece in seen])), array.ravel())


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("shape", [(48, 20), (20, 48), (10, 12, 3, 3)])
def test_stored_weights_of_every_type_give_the_spectrum_torch_gives(dtype, shape):
    array = draw(shape)
    values = torch.from_numpy(array).to(TORCH[dtype]).to(torch.float64).numpy()
    expected = squared_svd(values) if len(shape) == 2 else pooled_svd(values)
    assert_spectrum(solve(stored(array, dtype), block=7).evals, expected)


def test_the_gram_matrix_is_that_of_the_short_side():
    array = draw((50, 20))
    np.testing.assert_allclose(np.tril(gram(DenseWeights(array), 7)), np.tril(array.T @ array), rtol=1e-12)
    flipped = np.ascontiguousarray(array.T)
    np.testing.assert_allclose(np.tril(gram(DenseWeights(flipped), 7)), np.tril(array.T @ array), rtol=1e-12)


@pytest.mark.parametrize("side", [60, LARGE_SIDE])
def test_both_sides_of_the_torch_threshold_read_the_lower_triangle(side):
    """Reflections keep the eigenvalues of a diagonal known exactly; the upper triangle holds rubbish."""
    known = np.linspace(1.0, 5.0, side)
    v = draw(side)
    v /= np.linalg.norm(v)
    matrix = np.diag(known) - 2 * np.outer(v, known * v)
    matrix -= 2 * np.outer(matrix @ v, v)
    matrix[np.triu_indices(side, 1)] = 1e6
    np.testing.assert_allclose(eigenvalues(matrix), known, rtol=1e-12)


def test_what_torch_does_not_solve_is_an_eigensolver_error():
    matrix = np.eye(LARGE_SIDE)
    matrix[5, 3] = np.nan
    with pytest.raises(NumericsError) as caught:
        eigenvalues(matrix)
    assert caught.value.kind is FailureKind.EIGENSOLVER_ERROR


def test_rank_deficit_is_zero_or_round_off_and_never_negative():
    array = draw((60, 10)) @ draw((10, 40), 1)
    found = solve(DenseWeights(array)).evals
    assert found[0] >= 0.0
    assert found[29] < 1e-12 * found[-1] < found[30]


def test_svd_resolves_what_the_gram_matrix_loses():
    left, right = np.linalg.qr(draw((40, 10)))[0], np.linalg.qr(draw((10, 10), 1))[0]
    array = left * np.logspace(0, -10, 10) @ right
    least = {method: solve(DenseWeights(array), method=method).evals[0] for method in eigen.METHODS}
    assert least["svd"] == pytest.approx(1e-20, rel=1e-3, abs=0)
    assert least["gram"] != pytest.approx(1e-20, rel=0.5, abs=0)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 10, 3, 3)])
def test_a_nonfinite_entry_stops_before_the_solver(shape, bad, method):
    array = draw(shape)
    array[(3, 4, *(0 for _ in shape[2:]))] = bad
    with np.errstate(invalid="ignore"), pytest.raises(NumericsError) as caught:
        solve(DenseWeights(array), method=method, block=8)
    assert caught.value.kind is FailureKind.NONFINITE


@pytest.mark.parametrize("scale", [1e148, 1e-148])
def test_eigenvalues_at_the_end_of_the_range_are_refused(scale):
    with pytest.raises(NumericsError, match="leaves the range of float64: rescale"):
        solve(DenseWeights(draw((20, 20)) * scale))


def test_squares_beyond_the_range_are_refused():
    with pytest.raises(NumericsError, match="or their squares, are not finite"):
        solve(DenseWeights(draw((20, 20)) * 1e200))


def test_results_are_read_only():
    found = solve(DenseWeights(draw((8, 9, 3))))
    for array in (found.evals, found.slices):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="choose one of gram, svd"):
        solve(DenseWeights(draw((8, 8))), method="qr")


def test_a_zero_matrix_has_zero_eigenvalues():
    assert not solve(DenseWeights(np.zeros((12, 10)))).evals.any()
    assert not solve(DenseWeights(np.zeros((12, 10, 3)))).evals.any()
