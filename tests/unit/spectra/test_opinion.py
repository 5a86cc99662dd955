"""The powerlaw package's view of a tail, against ours."""

import logging
import warnings

import numpy as np
import pytest

from scanner.spectra.alternatives import fit_alternatives
from scanner.spectra.opinion import second_opinion
from scanner.spectra.tailfit import fit_tail


@pytest.fixture(scope="module")
def light():
    """Far from any power law: the true tail is exponential, and alpha is well above 3."""
    x = np.sort(1 + np.random.default_rng(1).exponential(0.3, 400))
    tail = fit_tail(x)
    return x, tail, second_opinion(x, tail)


def test_it_agrees_at_our_xmin_where_its_own_default_could_not(light):
    _, tail, opinion = light
    assert tail.alpha > 3.5
    assert opinion.at_xmin.alpha == pytest.approx(tail.alpha, rel=1e-6)
    assert opinion.at_xmin.n_tail == tail.n_tail


def test_its_own_search_is_that_of_the_one_sided_rule(light):
    x, _, opinion = light
    one_sided = fit_tail(x, "weightwatcher")
    assert opinion.searched.xmin == pytest.approx(one_sided.xmin)
    assert opinion.searched.alpha == pytest.approx(one_sided.alpha, rel=1e-6)


def test_ratios_have_our_sign_and_our_size(light):
    x, tail, opinion = light
    ours = fit_alternatives(x, tail)
    assert ours.llr_exp < 0
    assert opinion.llr["EXP"] == pytest.approx(ours.llr_exp, abs=1e-3)
    assert opinion.llr["TPL"] == pytest.approx(ours.llr_tpl, abs=0.05)


def test_curves_are_survival_functions(light):
    _, _, opinion = light
    assert {"PL", "EXP"} <= opinion.ccdf.keys()
    for curve in opinion.ccdf.values():
        assert curve[0] == pytest.approx(1, abs=1e-6)
        assert (np.diff(curve) <= 1e-12).all()


def test_above_the_limit_it_does_not_search(light):
    x, tail, _ = light
    opinion = second_opinion(x, tail, limit=100)
    assert opinion.searched is None
    assert opinion.at_xmin.alpha == pytest.approx(tail.alpha, rel=1e-6)


def test_no_tail_no_opinion():
    x = np.ones(50)
    assert second_opinion(x, fit_tail(x)) is None


@pytest.mark.parametrize("limit", [0, 1000])
def test_it_is_quiet_and_leaves_logging_as_it_was(light, limit, capfd):
    near_one = np.geomspace(1e-6, 1e9, 70)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in (light[0], near_one):
            second_opinion(x, fit_tail(x), limit=limit)
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0
