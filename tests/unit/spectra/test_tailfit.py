"""The tail fit: fixed samples, independent oracles, calibration, statuses."""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import powerlaw
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from scanner.spectra.tailfit import fit_tail, truncated_alpha
from scanner.spectra.weightwatcher import compat_row, ww_has_row, ww_sides
from schemas.config import TailRules
from schemas.results import FitStatus, Spectrum

Floats = NDArray[np.float64]
EXACT = {"rel": 1e-6}


def midpoints(n: int) -> Floats:
    return (np.arange(1, n + 1) - 0.5) / n


PARETO = (1 - midpoints(1000)) ** (-1 / 1.5)
TRUNCATED = (1 + midpoints(500) * (10**-0.5 - 1)) ** -2


def test_pareto_quantiles() -> None:
    fit = fit_tail(PARETO)
    assert (fit.status, fit.estimator, fit.n_tail, fit.near_ties) == (FitStatus.OK, "hs1", 1000, 1)
    assert fit.alpha == pytest.approx(2.50127106, **EXACT)
    assert fit.xmin == pytest.approx(1.00033347, **EXACT)
    assert fit.xmax == PARETO.max()
    assert fit.D_ks == pytest.approx(0.001, **EXACT)
    assert fit.alpha_stderr == pytest.approx(0.04747436, **EXACT)
    assert fit.alpha_trunc == pytest.approx(2.49544455, **EXACT)
    assert fit.alpha_hill == pytest.approx(2.50254453, **EXACT)
    assert fit.tail_decades == pytest.approx(math.log10(PARETO.max() / PARETO.min()), rel=1e-12)
    assert fit_tail(PARETO, "weightwatcher").D_ks == pytest.approx(0.00067261, rel=1e-5)


def test_lomax_quantiles() -> None:
    fit = fit_tail(PARETO - 1)
    assert fit.n_tail == 58
    assert fit.alpha == pytest.approx(2.38293676, **EXACT)
    assert fit.xmin == pytest.approx(5.71255881, **EXACT)
    assert fit.D_ks == pytest.approx(0.0205219, **EXACT)
    assert fit.alpha_trunc == pytest.approx(2.30254824, **EXACT)
    assert fit.alpha_hill == pytest.approx(1.87081623, **EXACT)
    assert fit_tail(PARETO - 1, "weightwatcher").alpha == fit.alpha


def test_truncated_quantiles() -> None:
    known = truncated_alpha(float(np.log(TRUNCATED).mean()), math.log(10))
    low, high = TRUNCATED[0], TRUNCATED[-1]
    sampled = truncated_alpha(float(np.log(TRUNCATED / low).mean()), math.log(high / low))
    assert known == pytest.approx(1.5000012, **EXACT)
    assert sampled == pytest.approx(1.4989537, **EXACT)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_truncated_alpha_has_no_root_outside_the_support(ratio: float) -> None:
    assert truncated_alpha(2.0 * ratio, 2.0) is None


def test_truncated_alpha_of_a_uniform_log_is_one() -> None:
    assert truncated_alpha(1.5, 3.0) == 1.0


MINILM = [
    ("embeddings.position_embeddings", 1.552, 284, 0.122),
    ("encoder.layer.0.attention.self.key", 2.576, 67, 0.072),
    ("encoder.layer.0.output.dense", 3.248, 65, 0.034),
    ("encoder.layer.4.attention.self.value", 2.432, 87, 0.112),
    ("pooler.dense", 12.355, 16, 0.135),
]


@pytest.mark.parametrize(("tensor", "alpha", "n_tail", "distance"), MINILM)
def test_minilm(tensor: str, alpha: float, n_tail: int, distance: float, minilm_file: Path) -> None:
    with safe_open(minilm_file, framework="numpy") as tensors:
        W = tensors.get_tensor(f"{tensor}.weight").astype(np.float64)
    fit = fit_tail(np.linalg.svd(W, compute_uv=False) ** 2)
    assert (fit.alpha, fit.D_ks) == (pytest.approx(alpha, abs=6e-4), pytest.approx(distance, abs=6e-4))
    assert (fit.n_tail, fit.near_ties) == (n_tail, 1)


def heavy_matrix_evals(seed: int, rows: int, columns: int) -> Floats:
    W = np.random.default_rng(seed).standard_t(3, (rows, columns))
    return np.linalg.svd(W, compute_uv=False) ** 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["pareto", "t3"])
