"""Norms, ranks and entropies against numbers worked by hand, exact fractions and numpy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats

from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.metrics import EPS, alpha_weighted, log_alpha_norm, norms
from schemas.results import Spectrum


def spectrum(*evals, N=None, method="gram_f64", slices=None):
    values = np.sort(np.array(evals, dtype=np.float64))
    return Spectrum(evals=values, N=N or len(values), M=len(values), method=method, slices=slices)


def test_the_worked_example():
    found = norms(spectrum(1, 2, 3, 4, 10, N=10))
    assert (found.norm, found.lambda_max, found.stable_rank) == (20.0, 10.0, 2.0)
    assert found.entropy == pytest.approx(0.828286, abs=5e-7)
    assert found.eff_rank == pytest.approx(3.792685, abs=5e-7)
    assert found.log_norm == pytest.approx(math.log10(20))
    assert found.log_spectral_norm == 1.0
    assert found.log_spectral_norm_n == 0.0
    assert found.log_soft_rank == pytest.approx(math.log10(20))
    assert (found.rank0_frac, found.hard_rank) == (0.0, None)


def test_entropy_is_shannons():
    evals = np.random.default_rng(0).pareto(1.0, 200)
    nats = scipy.stats.entropy(evals)
    found = norms(spectrum(*evals))
    assert found.entropy == pytest.approx(nats / math.log(200), rel=1e-12)
    assert found.eff_rank == pytest.approx(math.exp(nats), rel=1e-12)


def test_norms_are_those_of_the_matrix():
    array = np.random.default_rng(0).standard_normal((30, 20))
    found = norms(solve(DenseWeights(array)))
    assert found.norm == pytest.approx(np.linalg.norm(array) ** 2)
    assert found.lambda_max == pytest.approx(np.linalg.norm(array, 2) ** 2)


def test_equal_eigenvalues_spread_evenly():
    found = norms(spectrum(*[7.0] * 16))
    assert found.stable_rank == pytest.approx(16)
    assert found.eff_rank == pytest.approx(16)
    assert found.entropy == pytest.approx(1)


def test_one_live_eigenvalue_carries_everything():
    found = norms(spectrum(0, 0, 0, 5))
    assert (found.stable_rank, found.eff_rank, found.entropy) == (1.0, 1.0, 0.0)
    assert found.rank0_frac == 0.75


def test_a_single_eigenvalue_has_no_entropy():
    assert norms(spectrum(5.0)).entropy == 0.0


def test_zero_spectrum_has_no_norms():
    assert norms(spectrum(0.0, 0.0)) is None


@pytest.mark.parametrize(("small", "share"), [(1e-6, 0.5), (1.0000001e-6, 0.0)])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_rank0_counts_relative_to_the_largest(small, share, scale):
    assert norms(spectrum(small * scale, scale)).rank0_frac == share


@pytest.mark.parametrize(("top", "defined"), [(10**0.049, False), (10**0.051, True), (10**-0.051, True)])
def test_log_soft_rank_needs_a_denominator(top, defined):
    assert (norms(spectrum(0.1, top)).log_soft_rank is not None) is defined


def test_hard_rank_counts_singular_values_above_round_off():
    sigma = np.array([0.0, 0.9, 1.1, 1e6]) * [1, 4 * EPS, 4 * EPS, 1e-6]
    assert norms(spectrum(*sigma**2, N=4, method="svd_f64")).hard_rank == 2


def test_hard_rank_of_a_convolution_is_summed_over_slices():
    slices = np.array([[0.0, 1.0], [1e-36, 1e-36]])
    pooled = spectrum(*slices.ravel(), N=2, method="svd_f64", slices=slices)
    assert norms(pooled).hard_rank == 3


def test_alpha_weighted():
    assert alpha_weighted(2.5, 1000.0) == pytest.approx(7.5)


def test_log_alpha_norm_in_exact_arithmetic():
    exact = sum(Fraction(x) ** 3 for x in (1, 2, 3, 4, 10))
    assert log_alpha_norm(np.array([1.0, 2, 3, 4, 10]), 3.0) == pytest.approx(math.log10(exact))


@pytest.mark.parametrize(("top", "alpha"), [(1e5, 100.0), (1e-5, 100.0), (1e250, 8.0)])
def test_log_alpha_norm_neither_overflows_nor_underflows(top, alpha):
    evals = np.array([0.0, top, top])
    assert log_alpha_norm(evals, alpha) == pytest.approx(alpha * math.log10(top) + math.log10(2))
