"""Moments of entries against scipy."""

import numpy as np
import pytest
import scipy.stats

from scanner.spectra.moments import MomentsAccumulator

RNG = np.random.default_rng(1)
SAMPLES = {
    "normal": RNG.standard_normal(5000),
    "heavy": RNG.standard_t(5, 5000),
    "far from zero": 1e6 + RNG.standard_normal(5000),
    "skewed": RNG.exponential(size=5000),
    "small": 1e-30 * RNG.standard_normal(5000),
    "large": 1e60 * RNG.standard_normal(5000),
    "two values": np.tile([1.0, -3.0], 2500),
}


def moments(*blocks):
    entries = MomentsAccumulator()
    for block in blocks:
        entries.add(np.ascontiguousarray(block, dtype=np.float64))
    return entries.result()


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("cuts", [[], [1], [1000, 1001, 4000]])
def test_moments_equal_those_of_scipy_however_the_blocks_are_cut(name, cuts):
    x = SAMPLES[name]
    found = moments(*np.split(x, cuts))
    assert (found.count, found.num_nonfinite, found.zero_frac) == (x.size, 0, 0.0)
    assert found.mean == pytest.approx(x.mean(), rel=1e-12, abs=1e-12 * x.std())
    assert found.std == pytest.approx(x.std(), rel=1e-9)
    assert found.abs_max == np.abs(x).max()
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(x), rel=1e-7, abs=1e-7)


def test_exact_zeros_are_counted():
    assert moments(np.array([[0.0, 1.0], [-0.0, 5e-324]])).zero_frac == 0.5


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-200])
def test_a_constant_has_no_kurtosis(value):
    found = moments(np.full((10, 10), value))
    assert (found.mean, found.std, found.kurtosis) == (value, 0.0, None)


@pytest.mark.parametrize("scale", [1e100, 1e-100])
def test_kurtosis_is_none_where_fourth_powers_leave_float64(scale):
    x = SAMPLES["normal"] * scale
    found = moments(x)
    assert found.kurtosis is None
    assert found.std == pytest.approx(x.std(), rel=1e-9)


def test_nonfinite_entries_are_counted_over_all_blocks():
    bad = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    found = moments(bad, np.ones(5), bad[:2])
    assert (found.count, found.num_nonfinite) == (12, 4)
    assert (found.mean, found.std, found.abs_max, found.zero_frac, found.kurtosis) == (None,) * 5


def test_nothing_added_is_nothing_known():
    found = MomentsAccumulator().result()
    assert (found.count, found.num_nonfinite, found.mean) == (0, 0, None)
