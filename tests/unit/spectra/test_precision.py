"""Who gets float32, and that its certificate refuses what float32 gets wrong."""

import numpy as np
import pytest

from scanner.spectra.moments import MomentsAccumulator
from scanner.spectra.precision import adds_up, has_strong_float64, least_distance, refusal, tries_single
from scanner.spectra.tailfit import fit_tail
from schemas.config import ScanConfig, SpectrumRules
from schemas.results import Spectrum

CONFIG = ScanConfig()


def in_single(array):
    """The float32 spectrum of an array, its float64 one, and the moments."""
    entries = MomentsAccumulator()
    entries.add(np.ascontiguousarray(array))
    tall = array if array.shape[0] >= array.shape[1] else array.T
    about = {"N": max(array.shape), "M": min(array.shape)}
    low = tall.astype(np.float32)
    single = np.maximum(np.linalg.eigvalsh(low.T @ low).astype(float), 0.0)
    double = np.maximum(np.linalg.eigvalsh(tall.T @ tall), 0.0)
    return (
        Spectrum(evals=single, method="gram_f32", **about),
        Spectrum(evals=double, method="gram_f64", **about),
        entries.result(),
    )


def layer(rows, columns, seed, power=0.0):
    values = np.random.default_rng(seed).standard_normal((rows, columns))
    return values * np.arange(1, columns + 1) ** -power


@pytest.mark.parametrize("shape", [(400, 100), (900, 300), (200, 200), (100, 350)])
@pytest.mark.parametrize("power", [0.0, 0.1, 0.2])
def test_what_is_certified_has_the_alpha_of_float64(shape, power):
    accepted = 0
    for seed in range(4):
        single, double, moments = in_single(layer(*shape, seed, power))
        if refusal(single, moments, CONFIG) is None:
            accepted += 1
            assert fit_tail(single).alpha == pytest.approx(fit_tail(double).alpha, rel=2e-5)
            assert fit_tail(single).xmin == pytest.approx(fit_tail(double).xmin, rel=1e-4)
    assert accepted >= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_rank_one_outlier_is_refused(seed):
    array = layer(300, 100, seed)
    left, right = np.ones(300) / 300**0.5, np.ones(100) / 10
    single, _, moments = in_single(array + 2000 * np.outer(left, right))
    assert "lambda_max / xmin" in refusal(single, moments, CONFIG)


def test_a_collapsed_spectrum_is_refused():
    rng = np.random.default_rng(0)
    single, _, moments = in_single(rng.standard_normal((200, 60)) @ rng.standard_normal((60, 120)))
    assert "below the resolution" in refusal(single, moments, CONFIG)


@pytest.mark.parametrize(("shape", "seed"), [((400, 100), 2), ((900, 300), 0), ((200, 200), 8)])
def test_starts_that_fit_equally_well_are_refused(shape, seed):
    """Draws whose two best candidates differ by less than float32 can tell, found among 144."""
    single, double, moments = in_single(layer(*shape, seed, 0.2))
    assert fit_tail(double).near_ties == 1
    assert refusal(single, moments, CONFIG) == "float32 leaves xmin uncertain"


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_ends_of_float32_are_refused(scale):
    _, plain, _ = in_single(layer(400, 100, 0))
    scaled = Spectrum(evals=plain.evals * scale**2, N=400, M=100, method="gram_f32")
    entries = MomentsAccumulator()
    entries.add(layer(400, 100, 0) * scale)
    assert "range of float32" in refusal(scaled, entries.result(), CONFIG)


def test_eigenvalues_must_add_up_to_the_entries():
    single, double, moments = in_single(layer(400, 100, 0))
    assert adds_up(double, moments, 1e-12)
    wrong = single.evals.copy()
    wrong[-1] *= 1.001
    broken = Spectrum(evals=wrong, N=400, M=100, method="gram_f32")
    assert refusal(broken, moments, CONFIG) == "the eigenvalues do not add up"


@pytest.mark.parametrize("seed", range(5))
def test_no_power_law_from_below_comes_closer_than_the_bound(seed):
    """Every start below the sample and every exponent, against the two-sided distance by brute force."""
    rng = np.random.default_rng(seed)
    x = np.sort(np.linalg.eigvalsh(np.cov(rng.standard_normal((150, 300)))))
    bound = least_distance(x, x.size)
    place = np.arange(x.size)
    best = 1.0
    for start in x[0] * np.logspace(-8, 0, 40):
        for b in np.logspace(-2, 1, 60):
            model = (start / x) ** b
            best = min(best, np.abs(model - (x.size - place) / x.size).max())
    assert 0.05 < bound <= best


def test_a_straight_tail_has_no_bound():
    x = np.arange(1, 301)[::-1] ** -0.5
    assert least_distance(x, x.size) < 0.02


@pytest.mark.parametrize(
    ("name", "capability", "strong"),
    [
        ("Tesla P100", (6, 0), True),
        ("Tesla V100", (7, 0), True),
        ("NVIDIA A100-SXM4-80GB", (8, 0), True),
        ("NVIDIA H200", (9, 0), True),
        ("NVIDIA B200", (10, 0), True),
        ("NVIDIA B300", (10, 3), False),
        ("Tesla T4", (7, 5), False),
        ("NVIDIA A10", (8, 6), False),
        ("NVIDIA L4", (8, 9), False),
        ("NVIDIA GeForce RTX 5090", (12, 0), False),
        ("AMD Instinct MI300X", (9, 4), True),
        ("a card of tomorrow", (13, 7), False),
    ],
)
def test_cards_are_told_apart_by_their_float64(name, capability, strong):
    assert has_strong_float64(name, capability) is strong


@pytest.mark.parametrize(
    ("precision", "strong", "single"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("float64", False, False),
        ("float64", True, False),
        ("float32", True, True),
        ("float32", False, True),
    ],
)
def test_the_policy(precision, strong, single):
    rules = SpectrumRules(precision=precision)
    assert tries_single(ScanConfig(spectrum=rules), strong) is single
    assert not tries_single(ScanConfig(profile="weightwatcher", spectrum=rules), strong)
