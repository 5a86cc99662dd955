"""The reflections of a panel against what they are for: an orthogonal matrix that makes it triangular."""

import numpy as np
import pytest

from scanner.spectra.panel import reflect


def panel(rows, columns, seed=0):
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    return values / abs(values).max()


def reflected(block):
    v, columns = block.copy(), block.shape[1]
    t, r = np.full((columns, columns), np.nan), np.full((columns, columns), np.nan)
    reflect(v, t, r)
    return v, t, r


def assert_triangular(block):
    (rows, columns), (v, t, r) = block.shape, reflected(block)
    q = np.eye(rows) - v @ t @ v.T
    np.testing.assert_allclose(q @ q.T, np.eye(rows), rtol=0, atol=2e-14)
    np.testing.assert_allclose(q[:, :columns] @ r, block, rtol=0, atol=1e-14 * np.sqrt(rows))
    np.testing.assert_array_equal(np.tril(r, -1), 0.0)
    np.testing.assert_array_equal(np.triu(v[:columns]), np.eye(columns))


@pytest.mark.parametrize("rows", [64, 80, 448])
@pytest.mark.parametrize("columns", [16, 32, 64])
def test_a_panel_becomes_triangular(rows, columns):
    assert_triangular(panel(rows, columns))


def graded(block):
    return block * 0.5 ** np.arange(block.shape[1])


def tied(block):
    return np.hstack([block[:, :24], block[:, :24], block[:, :16]])


def holed(block):
    return block * (np.arange(block.shape[1]) % 5 > 0)


def short(block):
    return block * (np.arange(len(block)) < 30)[:, None]


@pytest.mark.parametrize("spoil", [graded, tied, holed, short, np.zeros_like, np.ones_like])
def test_whatever_its_columns(spoil):
    assert_triangular(spoil(panel(192, 64)))


def test_round_off_does_not_add_up_over_equal_numbers():
    """Where a sum goes on over 4000 of them the error of Q is 5e-13."""
    block = np.full((4000, 16), 1 / 3)
    v, t, _ = reflected(block)
    norms = np.linalg.norm(v, axis=0)
    off = (t.T @ (v.T @ v) @ t - t - t.T) * np.outer(norms, norms)
    assert abs(off).max() < 1e-13


def test_the_triangle_is_that_of_lapack_but_for_signs():
    block = panel(192, 64)
    expected = np.linalg.qr(block, mode="r")
    np.testing.assert_allclose(abs(reflected(block)[2]), abs(expected), rtol=0, atol=1e-13)
