"""Laws of the spectrum: what leaves it alone, what scales it, and what every norm must satisfy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.metrics import norms
from scanner.spectra.moments import MomentsAccumulator

SIDES = st.integers(1, 12)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.integers(1, 4)))
ENTRIES = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
MATRICES = SHAPES.flatmap(lambda shape: arrays(np.float64, shape, elements=ENTRIES))
FLAT = st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.float64, shape, elements=ENTRIES))
METHODS = st.sampled_from(["gram", "svd"])

quick = settings(max_examples=60, deadline=None)


def evals(array, **options):
    return solve(DenseWeights(array), **options).evals


def assert_equal_spectra(found, expected, scale=1.0):
    """Equal to a few hundred eps of the largest eigenvalue, which is all a Gram matrix promises."""
    np.testing.assert_allclose(found, expected * scale, rtol=0, atol=1e-12 * (expected[-1] * scale + 1e-300))


@quick
@given(MATRICES, METHODS)
def test_the_transpose_has_the_same_spectrum(array, method):
    assert_equal_spectra(evals(np.swapaxes(array, 0, 1), method=method), evals(array, method=method))


@quick
@given(MATRICES, METHODS, st.randoms(use_true_random=False))
def test_permuted_rows_and_columns_have_the_same_spectrum(array, method, random):
    rows = random.sample(range(array.shape[0]), array.shape[0])
    columns = random.sample(range(array.shape[1]), array.shape[1])
    assert_equal_spectra(evals(array[rows][:, columns], method=method), evals(array, method=method))


@quick
@given(FLAT, METHODS, st.integers(0, 2**32 - 1))
def test_rotated_rows_and_columns_have_the_same_spectrum(array, method, seed):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in array.shape)
    assert_equal_spectra(evals(left @ array @ right, method=method), evals(array, method=method))


@quick
@given(MATRICES, METHODS, st.floats(1e-12, 1e12))
def test_a_factor_comes_out_squared(array, method, c):
    assert_equal_spectra(evals(c * array, method=method), evals(array, method=method), scale=c**2)


@quick
@given(MATRICES, st.integers(-40, 40))
def test_a_power_of_two_changes_no_digit(array, power):
    np.testing.assert_array_equal(evals(array * 2.0**power), evals(array) * 4.0**power)


@quick
@given(MATRICES, st.integers(1, 15))
def test_blocks_change_nothing(array, block):
    assert_equal_spectra(evals(array, block=block), evals(array))


@quick
@given(MATRICES)
def test_gram_and_svd_agree(array):
    assert_equal_spectra(evals(array), evals(array, method="svd"))


@quick
@given(MATRICES, METHODS)
def test_eigenvalues_are_ascending_not_negative_and_sum_to_the_squares(array, method):
    found = evals(array, method=method)
    assert found.size == min(array.shape[:2]) * int(np.prod(array.shape[2:]))
    assert (found >= 0).all()
    assert (np.diff(found) >= 0).all()
    assert found.sum() == pytest.approx(np.square(array).sum(), rel=1e-10, abs=1e-300)


@quick
@given(MATRICES)
def test_norms_stay_in_their_ranges(array):
    found = norms(solve(DenseWeights(array)))
    if found is None:
        assert not array.any()
        return
    count = min(array.shape[:2]) * int(np.prod(array.shape[2:]))
    slack = 1 + 1e-12
    assert 1 / slack <= found.stable_rank <= count * slack
    assert 1 / slack <= found.eff_rank <= count * slack
    assert -1e-12 <= found.entropy <= slack
    assert 0 <= found.rank0_frac < 1
    assert found.lambda_max <= found.norm * slack


@quick
@given(arrays(np.float64, st.integers(1, 60), elements=ENTRIES), st.integers(1, 20))
def test_moments_do_not_depend_on_the_cuts(x, size):
    whole, cut = MomentsAccumulator(), MomentsAccumulator()
    whole.add(x)
    for start in range(0, x.size, size):
        cut.add(x[start : start + size])
    a, b = whole.result(), cut.result()
    assert (a.count, a.abs_max, a.zero_frac) == (b.count, b.abs_max, b.zero_frac)
    spread = np.abs(x).max() + 1e-300
    assert a.mean == pytest.approx(x.mean(), abs=1e-12 * spread)
    assert b.mean == pytest.approx(x.mean(), abs=1e-12 * spread)
    assert a.std == pytest.approx(x.std(), rel=1e-6, abs=1e-6 * spread)
    assert b.std == pytest.approx(x.std(), rel=1e-6, abs=1e-6 * spread)
