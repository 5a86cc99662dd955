"""The pruned search against brute force: equal to the last bit, and far cheaper."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from scanner.spectra.kernels import (
    _FAR,
    _NEAR,
    _STEP,
    _block_bound,
    _deviation,
    _near_survival,
    _prepared,
    _scan_coarse,
    count_close,
)
from scanner.spectra.search import best_fit, closest_tail, tail_models

Floats = NDArray[np.float64]

# The kernel calls the C library's exp; numpy's vectorised exp may differ in the last bit.
libm_exp = np.frompyfunc(math.exp, 1, 1)


def tail_model(sample: Floats) -> tuple[Floats, Floats]:
    """Logs and maximum-likelihood exponents, by direct sums; 0 where the tail is constant."""
    logs = np.maximum.accumulate(np.log(np.sort(sample)))
    exponents = np.zeros_like(logs)
    for i in range(len(logs)):
        excess = np.sum(logs[i:] - logs[i])
        exponents[i] = (len(logs) - i) / excess if excess > 0 else 0.0
    return logs, exponents


def all_distances(logs: Floats, exponents: Floats, *, min_tail: int, two_sided: bool) -> Floats:
    n = len(logs)
    distances = np.full(n, np.inf)
    for i in range(n - min_tail + 1):
        if not 0 < exponents[i] < np.inf:
            continue
        model = libm_exp(-exponents[i] * (logs[i:] - logs[i])).astype(np.float64)
        above = n - np.arange(i, n)
        distances[i] = np.max(np.abs(model - above / (n - i)))
        if two_sided:
            distances[i] = max(distances[i], np.max(np.abs(model - (above - 1) / (n - i))))
    return distances


def assert_equals_brute_force(sample: Floats, *, min_tail: int, two_sided: bool) -> None:
    logs, exponents = tail_model(sample)
    distances = all_distances(logs, exponents, min_tail=min_tail, two_sided=two_sided)
    index, distance, _, _ = closest_tail(logs, exponents, min_tail=min_tail, two_sided=two_sided)
    if not np.isfinite(distances).any():
        assert index == -1
        return
    assert (index, distance) == (int(np.argmin(distances)), distances.min())


def matrix_spectrum(rng: np.random.Generator, n: int, kind: str) -> Floats:
    shape = (2 * n, n)
    if kind == "gaussian":
        W = rng.standard_normal(shape)
    elif kind == "low_rank":
        W = rng.standard_normal((2 * n, n // 2 + 1)) @ rng.standard_normal((n // 2 + 1, n))
    elif kind == "spiked":
        W = rng.standard_normal(shape) + 5.0 * np.outer(rng.standard_normal(2 * n), rng.standard_normal(n))
    else:
        W = rng.standard_t(float(kind), shape)
    evals = np.linalg.eigvalsh(W.T @ W)
    return evals[evals > 1e-12 * evals[-1]]


RANDOM: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "pareto": lambda rng, n: rng.pareto(1.5, n) + 1,
    "lognormal": lambda rng, n: rng.lognormal(0.0, 2.0, n),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "uniform": lambda rng, n: rng.uniform(0.1, 1.0, n),
    "gamma": lambda rng, n: rng.gamma(0.3, 1.0, n) + 1e-30,
    "many ties": lambda rng, n: np.round(rng.pareto(2.0, n) + 1, 1),
    "small integers": lambda rng, n: rng.integers(1, 6, n).astype(float),
    "half equal": lambda rng, n: np.concatenate([np.full(n // 2, 2.0), rng.pareto(2.0, n - n // 2) + 1]),
    "two values": lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 3.0),
    "1..n": lambda rng, n: np.arange(1.0, n + 1),
    "powers of ten": lambda rng, n: 10.0 ** (np.arange(n) % 250),
    "all equal": lambda rng, n: np.full(n, 7.0),
}


def sizes(rng: np.random.Generator, min_tail: int) -> Iterator[int]:
    yield from (min_tail + 1, 256, 257, 320)
    yield from rng.integers(max(3, min_tail), 200, 4).tolist()


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("min_tail", [2, 8, 20, 50])
@pytest.mark.parametrize("name", RANDOM)
def test_equals_brute_force_on_samples(name: str, min_tail: int, two_sided: bool) -> None:
    rng = np.random.default_rng(min_tail)
    for n in sizes(rng, min_tail):
        assert_equals_brute_force(RANDOM[name](rng, n), min_tail=min_tail, two_sided=two_sided)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("kind", ["2.5", "3", "4", "gaussian", "low_rank", "spiked"])
def test_equals_brute_force_on_spectra(kind: str, two_sided: bool) -> None:
    rng = np.random.default_rng(1)
    for n in (60, 150, 384):
        assert_equals_brute_force(matrix_spectrum(rng, n, kind), min_tail=10, two_sided=two_sided)


@pytest.mark.parametrize("two_sided", [False, True])
def test_skipped_candidates_never_win(two_sided: bool) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        logs, exponents = tail_model(rng.pareto(2.0, 120) + 1)
        skipped = rng.random(120) < 0.6
        exponents[skipped] = rng.choice([0.0, -1.0, np.nan, np.inf], skipped.sum())
        distances = all_distances(logs, exponents, min_tail=10, two_sided=two_sided)
        index, distance, _, _ = closest_tail(logs, exponents, min_tail=10, two_sided=two_sided)
        assert (index, distance) == (int(np.argmin(distances)), distances.min())


def test_approximate_survival_is_near_enough() -> None:
    z = np.concatenate([np.linspace(0, 2 * _FAR, 200_001), [_FAR, 100.0, 1e6, np.inf]])
    errors = np.abs([_near_survival(value) - math.exp(-value) for value in z.tolist()])
    assert errors.max() < _NEAR / 4


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("name", ["pareto", "many ties", "two values", "powers of ten"])
def test_the_ends_of_a_block_bound_its_inside(name: str, two_sided: bool) -> None:
    n = 20 * _STEP
    logs, exponents = tail_model(RANDOM[name](np.random.default_rng(5), n))
    sample, room = _prepared(logs, exponents, two_sided)
    for start in (0, 1, 7, 30, 15 * _STEP):
        if exponents[start] == 0:
            continue
        first = -(-start // _STEP)
        _scan_coarse(sample, room, start, first)
        for block in range(first, len(sample.coarse) - 1):
            points = range(block * _STEP, (block + 1) * _STEP)
            inside = max(_deviation(sample, start, j) for j in points)
            assert inside <= _block_bound(sample, room, block) / (n - start) + _NEAR / 4


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("name", ["pareto", "many ties", "half equal", "exponential"])
def test_equals_brute_force_across_blocks_of_candidates(name: str, two_sided: bool) -> None:
    rng = np.random.default_rng(6)
    for n in (521, 1100):
        assert_equals_brute_force(RANDOM[name](rng, n), min_tail=10, two_sided=two_sided)


@pytest.mark.parametrize("two_sided", [False, True])
def test_distances_closer_than_the_approximation_are_told_apart(two_sided: bool) -> None:
    """Exponents that differ in the last bits give distances that only the library's exp orders."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        logs = np.repeat(np.log(np.sort(rng.pareto(1.5, 40) + 1)), 5)
        exponents = np.zeros(200)
        exponents[:60] = 1.5 * (1 + 1e-14 * rng.integers(0, 4, 60))
        distances = all_distances(logs, exponents, min_tail=10, two_sided=two_sided)
        found = closest_tail(logs, exponents, min_tail=10, two_sided=two_sided)
        assert found[:2] == (int(np.argmin(distances)), distances.min())