def test_powerlaw_package_agrees_with_the_one_sided_fit(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    evals = rng.pareto(3.0, 200) + 1 if kind == "pareto" else heavy_matrix_evals(seed, 200, 120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = powerlaw.Fit(evals, verbose=False, parameter_ranges={"alpha": [1, None]}).power_law
    ours = fit_tail(evals, "weightwatcher")
    assert ours.xmin == theirs.xmin
    assert (ours.alpha, ours.D_ks) == (
        pytest.approx(theirs.alpha, rel=1e-6),
        pytest.approx(theirs.D, rel=1e-6),
    )


CALIBRATION = [
    ("pareto", 1.5, 1.50, 0.02, 1.50),
    ("pareto", 2.5, 2.52, 0.07, 2.50),
    ("pareto", 3.5, 3.48, 0.11, 3.46),
    ("pareto", 7.0, 7.07, 0.25, 7.01),
    ("lomax", 1.5, 1.48, 0.03, 1.47),
    ("lomax", 2.5, 2.24, 0.17, 2.18),
    ("lomax", 5.0, 3.15, 0.46, 2.97),
]


@pytest.mark.parametrize(("kind", "true", "mean", "sd", "mean_trunc"), CALIBRATION)
def test_calibration(kind: str, true: float, mean: float, sd: float, mean_trunc: float) -> None:
    rng = np.random.default_rng(11)
    shift = 1.0 if kind == "pareto" else 0.0
    fits = [fit_tail(rng.pareto(true - 1, 1000) + shift) for _ in range(40)]
    tolerance = 3 * sd / math.sqrt(40) + 0.03
    assert np.mean([fit.alpha for fit in fits]) == pytest.approx(mean, abs=tolerance)
    assert np.mean([fit.alpha_trunc for fit in fits]) == pytest.approx(mean_trunc, abs=tolerance)


@pytest.mark.parametrize("upper", [5.0, 10.0, 100.0])
@pytest.mark.parametrize("true", [0.5, 1.5, 2.5, 4.0, 6.0])
def test_truncated_alpha_recovers_a_truncated_power_law(true: float, upper: float) -> None:
    rng = np.random.default_rng(12)
    found = []
    for _ in range(25):
        power = 1 - true
        x = np.sort((1 + rng.random(500) * (upper**power - 1)) ** (1 / power))
        found.append(truncated_alpha(float(np.log(x / x[0]).mean()), math.log(x[-1] / x[0])))
    assert np.mean(found) == pytest.approx(true, abs=0.15 if true > 4 else 0.08)


@pytest.mark.parametrize("seed", range(20))
def test_gram_matrix_gives_the_fit_of_the_svd(seed: int) -> None:
    W = np.random.default_rng(seed).standard_t(3, (200, 120))
    gram = fit_tail(np.clip(np.linalg.eigvalsh(W.T @ W), 0, None))
    svd = fit_tail(np.linalg.svd(W, compute_uv=False) ** 2)
    assert gram.n_tail == svd.n_tail
    assert gram.alpha == pytest.approx(svd.alpha, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-12, 1e-5, 3e-4, 7.0, 1e5, 1e12])
def test_scaling_the_weights_changes_no_exponent(factor: float) -> None:
    W = np.random.default_rng(5).standard_t(3, (150, 90))
    base, scaled = (fit_tail(np.linalg.svd(c * W, compute_uv=False) ** 2) for c in (1.0, factor))
    assert scaled.n_tail == base.n_tail
    assert scaled.alpha == pytest.approx(base.alpha, rel=1e-12)
    assert scaled.D_ks == pytest.approx(base.D_ks, rel=1e-12)
    assert scaled.xmin == pytest.approx(base.xmin * factor**2, rel=1e-12)


def test_a_coarser_solver_makes_the_choice_of_xmin_less_certain() -> None:
    rng = np.random.default_rng(6)
    evals = np.sort(rng.pareto(0.8, 400) + 1)
    ties = [
        fit_tail(Spectrum(evals=evals, N=400, M=400, method=method)).near_ties
        for method in ("gram_f64", "gram_f32")
    ]
    assert ties[0] == 1
    assert ties[1] is not None and ties[1] >= ties[0]


@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], FitStatus.TOO_FEW_EVALS),
        (np.zeros(50), FitStatus.TOO_FEW_EVALS),
        (np.arange(1.0, 20.0), FitStatus.TOO_FEW_EVALS),
        (np.append(np.arange(1.0, 20.0), 1e-13), FitStatus.TOO_FEW_EVALS),
        (np.append(np.arange(1.0, 20.0), 0.1), FitStatus.OK),
        (np.full(20, 3.0), FitStatus.CONSTANT),
    ],
)
def test_status(evals: Floats, status: FitStatus) -> None:
    fit = fit_tail(evals)
    assert fit.status is status
    assert (fit.alpha is None) == (status is not FitStatus.OK)


