"""Large matrices to a band and the band to tridiagonal form, against LAPACK."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eig_banded, eigh_tridiagonal

from scanner.spectra.band import BAND, band_of
from scanner.spectra.chasing import chase

EPS = np.finfo(float).eps


def gram(side, seed=0, decay=0.0):
    values = np.random.default_rng(seed).standard_normal((side + 3, side)) * np.arange(1, side + 1) ** -decay
    return values.T @ values


def banded(side, width, seed=0):
    """A band [j, d] = (j + d, j), and zeros beyond the matrix."""
    band = np.random.default_rng(seed).standard_normal((side, width + 1))
    band[np.add.outer(np.arange(side), np.arange(width + 1)) >= side] = 0.0
    return band


def of_band(band):
    side, width = band.shape
    return eig_banded(band.T[: min(side, width)], lower=True, eigvals_only=True)


def chased(band, scale=1.0):
    diagonal, squares = np.empty(len(band)), np.empty(len(band))
    chase(band, scale, diagonal, squares)
    assert squares[-1] == 0.0
    return eigh_tridiagonal(diagonal, np.sqrt(squares[:-1]), eigvals_only=True)


@pytest.mark.parametrize("side", [1, 2, 63, 64, 65, 128, 200, 333])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_a_band_keeps_the_eigenvalues(side, decay):
    matrix = gram(side, decay=decay)
    expected = np.linalg.eigvalsh(matrix)
    rubbish = np.tril(matrix) + np.triu(np.full((side, side), np.nan), 1)
    np.testing.assert_allclose(of_band(band_of(rubbish)), expected, rtol=0, atol=100 * EPS * expected[-1])


@pytest.mark.parametrize("side", [64, 192, 200])
def test_only_a_spent_matrix_is_overwritten(side):
    matrix = gram(side)
    room = np.full((side, side + 24), np.nan)
    room[:, :side] = matrix
    np.testing.assert_array_equal(band_of(room[:, :side], spent=True), band_of(matrix))
    np.testing.assert_array_equal(matrix, gram(side))
    assert np.isnan(room[:, side:]).all()


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((150, 150)),
        np.eye(150),
        np.ones((150, 150)),
        np.diag(np.arange(150.0)),
        gram(150) * np.outer(np.arange(150) < 30, np.arange(150) < 30),
    ],
    ids=["zero", "identity", "ones", "diagonal", "deficient"],
)
def test_columns_without_anything_to_reflect(matrix):
    expected = np.linalg.eigvalsh(matrix)
    atol = 100 * EPS * max(expected[-1], 1e-300)
    found = band_of(matrix)
    np.testing.assert_allclose(of_band(found), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(chased(found), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("side", [2, 3, 8, 9, 17, 50, 203, 333])
@pytest.mark.parametrize("width", [1, 8, 12, 32, BAND])
def test_chasing_keeps_the_eigenvalues(side, width):
    band = banded(side, width)
    expected = of_band(band)
    top = abs(expected).max()
    np.testing.assert_allclose(chased(band), expected, rtol=0, atol=100 * EPS * top)
    np.testing.assert_allclose(chased(band, 0.25), expected / 4, rtol=0, atol=25 * EPS * top)


def test_the_chase_of_one_number_is_that_number():
    assert chased(np.array([[3.0, 0.0]])) == [3.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 150), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_band(side, width, seed):
    band = banded(side, width, seed)
    expected = of_band(band)
    np.testing.assert_allclose(chased(band), expected, rtol=0, atol=100 * EPS * abs(expected).max())
