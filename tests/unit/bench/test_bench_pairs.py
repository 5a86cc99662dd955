"""The arithmetic of comparisons, and that unequal numbers get no time."""

import math

import numpy as np
import pytest

from jobs.bench.cases.tails import heavy_spectrum, no_worse, pareto
from jobs.bench.pairs import compare, figure, ratios
from jobs.bench.result import Agreement, Result, Target, Verdict, farthest
from scanner.spectra.alternatives import fit_alternatives, fit_truncated
from scanner.spectra.tailfit import fit_tail


def close(ours, theirs):
    return Agreement(what="numbers", worst=farthest(ours, theirs), limit=1e-9)


def test_the_ratio_is_the_median_of_the_ratios_of_pairs():
    found = ratios([1.0, 2.0, 4.0], [10.0, 10.0, 8.0], name="x", target=Target(bound=5.0))
    assert (found.value, found.low, found.high) == (5.0, 2.0, 10.0)
    assert (found.ours, found.theirs, found.pairs) == (2.0, 10.0, 3)
    assert found.verdict is Verdict.MET


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (Target(bound=3.0), Verdict.MET),
        (Target(bound=3.1), Verdict.MISSED),
        (Target(bound=3.0, at_least=False), Verdict.MET),
        (Target(bound=2.9, at_least=False), Verdict.MISSED),
        (None, Verdict.NO_TARGET),
    ],
)
def test_a_verdict_compares_the_value_with_the_target(target, verdict):
    assert Result(name="x", value=3.0, target=target).verdict is verdict


def test_what_has_no_value_was_not_run():
    assert Result(name="x", target=Target(bound=1.0)).verdict is Verdict.NOT_RUN


def test_a_figure_is_bounded_from_above():
    found = figure("x", [3.0, 1.0, 2.0], "s", at_most=2.0)
    assert (found.value, found.low, found.high, found.verdict) == (2.0, 1.0, 3.0, Verdict.MET)


def test_a_peer_with_wrong_numbers_gets_no_time():
    evals = heavy_spectrum(64)
    calls = []

    def wrong():
        calls.append(1)
        fit = fit_tail(evals)
        return (fit.alpha * (1 + 1e-6), fit.xmin)

    def ours():
        fit = fit_tail(evals)
        return (fit.alpha, fit.xmin)

    found = compare("fit", "a wrong peer", ours, wrong, judge=close, pairs=3, target=0.0)
    assert found.verdict is Verdict.UNEQUAL
    assert (found.value, found.ours, found.theirs) == (None, None, None)
    assert len(calls) == 1
    assert "1.0e-06 apart" in found.as_record()["equal"]


def test_both_sides_run_in_turn_after_one_run_of_each():
    calls = []
    found = compare(
        "x", "y", lambda: calls.append("a"), lambda: calls.append("b"),
        judge=lambda *_: close([1.0], [1.0]), pairs=2, clock=lambda work: work() or 1.0,
    )  # fmt: skip
    assert calls == list("ababab")
    assert (found.value, found.pairs) == (1.0, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "worst"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([None], [None], 0.0),
        ([None], [1.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
        ([math.nan], [1.0], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([], [], 0.0),
    ],
)
def test_the_farthest_relative_difference(ours, theirs, worst):
    assert farthest(ours, theirs) == pytest.approx(worst)


def test_nan_is_no_agreement():
    assert not Agreement(what="x", worst=math.nan, limit=1.0).holds


def test_a_likelihood_below_the_peer_s_is_seen():
    """The truncated power law's log-likelihood in x, integrated numerically, is what R says."""
    from scipy.integrate import quad

    x = pareto(300)
    logs = np.log(x)
    fit = fit_truncated(x, 1.0)
    weight, _ = quad(lambda v: v**-fit.beta * math.exp(-fit.decay * v), 1.0, math.inf)
    likelihood = -fit.beta * logs.sum() - fit.decay * x.sum() - x.size * math.log(weight)
    assert no_worse([fit.llr], [likelihood], logs).worst < 1e-6
    assert no_worse([fit.llr], [likelihood + 0.5], logs).worst == pytest.approx(0.5)
    assert not no_worse([None], [likelihood], logs).holds


def test_the_truncated_power_law_alone_is_the_one_among_the_rivals():
    x = pareto(300)
    tail = fit_tail(x)
    alone, among = fit_truncated(x, tail.xmin), fit_alternatives(x, tail)
    assert (alone.beta, alone.decay, alone.llr) == (among.tpl_beta, among.tpl_lambda, among.llr_tpl)
