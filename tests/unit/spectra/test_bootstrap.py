"""The bootstrap against a plain one (sort, power, library draws), and its calibration."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from scanner.spectra.bootstrap import BootstrapFit, _draw, _replicates, bootstrap_p
from scanner.spectra.search import closest_tail
from scanner.spectra.tailfit import fit_tail
from schemas.config import TailRules
from schemas.results import TailFit

Floats = NDArray[np.float64]
RULES = TailRules()


def gaussian_evals(seed: int) -> Floats:
    W = np.random.default_rng(seed).standard_normal((300, 150))
    return np.linalg.svd(W, compute_uv=False) ** 2


def plain_replicate(evals: Floats, fit: TailFit, rng: np.random.Generator) -> Floats:
    body = evals[evals < fit.xmin]
    tail = rng.binomial(evals.size, fit.n_tail / evals.size) if body.size else evals.size
    drawn = rng.choice(body, evals.size - tail) if body.size else body
    return np.append(drawn, fit.xmin * (1 - rng.random(tail)) ** (-1 / (fit.alpha - 1)))


def replicates(evals: Floats, fit: TailFit, reps: int) -> tuple[Floats, Floats]:
    logs = np.log(np.sort(evals))
    rng = np.random.default_rng(1)
    return _replicates(logs, evals.size - fit.n_tail, fit.alpha - 1, RULES.min_tail, reps, rng)


SAMPLES = {
    "gaussian": gaussian_evals(2),
    "lomax": np.random.default_rng(3).pareto(1.5, 200),
    "pareto from the first point": (1 - (np.arange(1, 151) - 0.5) / 150) ** (-1 / 1.5),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_replicates_are_distributed_as_plain_ones(name: str) -> None:
    evals = SAMPLES[name]
    fit = fit_tail(evals)
    alphas, distances = replicates(evals, fit, 1500)
    rng = np.random.default_rng(4)
    plain = [fit_tail(plain_replicate(evals, fit, rng)) for _ in range(1500)]
    assert ks_2samp(distances, [one.D_ks for one in plain]).pvalue > 0.01
    assert ks_2samp(alphas, [one.alpha for one in plain]).pvalue > 0.01


@pytest.mark.parametrize("start", [0, 90])
def test_a_replicate_is_ascending_and_its_body_is_resampled(start: int) -> None:
    logs = np.log(np.sort(np.random.default_rng(5).pareto(1.5, 120) + 1))
    rng = np.random.default_rng(6)
    tails = []
    for _ in range(200):
        sample = _draw(logs, start, 1.5, rng)
        assert sample.size == 120
        assert np.all(np.diff(sample) >= 0)
        body = sample[sample < logs[start]]
        assert np.isin(body, logs[:start]).all()
        tails.append(sample.size - body.size)
    assert np.mean(tails) == pytest.approx(120 - start, abs=4 * math.sqrt(start * (120 - start) / 120 / 200))


def test_every_point_below_xmin_is_drawn_equally_often() -> None:
    logs = np.arange(12.0)
    rng = np.random.default_rng(7)
    drawn = np.concatenate([_draw(logs, 10, 1.0, rng) for _ in range(3000)])
    counts = np.array([np.count_nonzero(drawn == value) for value in range(10)])
    assert counts == pytest.approx(np.full(10, 3000), abs=5 * math.sqrt(3000))


def test_equal_seeds_give_equal_results() -> None:
    evals = SAMPLES["lomax"]
    fit = fit_tail(evals)
    one, again, other = (bootstrap_p(evals, fit, RULES, reps=100, seed=seed) for seed in (8, 8, 9))
    assert one == again
    assert one != other


def test_order_scale_and_eigenvalues_below_the_cut_do_not_matter() -> None:
    evals = SAMPLES["gaussian"]
    one = bootstrap_p(evals, fit_tail(evals), RULES, reps=50, seed=8)
    moved = np.append(np.ldexp(evals[::-1], 20), np.zeros(9))
    assert bootstrap_p(moved, fit_tail(moved), RULES, reps=50, seed=8) == one


def test_p_and_errors_are_those_of_the_replicates() -> None:
    evals = SAMPLES["lomax"]
    fit = fit_tail(evals)
    got = bootstrap_p(evals, fit, RULES, reps=300, seed=1)
    alphas, distances = replicates(evals, fit, 300)
    assert got.boot_reps == 300
    assert got.p_boot == pytest.approx(np.mean(distances >= fit.D_ks), abs=1 / 300)
    assert got.boot_alpha_stderr == pytest.approx(alphas.std(ddof=1), rel=1e-6)


def p_values(kind: str, rules: TailRules) -> Floats:
    rng = np.random.default_rng(10)
    found = []
    for seed in range(60):
        x = rng.pareto(1.5, 300) + 1 if kind == "pareto" else rng.exponential(1.0, 300)
        found.append(bootstrap_p(x, fit_tail(x, rules=rules), rules, reps=100, seed=seed).p_boot)
    return np.array(found)


def test_a_true_power_law_is_rarely_rejected() -> None:
    p = p_values("pareto", RULES)
    assert np.mean(p < 0.1) <= 0.2
    assert 0.35 < np.median(p) < 0.75


def test_an_exponential_tail_is_often_rejected() -> None:
    assert np.mean(p_values("exponential", TailRules(min_tail=50)) < 0.1) >= 0.35


def test_the_error_of_alpha_includes_the_choice_of_xmin() -> None:
    evals = SAMPLES["lomax"]
    fit = fit_tail(evals)
    assert bootstrap_p(evals, fit, RULES, seed=11).boot_alpha_stderr > fit.alpha_stderr


def test_replicates_look_at_few_deviations() -> None:
    n = 1024
    evals = np.random.default_rng(12).pareto(1.5, n) + 1
    fit = fit_tail(evals)
    rng = np.random.default_rng(13)
    looked = []
    for _ in range(20):
        sample = _draw(np.log(np.sort(evals)), n - fit.n_tail, fit.alpha - 1, rng)
        excess = np.array([(sample[i:] - sample[i]).sum() for i in range(n)])
        exponents = np.divide(np.arange(n, 0, -1), excess, out=np.zeros(n), where=excess > 0)
        looked.append(closest_tail(sample, exponents, min_tail=10, two_sided=True).evaluations)
    assert np.mean(looked) <= 0.02 * n**2 / 2


def test_no_fit_has_no_p() -> None:
    evals = np.full(40, 3.0)
    assert bootstrap_p(evals, fit_tail(evals), RULES, seed=0) == BootstrapFit()


def test_one_replicate_has_no_spread() -> None:
    evals = SAMPLES["lomax"]
    got = bootstrap_p(evals, fit_tail(evals), RULES, reps=1, seed=0)
    assert (got.boot_reps, got.boot_alpha_stderr) == (1, None)
    assert got.p_boot in (0.0, 1.0)


def test_a_bootstrap_needs_a_replicate() -> None:
    evals = SAMPLES["lomax"]
    with pytest.raises(ValueError, match="reps=0"):
        bootstrap_p(evals, fit_tail(evals), RULES, reps=0, seed=0)
