"""The trace-log condition: fixed spectra, a direct product, and what has no crossing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scanner.spectra.erg import ErgFit, fit_erg
from scanner.spectra.tailfit import fit_tail
from schemas.results import FitStatus, TailFit

Floats = NDArray[np.float64]
NO_FIT = TailFit(estimator="hs1", status=FitStatus.TOO_FEW_EVALS)


def tail_from(xmin: float, n_tail: int) -> TailFit:
    return TailFit(estimator="hs1", status=FitStatus.OK, xmin=xmin, n_tail=n_tail)


@pytest.mark.parametrize(("n", "inside"), [(2048, 970), (4096, 1870), (8192, 3625)])
def test_power_law_quantiles(n: int, inside: int) -> None:
    evals = (np.arange(1, n + 1) / n) ** -0.8
    fit = fit_erg(evals, NO_FIT)
    assert fit.erg_num == inside
    assert fit.erg_lambda == evals[inside - 1]
    assert (fit.erg_gap, fit.erg_dlambda) == (None, None)


def test_edge_of_the_smallest_fixture() -> None:
    fit = fit_erg((np.arange(1, 2049) / 2048) ** -0.8, NO_FIT)
    assert fit.erg_lambda == pytest.approx(1.818221, abs=5e-7)


def test_five_eigenvalues_by_hand() -> None:
    # Over their mean 4: 2.5, 1, 0.75, 0.5, 0.25, whose running products are 2.5, 2.5, 1.875, 0.9375.
    fit = fit_erg(np.array([4.0, 1.0, 10.0, 2.0, 3.0]), tail_from(xmin=3.0, n_tail=3))
    assert fit == ErgFit(erg_num=4, erg_lambda=2.0, erg_gap=1, erg_dlambda=0.25)


@pytest.mark.parametrize("seed", range(5))
def test_the_product_crosses_one_exactly_there(seed: int) -> None:
    evals = np.random.default_rng(seed).lognormal(0, 1.5, 60)
    fit = fit_erg(evals, NO_FIT)
    scaled = np.sort(evals / evals.mean())[::-1]
    assert np.prod(scaled[: fit.erg_num]) < 1 <= np.prod(scaled[: fit.erg_num - 1])


def test_long_spectra_do_not_overflow() -> None:
    evals = np.append(np.full(4000, 1e-6), np.full(2000, 1e3))
    fit = fit_erg(evals, NO_FIT)
    grow, shrink = np.log(evals[-1] / evals.mean()), -np.log(evals[0] / evals.mean())
    assert fit.erg_num == 2000 + int(np.floor(2000 * grow / shrink)) + 1


def test_a_zero_eigenvalue_ends_the_product() -> None:
    assert fit_erg(np.array([0.0, 2.0, 3.0]), NO_FIT).erg_num == 3


def test_scale_changes_only_the_edge() -> None:
    evals = np.random.default_rng(1).pareto(1.5, 300) + 1
    base, scaled = fit_erg(evals, fit_tail(evals)), fit_erg(evals * 1024, fit_tail(evals * 1024))
    assert (scaled.erg_num, scaled.erg_gap) == (base.erg_num, base.erg_gap)
    assert scaled.erg_lambda == base.erg_lambda * 1024
    assert scaled.erg_dlambda == pytest.approx(base.erg_dlambda, rel=1e-12)


@pytest.mark.parametrize("evals", [np.zeros(20), np.full(16, 2.0), np.zeros(0)])
def test_nothing_where_no_product_falls_below_one(evals: Floats) -> None:
    assert fit_erg(evals, tail_from(1.0, 10)) == ErgFit()
