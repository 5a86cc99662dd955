"""The Marchenko-Pastur bulk: published medians, quadrature, fixtures, and noise that must stay noise."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from scanner.spectra.bulk import TW1_99, TW1_999, fit_bulk, johnstone_edge, mp_cdf, mp_median
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.metrics import norms
from scanner.spectra.phases import classify
from scanner.spectra.tailfit import fit_tail
from schemas.config import BulkRules
from schemas.results import BlockStatus, Phase, Spectrum

MEDIANS = {1: 0.65278, 2: 0.83047, 2.5: 0.86489, 4: 0.91600, 10: 0.96657, 80: 0.99583}


def gaussian(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def bulk_of(array, rules=None):
    return fit_bulk(solve(DenseWeights(array)), rules)


def support(q):
    return (1 - q**-0.5) ** 2, (1 + q**-0.5) ** 2


def density(x, q):
    low, high = support(q)
    return math.sqrt(max((high - x) * (x - low), 0.0)) / (2 * math.pi * x / q)


@pytest.mark.parametrize("q", MEDIANS)
def test_medians(q):
    assert mp_median(q) == pytest.approx(MEDIANS[q], abs=1e-5)
    assert float(mp_cdf(np.array([mp_median(q)]), q)[0]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("q", [1.5, 2.5, 10.0])
def test_the_distribution_function_is_the_integral_of_the_density(q):
    low, high = support(q)
    points = low + (high - low) * np.array([0.05, 0.3, 0.6, 0.95])
    expected = [scipy.integrate.quad(density, low, x, args=(q,), epsabs=1e-12)[0] for x in points]
    np.testing.assert_allclose(mp_cdf(points, q), expected, atol=2e-7)
    np.testing.assert_array_equal(mp_cdf(np.array([low / 2, high * 2]), q), [0.0, 1.0])


def test_johnstones_edge():
    n, m = 1000, 400
    mean = (math.sqrt(999) + 20) ** 2
    spread = (math.sqrt(999) + 20) * (1 / math.sqrt(999) + 1 / 20) ** (1 / 3)
    assert johnstone_edge(n, m, 0.0) == pytest.approx(mean)
    assert johnstone_edge(n, m, TW1_99) == pytest.approx(mean + 2.0234 * spread)
    assert TW1_999 == 3.2724


@pytest.fixture(scope="module")
def spiked_quantiles():
    """390 quantiles of the law for Q = 2.5 and ten spikes, N = 1000, M = 400."""
    low, high = support(2.5)
    grid = np.linspace(low, high, 200_001)[1:-1]
    cdf = np.cumsum(np.sqrt((high - grid) * (grid - low)) / grid)
    quantiles = np.interp((np.arange(390) + 0.5) / 390, cdf / cdf[-1], grid)
    evals = np.concatenate([quantiles, [3, 4, 5, 6, 8, 10, 12, 15, 20, 30]]) * 1000
    return Spectrum(evals=np.sort(evals), N=1000, M=400, method="gram_f64")


def test_quantiles_with_spikes(spiked_quantiles):
    found = fit_bulk(spiked_quantiles)
    assert (found.status, found.mp_ok, found.num_spikes) == (BlockStatus.OK, True, 10)
    assert found.sigma2_mp == pytest.approx(1.0, rel=1e-4)
    assert found.lambda_plus == pytest.approx(2664.92, rel=1e-4)
    assert found.lambda_edge == pytest.approx(2708.58, rel=1e-4)
    assert found.mp_D == pytest.approx(0.00128, abs=1e-4)
    assert found.mp_softrank == pytest.approx(0.08883, rel=1e-3)
    assert found.mp_edge_ratio == pytest.approx(1 / found.mp_softrank)
    spikes = [3000, 4000, 5000, 6000, 8000, 10000, 12000, 15000, 20000, 30000]
    assert found.spike_mass == pytest.approx(sum(spikes) / spiked_quantiles.evals.sum())


def test_quantiles_with_spikes_are_bulk_and_spikes_though_a_tail_fits(spiked_quantiles):
    tail = fit_tail(spiked_quantiles)
    assert tail.alpha == pytest.approx(2.7564, abs=1e-3)
    assert (tail.n_tail, round(tail.D_ks, 4)) == (191, 0.1115)
    assert fit_tail(spiked_quantiles, "weightwatcher").alpha == pytest.approx(2.8264, abs=1e-3)
    phase = classify(norms(spiked_quantiles), fit_bulk(spiked_quantiles), tail, 400, 0.05)
    assert phase is Phase.BULK_SPIKES


@pytest.mark.parametrize(("shape", "seeds"), [((100, 50), 12), ((300, 300), 4), ((1000, 100), 6)])
def test_noise_is_a_bulk_without_spikes(shape, seeds):
    side = min(shape)
    spikes = 0
    for seed in range(seeds):
        found = bulk_of(gaussian(shape, seed) * 0.02)
        assert found.mp_ok
        assert found.mp_D < math.log(side) / side
        assert found.sigma2_mp == pytest.approx(4e-4, rel=0.12)
        spikes += found.num_spikes
    assert spikes <= 1


def test_the_soft_rank_of_noise_is_one_though_its_edge_ratio_may_be_less():
    found = [bulk_of(gaussian((300, 100), seed)) for seed in range(6)]
    assert any(fit.mp_edge_ratio < 1 for fit in found)
    for fit in found:
        assert fit.mp_softrank == pytest.approx(min(1.0, 1 / fit.mp_edge_ratio))
        assert fit.mp_softrank <= 1


@pytest.mark.parametrize(("kernel", "quantile"), [((), 2.0234), ((3,), 3.2724)])
def test_pooled_slices_have_an_edge_further_out(kernel, quantile):
    found = bulk_of(gaussian((80, 60, *kernel)))
    assert found.lambda_edge == pytest.approx(found.sigma2_mp * johnstone_edge(80, 60, quantile))
    assert found.lambda_plus == pytest.approx(found.sigma2_mp * (80**0.5 + 60**0.5) ** 2)


@pytest.mark.parametrize(("kernel", "share"), [((), 1.0), ((9,), 0.5)])
def test_the_distance_that_is_still_a_bulk(kernel, share):
    """Columns that decay ever faster leave the law; pooled slices are allowed half the distance."""
    limit = share * math.log(64) / 64
    decays = np.arange(1, 65).reshape(-1, *(1 for _ in kernel))
    found = [bulk_of(gaussian((64, 64, *kernel)) * decays**-power) for power in np.linspace(0, 2, 60)]
    assert [fit.mp_ok for fit in found] == [fit.mp_D <= limit for fit in found]
    assert any(limit < fit.mp_D < 2 * limit for fit in found)
    assert any(limit / 2 < fit.mp_D <= limit for fit in found)


@pytest.mark.parametrize("wide", [False, True])
def test_orientation_changes_nothing(wide):
    array = gaussian((200, 80))
    tall = bulk_of(array)
    assert bulk_of(array.T if wide else array).sigma2_mp == pytest.approx(tall.sigma2_mp, rel=1e-12)


@pytest.mark.parametrize("theta", [1.3, 3.0])
def test_a_planted_spike_stands_where_theory_puts_it(theta):
    """Baik, Ben Arous and Peche: lambda = N (1/Q + theta^2)(1 + 1/theta^2)."""
    n, m = 1000, 400
    rng = np.random.default_rng(3)
    u, v = rng.standard_normal(n), rng.standard_normal(m)
    planted = theta * math.sqrt(n) * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    spectrum = solve(DenseWeights(rng.standard_normal((n, m)) + planted))
    assert fit_bulk(spectrum).num_spikes == 1
    assert spectrum.evals[-1] / n == pytest.approx((m / n + theta**2) * (1 + theta**-2), rel=0.06)


def test_pooled_slices_are_standardised_first():
    """Nine Gaussian slices of different scale are noise; pooled as they are they would show many spikes."""
    spikes, distances = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        array = rng.standard_normal((64, 64, 9)) * np.exp(0.35 * rng.standard_normal(9))
        spectrum = solve(DenseWeights(array))
        found = fit_bulk(spectrum)
        assert found.mp_ok
        spikes.append(found.num_spikes)
        distances.append(found.mp_D)
        raw = fit_bulk(Spectrum(evals=spectrum.evals, N=64, M=64, method="gram_f64"))
        assert raw.num_spikes > 20
    assert sum(map(bool, spikes)) <= 1
    assert max(distances) < math.log(64) / 128
    assert np.mean(distances) == pytest.approx(0.015, abs=0.005)


def test_a_zero_slice_is_left_out():
    array = gaussian((64, 64, 8))
    with_zero = np.concatenate([array, np.zeros((64, 64, 1))], axis=2)
    assert bulk_of(with_zero).mp_D == bulk_of(array).mp_D


def test_a_convolution_of_zeros_has_no_bulk():
    assert bulk_of(np.zeros((64, 64, 3))).status is BlockStatus.NO_BULK


@pytest.mark.parametrize(
    ("shape", "status"),
    [
        ((60, 49), "too_small"),
        ((60, 50), "ok"),
        ((15, 40, 3, 3), "too_small"),
        ((16, 40, 3, 3), "ok"),
        ((16, 16, 3), "too_small"),
        ((17, 17, 3), "ok"),
    ],
)
def test_least_sizes(shape, status):
    found = bulk_of(gaussian(shape))
    assert found.status == status
    assert (found.mp_D is None) == (status != "ok")


def test_rules_move_the_least_sizes():
    assert bulk_of(gaussian((30, 20)), BulkRules(min_evals=20)).status is BlockStatus.OK


def test_a_spectrum_without_a_plateau_keeps_its_last_bulk_above_a_quarter_and_does_not_pass():
    evals = np.exp(np.linspace(-60, 0, 400))
    found = fit_bulk(Spectrum(evals=evals, N=1000, M=400, method="gram_f64"))
    assert found.status is BlockStatus.OK
    assert not found.mp_ok
    assert 200 < found.num_spikes <= 300


def test_variance_and_bulk_agree():
    """The variance is the median of the very eigenvalues that lie below the edge it implies."""
    array = gaussian((600, 300)) * np.arange(1, 301) ** -0.3
    spectrum = solve(DenseWeights(array))
    found = fit_bulk(spectrum)
    inside = spectrum.evals[spectrum.evals <= found.lambda_edge]
    assert found.num_spikes == 300 - inside.size > 0
    assert found.sigma2_mp == pytest.approx(np.median(inside) / (600 * mp_median(2.0)), rel=1e-2)
