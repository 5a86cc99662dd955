"""The permuted null: fixed distances, counts of traps, seeds, and what permuting must keep."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial.distance import jensenshannon

from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.moments import Moments, MomentsAccumulator
from scanner.spectra.null import (
    NullFit,
    compare_to_null,
    null_seed,
    rand_distance,
    rand_distance_ww,
    randomised,
)
from schemas.config import BulkRules
from schemas.results import BlockStatus

Floats = NDArray[np.float64]
REFERENCE_SHAPE = (1000, 400)
FIXED_SEED = 4532266753194694116


def null_of(array: NDArray[Any], seed: int = 0, rules: BulkRules | None = None) -> NullFit:
    entries = MomentsAccumulator()
    weights = DenseWeights(array)
    spectrum = solve(weights, observe=entries.add)
    return compare_to_null(spectrum, solve(randomised(weights, seed)), entries.result(), rules)


def semicircle_quantiles(u: Floats) -> Floats:
    """Marchenko-Pastur quantiles at Q = 1, where 4 sin^2 t has distribution (2/pi)(t + sin t cos t)."""
    t = [brentq(lambda t, v=v: (t + math.sin(t) * math.cos(t)) * 2 / math.pi - v, 0, math.pi / 2) for v in u]
    return 4 * np.sin(t) ** 2


@pytest.fixture(scope="module")
def fixed_pair() -> tuple[Floats, Floats]:
    u = (np.arange(1, 385) - 0.5) / 384
    heavy, random = (1 - u) ** (-1 / 1.5), semicircle_quantiles(u)
    return heavy, random * heavy.sum() / random.sum()


def test_fixed_distances(fixed_pair: tuple[Floats, Floats]) -> None:
    assert rand_distance(*fixed_pair) == pytest.approx(0.4808, abs=1e-3)
    assert rand_distance_ww(*fixed_pair) == pytest.approx(0.25142, abs=1e-4)


def test_sorted_distance_is_scipys(fixed_pair: tuple[Floats, Floats]) -> None:
    assert rand_distance_ww(*fixed_pair) == pytest.approx(jensenshannon(*fixed_pair), rel=1e-12)


def test_distances_are_symmetric_and_bounded(fixed_pair: tuple[Floats, Floats]) -> None:
    heavy, random = fixed_pair
    assert rand_distance(heavy, random) == pytest.approx(rand_distance(random, heavy), rel=1e-12)
    assert rand_distance(heavy, heavy) == rand_distance_ww(heavy, heavy) == 0
    apart = rand_distance(np.geomspace(1, 2, 80), np.geomspace(1e3, 2e3, 80))
    assert apart == pytest.approx(math.sqrt(math.log(2)), rel=1e-12)


def test_zeros_count_as_the_floor() -> None:
    top = np.geomspace(1.0, 10.0, 70)
    zeros = np.append(np.zeros(10), top)
    floored = np.append(np.full(10, 1e-5), top)
    assert rand_distance(zeros, floored) == 0
    assert np.isfinite(rand_distance_ww(zeros, np.linspace(0, 1, 80)))


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_has_no_traps(seed: int) -> None:
    fit = null_of(np.random.default_rng(seed).normal(size=REFERENCE_SHAPE), seed)
    assert (fit.status, fit.num_traps, fit.trap_cause) == (BlockStatus.OK, 0, None)
    assert fit.rand_distance < 0.12
    assert fit.rand_distance_ww < 0.02
    assert fit.rand_softrank == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_mean_is_one_trap(seed: int) -> None:
    fit = null_of(np.random.default_rng(seed).normal(0.3, 1, size=REFERENCE_SHAPE), seed)
    assert (fit.num_traps, fit.trap_cause) == (1, "mean")
    assert fit.rand_lambda_max > 0.3**2 * math.prod(REFERENCE_SHAPE)


@pytest.mark.parametrize(("freedom", "least", "most"), [(1.5, 8, 40), (3.0, 1, 12)])
def test_heavy_entries_are_traps(freedom: float, least: int, most: int) -> None:
    for seed in range(3):
        fit = null_of(np.random.default_rng(seed).standard_t(freedom, REFERENCE_SHAPE), seed)
        assert least <= fit.num_traps <= most
        assert fit.trap_cause == "elements"


def test_correlation_is_far_from_its_null() -> None:
    matrix = np.random.default_rng(0).normal(size=REFERENCE_SHAPE) * np.arange(1, 401) ** -0.5
    fit = null_of(matrix)
    assert fit.rand_softrank < 0.1
    assert fit.rand_distance > 0.3
    assert fit.rand_distance_ww > 0.3


def test_a_constant_matrix_is_one_trap_of_its_mean() -> None:
    fit = null_of(np.full((80, 60), 0.3))
    assert (fit.num_traps, fit.trap_cause) == (1, "mean")


def test_scale_changes_only_lambda() -> None:
    matrix = np.random.default_rng(4).standard_t(3, (120, 80))
    base, scaled = null_of(matrix), null_of(matrix * 2.0**-20)
    assert scaled.rand_lambda_max == base.rand_lambda_max * 2.0**-40
    assert (scaled.num_traps, scaled.trap_cause) == (base.num_traps, base.trap_cause)
    for name in ("rand_softrank", "rand_distance", "rand_distance_ww"):
        assert getattr(scaled, name) == pytest.approx(getattr(base, name), rel=1e-9)


def slice_scaled_conv(seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(64, 64, 3, 3)) * np.exp(0.35 * rng.normal(size=(3, 3)))


@pytest.mark.parametrize("seed", range(3))
def test_slices_of_unlike_scale_are_no_traps(seed: int) -> None:
    fit = null_of(slice_scaled_conv(seed), seed)
    assert fit.num_traps == 0
    assert fit.rand_distance < 0.2


def test_a_mean_in_every_slice_is_a_trap_in_every_slice() -> None:
    fit = null_of(
        np.random.default_rng(0).normal(0.3, 1, (64, 64, 3, 3)) * np.geomspace(0.01, 100, 9).reshape(3, 3)
    )
    assert fit.num_traps == 9


def test_a_zero_slice_is_left_out() -> None:
    weights = slice_scaled_conv(0)
    weights[:, :, 1, 1] = 0
    fit = null_of(weights)
    assert (fit.status, fit.num_traps) == (BlockStatus.OK, 0)


@pytest.mark.parametrize(
    ("shape", "status"),
    [((49, 200), "too_small"), ((50, 200), "ok"), ((15, 64, 3, 3), "too_small"), ((16, 64, 3, 3), "ok")],
)
def test_limits(shape: tuple[int, ...], status: str) -> None:
    fit = null_of(np.random.default_rng(0).normal(size=shape))
    assert fit.status == status
    assert (fit.num_traps is None) == (status != "ok")


def test_a_zero_matrix_fails() -> None:
    assert null_of(np.zeros((60, 60))) == NullFit(status=BlockStatus.FAILED)


def test_entries_without_moments_fail() -> None:
    spectrum = solve(DenseWeights(np.random.default_rng(0).normal(size=(80, 60))))
    unknown = Moments(count=4800, num_nonfinite=1)
    assert compare_to_null(spectrum, spectrum, unknown) == NullFit(status=BlockStatus.FAILED)


def whole(weights: DenseWeights) -> Floats:
    return weights.block(slice(None), slice(None))


def test_permuting_keeps_the_entries_and_the_input() -> None:
    matrix = np.random.default_rng(0).normal(size=(40, 70))
    before = matrix.copy()
    mixed = whole(randomised(DenseWeights(matrix), 5))
    assert np.array_equal(matrix, before)
    assert mixed.shape == matrix.shape
    assert not np.array_equal(mixed, matrix)
    assert np.array_equal(np.sort(mixed, axis=None), np.sort(matrix, axis=None))


def test_permuting_stays_within_a_slice() -> None:
    weights = slice_scaled_conv(0)
    mixed = whole(randomised(DenseWeights(weights), 5))
    assert not np.array_equal(mixed, weights)
    for place in np.ndindex(3, 3):
        ours, theirs = (array[(slice(None), slice(None), *place)] for array in (mixed, weights))
        assert np.array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))


def test_slices_are_permuted_independently() -> None:
    same = np.repeat(np.random.default_rng(0).normal(size=(16, 20, 1)), 4, axis=2)
    mixed = whole(randomised(DenseWeights(same), 5))
    assert not np.array_equal(mixed[:, :, 0], mixed[:, :, 1])


def test_the_seed_decides_the_permutation() -> None:
    weights = DenseWeights(np.random.default_rng(0).normal(size=(30, 30)))
    assert np.array_equal(whole(randomised(weights, 2**64 - 1)), whole(randomised(weights, 2**64 - 1)))
    assert not np.array_equal(whole(randomised(weights, 1)), whole(randomised(weights, 2)))


def test_seeds_are_fixed_for_ever() -> None:
    assert null_seed(0, "owner/name", "0" * 40, "layer.weight", None) == FIXED_SEED


def test_every_argument_changes_the_seed() -> None:
    base = (0, "owner/name", "a" * 40, "layer.weight", None)
    others = [(1, *base[1:]), (0, "owner/other", *base[2:]), (*base[:2], "b" * 40, *base[3:])]
    others += [(*base[:3], "layer.bias", None), (*base[:4], ""), (*base[:4], "q")]
    seeds = {null_seed(*args) for args in [base, *others]}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**64 for seed in seeds)
