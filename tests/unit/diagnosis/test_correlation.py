"""Strata against the pool: the published 36 models, and data made to fool a pooled coefficient."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scanner.diagnosis.correlation import RESAMPLES, correlate

NAMES = {"vgg": "VGG", "densenet": "DenseNet", "resnet": "ResNet", "ResNet-1K": "ResNet-1K"}

# VGG (8), DenseNet (4), ResNet (5), ResNet-1K (19), pooled, within, sign agreement, slope, R^2
EXPECTED = {
    "alpha": (0.86, 0.00, -0.60, -0.08, 0.14, 0.07, 0.50, -0.89, 0.00),
    "alpha_hat": (-0.93, -1, -1, -0.89, -0.63, -0.92, 1, -4.91, 0.87),
    "log_norm_F": (-0.79, -1, -1, -0.77, -0.55, -0.81, 1, -35.3, 0.75),
    "log_spectral_norm": (-0.93, -1, -1, -0.86, -0.61, -0.90, 1, -16.2, 0.86),
    "log_alpha_norm": (-0.93, -1, -1, -0.88, -0.63, -0.91, 1, -5.20, 0.86),
}


@pytest.fixture(scope="module")
def published() -> list[dict[str, str]]:
    """Per-model metrics and errors of the NatCom models, beside the checkout or in HUBSPECTRA_REFERENCE."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "reference"
    path = Path(os.environ.get("HUBSPECTRA_REFERENCE", beside)) / "trends_permodel.csv"
    if not path.is_file():
        pytest.skip(f"no {path}; set HUBSPECTRA_REFERENCE to the folder of trends_permodel.csv")
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def report(rows, metric):
    accuracy = [100 - float(row["top1_err"]) if row["top1_err"] else None for row in rows]
    return correlate([float(row[metric]) for row in rows], accuracy, [row["series"] for row in rows])


@pytest.mark.parametrize("metric", EXPECTED)
def test_the_published_table(published, metric):
    found = report(published, metric)
    vgg, densenet, resnet, resnet_1k, pooled, within, agreement, slope, r2 = EXPECTED[metric]
    taus = {NAMES[s.name]: s.tau for s in found.strata}
    assert {NAMES[s.name]: s.n for s in found.strata} == {
        "VGG": 8,
        "DenseNet": 4,
        "ResNet": 5,
        "ResNet-1K": 19,
    }
    assert (found.n, found.num_left_out) == (36, 4)
    assert taus == {
        "VGG": pytest.approx(vgg, abs=0.01),
        "DenseNet": pytest.approx(densenet, abs=0.01),
        "ResNet": pytest.approx(resnet, abs=0.01),
        "ResNet-1K": pytest.approx(resnet_1k, abs=0.01),
    }
    assert found.tau_pooled == pytest.approx(pooled, abs=0.01)
    assert found.tau_within == pytest.approx(within, abs=0.01)
    assert found.sign_agreement == pytest.approx(agreement)
    digits = 0.1 if abs(slope) >= 10 else 0.01
    assert found.slope == pytest.approx(slope, abs=digits)
    assert found.r2 == pytest.approx(r2, abs=0.01)
    assert found.global_order == (metric != "alpha")
    low, high = found.tau_interval
    assert low < found.tau_within < high


def test_the_published_regressions_on_alpha_hat(published):
    lines = {NAMES[s.name]: (s.rmse, s.r2) for s in report(published, "alpha_hat").strata}
    expected = {
        "VGG": (0.48, 0.92),
        "DenseNet": (0.16, 0.98),
        "ResNet": (0.61, 0.96),
        "ResNet-1K": (1.90, 0.87),
    }
    assert lines == {name: pytest.approx(pair, abs=0.01) for name, pair in expected.items()}


def test_four_published_models_in_order_are_no_evidence_at_the_usual_level(published):
    densenet = next(s for s in report(published, "alpha_hat").strata if s.name == "densenet")
    assert (densenet.tau, densenet.rho) == (pytest.approx(-1), pytest.approx(-1))
    assert densenet.tau_p == densenet.rho_p == pytest.approx(1 / 12)


def simpson(per_stratum=6, strata=3, step=10.0):
    """In each stratum the score rises with the metric; from stratum to stratum it falls."""
    metric = [s * step + i for s in range(strata) for i in range(per_stratum)]
    score = [i - 3 * s * step for s in range(strata) for i in range(per_stratum)]
    return metric, score, [f"family {s}" for s in range(strata) for _ in range(per_stratum)]