def test_no_candidate_when_the_least_tail_is_longer_than_the_sample() -> None:
    assert fit_tail(np.arange(1.0, 31.0), rules=TailRules(min_tail=31)).status is FitStatus.NO_CANDIDATE


def test_rules_are_used() -> None:
    evals = PARETO[::10] - 0.9
    assert fit_tail(evals, rules=TailRules(min_evals=101)).status is FitStatus.TOO_FEW_EVALS
    assert fit_tail(evals, rules=TailRules(relative_cut=0.5)).status is FitStatus.TOO_FEW_EVALS
    assert (fit_tail(evals, rules=TailRules(min_tail=90)).n_tail or 0) >= 90


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e-9])
def test_impossible_eigenvalues_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative, got 1 of 31"):
        fit_tail(np.append(np.arange(1.0, 31.0), bad))


def test_unknown_profile_and_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of default, full, weightwatcher"):
        fit_tail(PARETO, "powerlaw")
    with pytest.raises(ValueError, match="one-dimensional"):
        fit_tail(np.ones((3, 20)))


def test_equal_upper_half_has_no_hill_exponent() -> None:
    evals = np.concatenate([np.arange(1.0, 11.0), np.full(30, 20.0)])
    fit = fit_tail(evals)
    assert (fit.status, fit.alpha_hill) == (FitStatus.OK, None)


@pytest.mark.parametrize("n", [0, 1])
def test_weightwatcher_needs_two_eigenvalues_above_its_cut(n: int) -> None:
    evals = np.concatenate([np.full(30, 1e-5), np.full(n, 1.0)])
    assert fit_tail(evals, "weightwatcher").status is FitStatus.FAILED


@pytest.mark.parametrize("n", [2, 7, 15, 40])
def test_weightwatcher_fit_of_equal_eigenvalues_fails(n: int) -> None:
    fit = fit_tail(np.full(n, 3.0), "weightwatcher")
    assert (fit.status, fit.alpha) == (FitStatus.FAILED, None)


def test_weightwatcher_fit_of_an_equal_pair_fails() -> None:
    """WeightWatcher itself answers alpha = inf, D = 0.5 with success."""
    assert fit_tail(np.array([1.0] + [3.0] * 30), "weightwatcher").status is FitStatus.FAILED


def test_weightwatcher_corrects_the_bias_of_small_samples() -> None:
    evals = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fit_tail(evals, "weightwatcher")
    assert fit.n_tail == 4
    assert fit.alpha == pytest.approx(1 + 3 / (6 * math.log(2)), rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "sides"),
    [
        ((10, 20), (20, 10, 1)),
        ((20, 10, 3, 3), (20, 10, 9)),
        ((10, 20, 3, 3), (20, 10, 9)),
        ((10, 20, 2, 2), (10, 20, 4)),
        ((3, 4, 5, 5), (3, 4, 25)),
    ],
)
def test_weightwatcher_sides(shape: tuple[int, ...], sides: tuple[int, int, int]) -> None:
    assert ww_sides(shape) == sides


@pytest.mark.parametrize(
    ("shape", "name", "has_row"),
    [
        ((8, 60), "a.weight", True),
        ((7, 60), "a.weight", False),
        ((60, 8), "a.in_proj_weight", False),
        ((64,), "norm.weight", False),
        ((64, 1, 3, 3), "depthwise.weight", True),
        ((1, 64, 3, 3), "conv.weight", False),
        ((64, 64, 3), "conv1d.weight", False),
        ((15_000, 15_000), "a.weight", True),
        ((15_001, 15_001), "a.weight", False),
        ((50_001, 100), "embedding.weight", False),
        ((2048, 2000, 3, 3), "conv.weight", False),
    ],
)
def test_weightwatcher_rows(shape: tuple[int, ...], name: str, has_row: bool) -> None:
    assert ww_has_row(shape, name) is has_row


def test_weightwatcher_sides_refuse_other_tensors() -> None:
    with pytest.raises(ValueError, match="2-D and 4-D"):
        ww_sides((3, 4, 5))


def test_weightwatcher_row_refuses_singular_values_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(slices, 10\)"):
        compat_row(np.ones((1, 9)), 20, 10, False)


def test_weightwatcher_row_of_a_zero_matrix() -> None:
    row = compat_row(np.zeros((1, 30)), 40, 30, False)
    assert (row.ww_status, row.ww_alpha, row.ww_entropy) == ("failed", None, None)
    assert (row.ww_matrix_rank, row.ww_rank_loss, row.ww_weak_rank_loss) == (0, 30, 30)


def test_importing_the_fit_does_not_import_numba() -> None:
    code = "import sys, scanner.spectra.tailfit; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