def test_exact_tie_goes_to_the_longest_tail() -> None:
    logs, exponents = np.zeros(200), np.full(200, 5.0)
    exponents[:5] = 0.0
    assert closest_tail(logs, exponents, min_tail=2, two_sided=True)[:2] == (5, 1.0)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_sample_below_the_least_tail_has_no_winner(n: int) -> None:
    assert closest_tail(np.zeros(n), np.ones(n), min_tail=6, two_sided=True)[:3] == (-1, 2.0, 0)


@pytest.mark.parametrize("two_sided", [False, True])
def test_near_ties_equal_brute_force(two_sided: bool) -> None:
    rng = np.random.default_rng(3)
    for width in (0.0, 1e-6, 1e-3, 1e-2, 1.0):
        logs, exponents = tail_model(rng.pareto(1.5, 400) + 1)
        distances = all_distances(logs, exponents, min_tail=10, two_sided=two_sided)
        limits = distances.min() + width * rng.random(400)
        floors = closest_tail(logs, exponents, min_tail=10, two_sided=two_sided).floors
        for known in (floors, np.zeros(400)):
            counted = count_close(logs, exponents, limits, known, 400 - 10, two_sided)
            assert counted == np.count_nonzero(distances <= limits)


def test_floors_are_below_the_distances() -> None:
    logs, exponents = tail_model(np.random.default_rng(8).pareto(1.5, 700) + 1)
    distances = all_distances(logs, exponents, min_tail=10, two_sided=True)
    floors = closest_tail(logs, exponents, min_tail=10, two_sided=True).floors / np.arange(700, 0, -1)
    known = np.isfinite(floors)
    assert known.sum() > 600
    assert np.all(floors[known] <= distances[known] + _NEAR)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("kind", ["3", "gaussian", "spiked"])