def test_simpson_cannot_fool_it():
    found = correlate(*simpson())
    assert found.tau_pooled == pytest.approx((3 * 15 - 3 * 36) / 153)
    assert found.tau_within == pytest.approx(1)
    assert found.sign_agreement == 1
    assert (found.slope, found.r2) == (pytest.approx(1), pytest.approx(1))
    assert not found.global_order
    assert "Simpson" in found.reason


def test_strata_that_agree_with_the_pool_have_one_order():
    metric, _, strata = simpson()
    found = correlate(metric, metric, strata)
    assert found.global_order
    assert "all 3 strata" in found.reason
    assert (found.tau_pooled, found.tau_within, found.rho_within) == (
        pytest.approx(1),
        pytest.approx(1),
        pytest.approx(1),
    )


def test_one_stratum_of_the_other_sign_refuses():
    metric, _, strata = simpson()
    score = [-value if name == "family 2" else value for value, name in zip(metric, strata, strict=True)]
    found = correlate(metric, score, strata)
    assert found.sign_agreement == pytest.approx(2 / 3)
    assert not found.global_order
    assert "family 2 -1.00" in found.reason


def test_four_models_count_for_signs_only_and_three_for_neither():
    big = list(range(6))
    four, three = [0, 1, 2, 3], [0, 1, 2]
    strata = ["big"] * 6 + ["four"] * 4 + ["three"] * 3
    found = correlate([*big, *four, *three], [*big, *four[::-1], *three[::-1]], strata)
    assert found.tau_within == pytest.approx(1)
    assert found.sign_agreement == 0.5
    without_four = correlate([*big, *three], [*big, *three[::-1]], ["big"] * 6 + ["three"] * 3)
    assert without_four.sign_agreement == 1
    assert without_four.slope < 1


def test_a_tau_of_zero_counts_against():
    big = list(range(6))
    found = correlate([*big, 0, 1, 2, 3], [*big, 1, 3, 0, 2], ["big"] * 6 + ["four"] * 4)
    assert next(s.tau for s in found.strata if s.name == "four") == 0
    assert found.sign_agreement == 0.5
    assert not found.global_order


def test_a_constant_metric_has_no_tau_and_counts_against():
    big = list(range(6))
    found = correlate([*big, *[0.1] * 7], [*big, *range(7)], ["big"] * 6 + ["flat"] * 7)
    flat = next(s for s in found.strata if s.name == "flat")
    assert (flat.tau, flat.tau_p, flat.rho, flat.rho_p, flat.slope) == (None,) * 5
    assert found.tau_within == pytest.approx(1)
    assert found.slope == pytest.approx(1)
    assert found.sign_agreement == 0.5
    assert "flat none" in found.reason


def test_a_metric_constant_everywhere_says_nothing():
    found = correlate([0.1] * 12, list(range(12)), ["a"] * 6 + ["b"] * 6)
    assert (found.tau_pooled, found.tau_within, found.rho_pooled, found.tau_interval) == (None,) * 4
    assert (found.slope, found.r2) == (None, None)
    assert not found.global_order


def test_a_constant_score_is_not_explained():
    found = correlate(list(range(6)), [0.7] * 6, ["a"] * 6)
    assert (found.slope, found.r2, found.strata[0].rmse) == (0, 0, 0)
    assert found.tau_within is None


def test_no_stratum_of_five_refuses():
    found = correlate([1, 2, 3, 4] * 2, [1, 2, 3, 4] * 2, ["a"] * 4 + ["b"] * 4)
    assert (found.tau_within, found.tau_interval) == (None, None)
    assert found.sign_agreement == 1
    assert not found.global_order
    assert "5 models" in found.reason


def test_one_stratum_promises_nothing_of_others():
    found = correlate(list(range(6)), list(range(6)), ["a"] * 6)
    assert found.global_order
    assert "nothing is known" in found.reason


def test_nothing_at_all():
    found = correlate([], [], [])
    assert (found.n, found.strata, found.sign_agreement, found.global_order) == (0, (), None, False)


def test_models_without_numbers_are_counted_and_left_out():
    metric = [0.0, 1, 2, 3, 4, None, math.nan, math.inf, 9, 9, 1e200]
    score = [0.0, 1, 2, 3, 4, 1, 1, 1, None, math.nan, 1]
    found = correlate([*metric, 5], [*score, 5], ["a"] * 11 + [None])
    assert (found.n, found.num_left_out) == (5, 7)
    assert found.tau_within == pytest.approx(1)


