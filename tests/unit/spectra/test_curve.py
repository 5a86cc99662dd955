"""The curve of all candidates, whose least point is the fit."""

import numpy as np
import pytest

from scanner.spectra.curve import distance_curve
from scanner.spectra.tailfit import fit_tail
from schemas.config import TailRules


def samples():
    rng = np.random.default_rng(0)
    return {
        "pareto": rng.pareto(1.5, 400) + 1,
        "lognormal": rng.lognormal(0, 1, 300),
        "ties": rng.integers(1, 9, 200).astype(float),
        "matrix": np.linalg.svd(rng.standard_t(3, (90, 60)), compute_uv=False) ** 2,
    }


@pytest.mark.parametrize("name", samples())
def test_its_least_point_is_the_fit(name):
    x = samples()[name]
    curve, fit = distance_curve(x), fit_tail(x)
    i = int(np.argmin(curve.D_ks))
    assert curve.D_ks[i] == pytest.approx(fit.D_ks, rel=1e-12)
    assert (curve.xmin[i], curve.alpha[i]) == (fit.xmin, pytest.approx(fit.alpha, rel=1e-12))


def test_it_covers_every_distinct_candidate_or_as_many_as_asked():
    x = np.sort(samples()["pareto"])
    assert distance_curve(x).xmin.tolist() == x[: len(x) - 9].tolist()
    few = distance_curve(x, most=50)
    assert len(few.xmin) == 50
    assert (few.xmin[0], few.xmin[-1]) == (x[0], x[-10])


@pytest.mark.parametrize("x", [[], [1.0] * 50, [1.0, 2.0, 3.0]])
def test_without_candidates_it_is_empty(x):
    curve = distance_curve(np.array(x), TailRules())
    assert curve.xmin.size == curve.alpha.size == curve.D_ks.size == 0