@pytest.mark.parametrize("error", [1e-15, 1e-4])
def test_best_fit_is_the_winner_and_all_that_an_error_could_make_one(
    kind: str, error: float, two_sided: bool
) -> None:
    x = np.sort(matrix_spectrum(np.random.default_rng(5), 150, kind))
    logs, exponents = tail_model(x / x[-1])
    distances = all_distances(logs, exponents, min_tail=10, two_sided=two_sided)
    start = int(distances.argmin())
    slack = 2.74 * error * exponents * x[-1] / x
    fit = best_fit(x, np.log(x / x[-1]), error=error, min_tail=10, two_sided=two_sided)
    assert fit.start == start
    assert fit.near_ties == np.count_nonzero(distances <= distances[start] + slack[start] + slack)
    assert fit.distance == pytest.approx(distances[start], rel=1e-12)
    assert fit.exponent == pytest.approx(exponents[start], rel=1e-12)
    assert fit.excess == pytest.approx(np.sum(logs[start:] - logs[start]), rel=1e-12)
    assert fit.upper_excess == pytest.approx(np.sum(logs[75:] - logs[75]), rel=1e-12)


def test_tail_models_sum_every_tail() -> None:
    x = np.sort(np.round(np.random.default_rng(9).pareto(1.5, 300) + 1, 2))
    logs = np.log(x)
    excess, exponents = tail_models(x, logs.copy(), distinct=True)
    for i in range(300):
        direct = math.fsum(logs[i:] - logs[i])
        assert excess[i] == pytest.approx(direct, rel=1e-13)
        if i == 0 or x[i] > x[i - 1]:
            assert exponents[i] == ((300 - i) / excess[i] if direct else 0.0)
        else:
            assert exponents[i] == 0.0


def test_tail_models_restore_the_order_of_rounded_logs() -> None:
    x = np.array([1.0, 2.0, 2.0, 4.0])
    logs = np.array([0.0, 0.7, 0.7 - 1e-16, 1.4])
    excess, _ = tail_models(x, logs)
    assert np.all(np.diff(logs) >= 0)
    assert np.all(excess >= 0)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("kind", ["3", "gaussian", "spiked", "pareto", "exponential"])
def test_search_looks_at_few_deviations(kind: str, two_sided: bool) -> None:
    n = 1024
    rng = np.random.default_rng(4)
    sample = RANDOM[kind](rng, n) if kind in RANDOM else matrix_spectrum(rng, n, kind)
    logs, exponents = tail_model(sample)
    found = closest_tail(logs, exponents, min_tail=2, two_sided=two_sided)
    assert found.evaluations <= 0.05 * n**2 / 2
