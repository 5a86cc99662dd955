"""Properties of the tail fit that hold for every sample."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scanner.spectra.tailfit import fit_tail, truncated_alpha
from schemas.config import TailRules
from schemas.results import FitStatus, TailFit

Floats = NDArray[np.float64]

# The first example compiles the kernel, so no deadline.
many = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(20, 400)
evals_lists = st.lists(st.floats(1e-3, 1e3), min_size=20, max_size=120)


def draw(seed: int, n: int) -> Floats:
    rng = np.random.default_rng(seed)
    kinds = (rng.pareto(1.5, n) + 1, rng.pareto(1.0, n) + 0.01, rng.lognormal(0, 2, n), rng.gamma(0.5, 1, n))
    return kinds[seed % len(kinds)]


def direct_distance(evals: Floats, fit: TailFit) -> float:
    """Two-sided KS distance of the stated tail from the stated power law."""
    tail = np.sort(evals[evals >= fit.xmin])
    model = 1 - (tail / fit.xmin) ** (1 - fit.alpha)
    steps = np.arange(len(tail) + 1) / len(tail)
    return float(max(np.abs(model - steps[:-1]).max(), np.abs(model - steps[1:]).max()))


@many
@given(evals_lists)
def test_a_fit_describes_its_own_tail(values: list[float]) -> None:
    evals = np.array(values)
    fit = fit_tail(evals)
    assume(fit.status is FitStatus.OK)
    tail = evals[evals >= fit.xmin]
    assert fit.n_tail == len(tail) >= 10
    assert fit.xmin in evals
    assert fit.xmax == evals.max()
    assert math.isclose(fit.alpha, 1 + len(tail) / np.log(tail / fit.xmin).sum(), rel_tol=1e-9)
    assert math.isclose(fit.D_ks, direct_distance(evals, fit), abs_tol=1e-9)
    assert fit.near_ties >= 1


@many
@given(seeds, sizes, st.integers(-200, 200))
def test_scaling_by_a_power_of_two_changes_no_bit_but_xmin(seed: int, n: int, k: int) -> None:
    evals = draw(seed, n)
    base, scaled = fit_tail(evals), fit_tail(np.ldexp(evals, k))
    assert (scaled.alpha, scaled.D_ks, scaled.n_tail) == (base.alpha, base.D_ks, base.n_tail)
    assert base.xmin is None or scaled.xmin == math.ldexp(base.xmin, k)


@many
@given(seeds, sizes, st.floats(1e-24, 1e24))
def test_any_scaling_keeps_the_fit_where_xmin_is_certain(seed: int, n: int, factor: float) -> None:
    evals = draw(seed, n)
    base, scaled = fit_tail(evals), fit_tail(evals * factor)
    assume(base.near_ties == 1)
    assert scaled.n_tail == base.n_tail
    assert math.isclose(scaled.alpha, base.alpha, rel_tol=1e-11)
    assert math.isclose(scaled.D_ks, base.D_ks, abs_tol=1e-12 * base.alpha)


@many
@given(seeds, sizes, st.sampled_from(["default", "weightwatcher"]))
def test_order_and_zeros_do_not_matter(seed: int, n: int, profile: str) -> None:
    evals = draw(seed, n)
    shuffled = np.random.default_rng(seed).permutation(np.append(evals, np.zeros(7)))
    assert fit_tail(shuffled, profile) == fit_tail(evals, profile)


@many
@given(seeds, sizes, st.integers(2, 20))
def test_a_larger_least_tail_never_lowers_the_distance(seed: int, n: int, min_tail: int) -> None:
    evals = draw(seed, n)
    loose = fit_tail(evals, rules=TailRules(min_tail=min_tail))
    strict = fit_tail(evals, rules=TailRules(min_tail=min_tail + 5))
    assume(strict.status is FitStatus.OK)
    assert strict.D_ks >= loose.D_ks


@many
@given(seeds, sizes)
def test_a_finite_support_explains_part_of_the_decay(seed: int, n: int) -> None:
    fit = fit_tail(draw(seed, n))
    assume(fit.alpha_trunc is not None)
    assert fit.alpha_trunc <= fit.alpha


@many
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.01, 40.0))
def test_truncated_alpha_solves_its_equation(ratio: float, log_range: float) -> None:
    alpha = truncated_alpha(ratio * log_range, log_range)
    mirrored = truncated_alpha((1 - ratio) * log_range, log_range)
    t = (alpha - 1) * log_range
    assume(0.01 < abs(t) < 700)
    assert math.isclose(1 / t - 1 / math.expm1(t), ratio, rel_tol=1e-9)
    assert math.isclose(mirrored - 1, 1 - alpha, rel_tol=1e-6)
