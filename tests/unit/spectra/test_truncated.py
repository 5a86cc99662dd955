"""The search with the tail cut at the largest value: equal to brute force, and the exponents it should find."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from scanner.api import scan
from scanner.spectra.search import tail_models
from scanner.spectra.tailfit import fit_tail, truncated_alpha
from scanner.spectra.truncated import closest_truncated, truncated_exponents
from schemas.config import ScanConfig, Stages, TailRules
from schemas.results import FitStatus

Floats = NDArray[np.float64]
RULES = TailRules(xmax="max")

SAMPLES = {
    "pareto": lambda rng, n: rng.pareto(1.5, n) + 1,
    "lognormal": lambda rng, n: rng.lognormal(0.0, 2.0, n),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "uniform": lambda rng, n: rng.uniform(0.1, 1.0, n),
    "rising": lambda rng, n: rng.uniform(0.0, 1.0, n) ** 0.2 + 0.01,
    "log-uniform": lambda rng, n: 10.0 ** rng.uniform(-3.0, 3.0, n),
    "many ties": lambda rng, n: np.round(rng.pareto(2.0, n) + 1, 1),
    "half equal": lambda rng, n: np.concatenate([np.full(n // 2, 2.0), rng.pareto(2.0, n - n // 2) + 1]),
    "two values": lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 3.0),
    "powers of ten": lambda rng, n: 10.0 ** (np.arange(n) % 250),
}


def models(sample: Floats) -> tuple[Floats, Floats]:
    x = np.sort(sample)
    logs = np.log(x / x[-1])
    excess, _ = tail_models(x, logs, distinct=True)
    return logs, truncated_exponents(x, logs, excess)


def survival(b: float, span: float, u: float) -> float:
    left = span - u
    if b > 0:
        return math.exp(-b * u) * math.expm1(-b * left) / math.expm1(-abs(b) * span)
    if b < 0:
        return math.expm1(b * left) / math.expm1(-abs(b) * span)
    return left / (left + u)


def all_distances(logs: Floats, exponents: Floats, min_tail: int) -> Floats:
    n, distances = len(logs), np.full(len(logs), np.inf)
    values = logs.tolist()
    for i in range(n - min_tail + 1):
        b, span = float(exponents[i]), values[-1] - values[i]
        if math.isfinite(b):
            found = [survival(b, span, values[j] - values[i]) for j in range(i, n)]
            distances[i] = max(
                max(abs(g - (n - j) / (n - i)), abs(g - (n - j - 1) / (n - i)))
                for j, g in enumerate(found, start=i)
            )
    return distances


@pytest.mark.parametrize("min_tail", [2, 10, 50])
@pytest.mark.parametrize("name", SAMPLES)
def test_equals_brute_force_to_the_last_bit(name: str, min_tail: int) -> None:
    rng = np.random.default_rng(min_tail)
    for n in (min_tail + 1, 64, 131, 300):
        logs, exponents = models(SAMPLES[name](rng, n))
        distances = all_distances(logs, exponents, min_tail)
        found = closest_truncated(logs, exponents, min_tail=min_tail)
        if np.isfinite(distances).any():
            assert (found.start, found.distance) == (int(np.argmin(distances)), distances.min())
        else:
            assert found.start == -1


def test_prunes_nearly_all_of_it() -> None:
    n = 1024
    logs, exponents = models(np.random.default_rng(0).pareto(1.5, n) + 1)
    assert closest_truncated(logs, exponents, min_tail=10).evaluations < 0.05 * n * n / 2


@pytest.mark.parametrize("name", ["pareto", "rising", "uniform", "log-uniform"])
def test_every_exponent_solves_the_likelihood_equation(name: str) -> None:
    x = np.sort(SAMPLES[name](np.random.default_rng(4), 120))
    _, exponents = models(x)
    for i in range(0, 110, 7):
        y, span = np.log(x[i:] / x[i]), float(np.log(x[-1] / x[i]))
        ratio = float(y.mean()) / span
        root = brentq(
            lambda t, r=ratio: 1 / t - 1 / math.expm1(t) - r, *((1e-9, 500) if ratio < 0.5 else (-500, -1e-9))
        )
        assert exponents[i] == pytest.approx(root / span, rel=1e-6, abs=1e-9)
        assert exponents[i] == pytest.approx(truncated_alpha(float(y.mean()), span) - 1, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("alpha", "ratio", "n"), [(2.0, 100, 400), (2.5, 20, 1000), (0.5, 10, 1000), (1.5, 10, 1000)]
)
def test_recovers_truncated_power_laws(alpha: float, ratio: float, n: int) -> None:
    rng = np.random.default_rng(1)
    power = 1.0 - alpha
    fits = []
    for _ in range(20):
        sample = (1.0 + rng.random(n) * (ratio**power - 1.0)) ** (1.0 / power)
        fits.append(fit_tail(sample, rules=TailRules(xmax="max", min_tail=n // 2)))
    alphas = np.array([fit.alpha for fit in fits])
    assert alphas.mean() == pytest.approx(alpha, abs=0.12)
    assert np.mean([fit.alpha_stderr for fit in fits]) == pytest.approx(alphas.std(ddof=1), rel=0.6)
    assert {fit.estimator for fit in fits} == {"hs1-xmax"}


def test_statuses() -> None:
    assert fit_tail(np.ones(50), rules=RULES).status is FitStatus.CONSTANT
    assert fit_tail(np.arange(1.0, 11.0), rules=RULES).status is FitStatus.TOO_FEW_EVALS
    halves = fit_tail(np.repeat([1.0, 2.0], 25), rules=RULES)
    assert (halves.status, halves.alpha) == (FitStatus.OK, 1.0)


def test_scale_changes_nothing() -> None:
    x = np.random.default_rng(3).lognormal(0.0, 1.0, 300)
    one, scaled = fit_tail(x, rules=RULES), fit_tail(x * 2.0**20, rules=RULES)
    assert (one.alpha, one.D_ks, one.n_tail) == (scaled.alpha, scaled.D_ks, scaled.n_tail)


def test_a_row_names_its_estimator_and_has_no_bootstrap_of_another_model() -> None:
    W = np.random.default_rng(5).standard_t(3, (200, 120)).astype("f4")
    config = ScanConfig(tail=RULES, stages=Stages(bootstrap=10))
    [row] = scan({"layers.0.up_proj.weight": W}, config=config)
    assert (row.estimator, row.fit_status, row.near_ties, row.p_boot) == ("hs1-xmax", "ok", None, None)
    assert row.alpha == row.alpha_trunc
