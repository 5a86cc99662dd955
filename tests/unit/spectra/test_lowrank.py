"""Eigenvalues of a product against a dense SVD of it."""

import numpy as np
import pytest

from scanner.spectra.lowrank import solve_product
from schemas.errors import NumericsError
from schemas.results import FailureKind


def factors(m, n, r, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, r)), rng.standard_normal((r, n)) / np.sqrt(n)


@pytest.mark.parametrize(
    ("m", "n", "r"), [(768, 768, 8), (96, 400, 16), (400, 96, 1), (20, 30, 64), (20, 90, 40)]
)
def test_singular_values_are_those_of_the_dense_product(m, n, r):
    left, right = factors(m, n, r)
    spectrum = solve_product(left, right, 0.5)
    rank = min(m, n, r)
    dense = np.linalg.svd(0.5 * left @ right, compute_uv=False)[:rank][::-1]
    np.testing.assert_allclose(np.sqrt(spectrum.evals), dense, rtol=1e-13, atol=0)
    assert (spectrum.N, spectrum.M, spectrum.evals.size) == (max(m, n), min(m, n), rank)
    assert (spectrum.method, spectrum.device, spectrum.slices) == ("lora_qr", "cpu", None)
    assert not spectrum.evals.flags.writeable


def test_the_scale_enters_squared_and_without_sign():
    left, right = factors(50, 40, 4)
    one = solve_product(left, right).evals
    np.testing.assert_allclose(solve_product(left, right, -3.0).evals, 9 * one, rtol=1e-14)
    assert not solve_product(left, right, 0.0).evals.any()
    assert not solve_product(np.zeros((50, 4)), right).evals.any()


def test_squares_below_float64_are_no_zero_matrix():
    left, right = factors(50, 40, 4)
    with pytest.raises(NumericsError, match="underflow") as caught:
        solve_product(left * 1e-100, right * 1e-100)
    assert caught.value.kind is FailureKind.EIGENSOLVER_ERROR


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_factor_that_is_not_finite_is_refused(value):
    left, right = factors(50, 40, 4)
    right[1, 3] = value
    with pytest.raises(NumericsError) as caught:
        solve_product(left, right)
    assert caught.value.kind is FailureKind.NONFINITE