def test_columns_of_unequal_length_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        correlate([1, 2], [1], ["a", "a"])


@pytest.mark.parametrize("scale", [1e-320, 1e-160, 1e99])
def test_extreme_scales_do_not_overflow(scale):
    found = correlate([i * scale for i in range(-2, 3)], [-1e100, 1e100, -1e99, 0.0, 1e100], ["a"] * 5)
    assert found.n == 5
    assert found.tau_within == correlate([0, 1, 2, 3, 4], [-3, 2, -2, 0, 2], ["a"] * 5).tau_within


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_exact_p_of_kendall_is_scipys_without_ties(n):
    random = np.random.default_rng(n)
    for _ in range(10):
        x, y = random.permutation(n), random.permutation(n)
        expected = stats.kendalltau(x, y, method="exact").pvalue
        assert correlate(list(x), list(y), ["a"] * n).strata[0].tau_p == pytest.approx(expected)


@pytest.mark.parametrize("coefficient", [stats.kendalltau, stats.spearmanr])
def test_exact_p_with_ties_is_that_of_all_pairings(coefficient):
    x, y = np.array([1.0, 1, 2, 3, 3, 4]), np.array([0.0, 2, 2, 1, 5, 5])

    def statistic(paired):
        return abs(coefficient(paired, y).statistic) + 1e-12

    exact = stats.permutation_test(
        (x,), statistic, permutation_type="pairings", n_resamples=np.inf, alternative="greater"
    )
    stratum = correlate(list(x), list(y), ["a"] * 6).strata[0]
    found = stratum.tau_p if coefficient is stats.kendalltau else stratum.rho_p
    assert found == pytest.approx(exact.pvalue)


def test_no_p_is_below_what_n_models_can_reach():
    for n in range(2, 15):
        stratum = correlate(list(range(n)), list(range(n)), ["a"] * n).strata[0]
        assert stratum.rho_p >= 2 / math.factorial(n) * (1 - 1e-12)
        assert stratum.tau_p == pytest.approx(2 / math.factorial(n), rel=1e-6)


def test_the_interval_is_that_of_resampled_models():
    x, y = [1.0, 1, 2, 3, 4, 4, 7], [2.0, 1, 1, 5, 3, 6, 6]
    pairs = np.array(sorted(zip(x, y, strict=True)))
    drawn = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), size=RESAMPLES)
    taus = []
    for counts in drawn:
        resample = np.repeat(pairs, counts, axis=0)
        taus.append(stats.kendalltau(resample[:, 0], resample[:, 1]).statistic)
    expected = np.nanquantile(taus, [0.025, 0.975])
    assert correlate(x, y, ["a"] * 7, seed=3).tau_interval == pytest.approx(tuple(expected))


def test_the_interval_of_a_large_stratum_is_found_in_blocks():
    random = np.random.default_rng(0)
    x = random.normal(size=700)
    found = correlate(list(x), list(x + random.normal(size=700)), ["a"] * 700)
    low, high = found.tau_interval
    error = 2 * math.sqrt(1 / 700)
    assert found.tau_within - 2 * error < low < found.tau_within < high < found.tau_within + 2 * error


values = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from("abc")), min_size=1, max_size=25
)


@settings(deadline=None, max_examples=40)
@given(values, st.randoms(use_true_random=False))
def test_neither_order_nor_units_of_the_models_matter(models, random):
    found = correlate(*zip(*models, strict=True))
    shuffled = random.sample(models, len(models))
    assert correlate(*zip(*shuffled, strict=True)) == found
    metric, score, strata = zip(*models, strict=True)
    scaled = correlate([x * 4.0 for x in metric], [2.0 * y - 8 for y in score], strata)
    assert scaled.tau_within == found.tau_within
    assert scaled.tau_interval == found.tau_interval
    assert scaled.global_order == found.global_order


@settings(deadline=None, max_examples=40)
@given(values)
def test_a_negated_score_turns_every_sign(models):
    metric, score, strata = zip(*models, strict=True)
    found, turned = correlate(metric, score, strata), correlate(metric, [-y for y in score], strata)
    assert turned.sign_agreement == found.sign_agreement
    assert turned.global_order == found.global_order
    for name in ("tau_pooled", "tau_within", "rho_pooled", "rho_within", "slope"):
        one, other = getattr(found, name), getattr(turned, name)
        assert (one is None) == (other is None)
        assert one is None or one == pytest.approx(-other, abs=1e-9)
