"""Rivals of the power law: fixed samples, independent likelihoods, the powerlaw package, recovery, edges."""

import math
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import powerlaw
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from scipy.stats import chi2, norm

from scanner.spectra.alternatives import AlternativesFit, fit_alternatives
from scanner.spectra.tailfit import fit_tail
from schemas.results import BlockStatus, FitStatus, TailFit

Floats = NDArray[np.float64]
MIDPOINTS = (np.arange(1, 501) - 0.5) / 500
LOGNORMAL = np.exp(ndtri(MIDPOINTS))
PARETO = (1 - MIDPOINTS) ** (-1 / 1.5)
EXPONENTIAL = 1 - np.log(1 - MIDPOINTS)


def whole_tail(x: Floats) -> TailFit:
    """The power law fitted to all of x."""
    excess = float(np.log(x / x.min()).sum())
    return TailFit(
        estimator="hs1",
        status=FitStatus.OK,
        alpha=1 + x.size / excess,
        xmin=float(x.min()),
        xmax=float(x.max()),
        n_tail=x.size,
    )


def fitted(x: Floats) -> AlternativesFit:
    fit = fit_alternatives(x, whole_tail(x))
    assert fit.status is BlockStatus.OK
    return fit


def ratio(value: float) -> object:
    return pytest.approx(value, rel=1e-3, abs=1e-3)


def test_lognormal_quantiles() -> None:
    fit = fitted(LOGNORMAL)
    assert whole_tail(LOGNORMAL).alpha == pytest.approx(1.3236, abs=1e-4)
    assert (fit.llr_logn, fit.llr_sexp) == (ratio(-355.812), ratio(-331.806))
    assert (fit.llr_tpl, fit.llr_exp) == (ratio(-330.085), ratio(-330.059))
    assert max(fit.llr_logn_p, fit.llr_sexp_p, fit.llr_tpl_p, fit.llr_exp_p) < 1e-60
    assert fit.best_dist == "LOGN"
    assert fit.logn_c == pytest.approx(0.5, abs=0.01)


def test_pareto_quantiles() -> None:
    fit = fitted(PARETO)
    assert (fit.llr_exp, fit.llr_exp_p) == (ratio(169.399), pytest.approx(8.3e-4, rel=0.01))
    assert (fit.llr_logn, fit.llr_logn_p) == (ratio(-0.0030), pytest.approx(0.469, abs=1e-3))
    assert (fit.llr_tpl, fit.llr_tpl_p) == (ratio(-0.0489), pytest.approx(0.377, abs=1e-3))
    assert (fit.best_dist, fit.alt_at_boundary) == ("PL", ())


def test_exponential_quantiles() -> None:
    fit = fitted(EXPONENTIAL)
    assert (fit.llr_exp, fit.llr_exp_p) == (ratio(-39.617), pytest.approx(1.9e-8, rel=0.01))
    assert (fit.llr_tpl, fit.llr_tpl_p) == (ratio(-39.617), pytest.approx(2.8e-19, rel=0.02))
    assert fit.best_dist == "EXP"
    assert (fit.tpl_beta, fit.sexp_beta) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def samples() -> dict[str, Floats]:
    rng = np.random.default_rng(7)
    gaussian, heavy = rng.normal(size=(300, 150)), rng.standard_t(3, (300, 150))
    return {
        "lognormal quantiles": LOGNORMAL,
        "pareto quantiles": PARETO,
        "exponential quantiles": EXPONENTIAL,
        "pareto 0.6": rng.pareto(0.6, 400) + 1,
        "pareto 1.5": rng.pareto(1.5, 400) + 1,
        "pareto 5": rng.pareto(5, 300) + 1,
        "lognormal": rng.lognormal(0, 2, 500),
        "gamma": rng.gamma(0.3, 1, 300),
        "uniform": rng.uniform(1, 2, 300),
        "few values": np.exp(rng.integers(0, 5, 300) * 0.3),
        "gaussian matrix": np.linalg.svd(gaussian, compute_uv=False) ** 2,
        "heavy matrix": np.linalg.svd(heavy, compute_uv=False) ** 2,
    }


SAMPLES = samples()
each = pytest.mark.parametrize("name", SAMPLES)


def tail_of(name: str) -> tuple[Floats, TailFit, AlternativesFit]:
    x = SAMPLES[name]
    tail = fit_tail(x)
    return np.sort(x[x >= tail.xmin]), tail, fit_alternatives(x, tail)


def power_law_ll(x: Floats, tail: TailFit) -> float:
    return float(np.sum(math.log((tail.alpha - 1) / tail.xmin) - tail.alpha * np.log(x / tail.xmin)))


def exponential_ll(x: Floats, xmin: float, rate: float) -> float:
    return float(np.sum(math.log(rate) - rate * (x - xmin)))


def stretched_ll(x: Floats, xmin: float, beta: float, rate: float) -> float:
    """`rate` multiplies (x / xmin)^beta."""
    y = x / xmin
    return float(np.sum(math.log(beta * rate / xmin) + (beta - 1) * np.log(y) - rate * (y**beta - 1)))


def lognormal_ll(x: Floats, xmin: float, mu: float, sigma: float) -> float:
    above = norm.logsf((math.log(xmin) - mu) / sigma)
    return float(np.sum(norm.logpdf((np.log(x) - mu) / sigma) - math.log(sigma) - np.log(x) - above))


def truncated_ll(x: Floats, xmin: float, beta: float, rate: float) -> float:
    def density(u: float) -> float:
        return math.exp(-(beta - 1) * u - rate * xmin * math.expm1(u))

    b, v = beta - 1, rate * xmin
    reach = math.log1p((120 + 10 * abs(b)) / v) if v > 0 else 60 / b
    mass, _ = quad(density, 0, reach, limit=400, epsabs=0, epsrel=1e-11)
    u = np.log(x / xmin)
    return float(np.sum(-beta * u - rate * xmin * np.expm1(u) - math.log(mass * xmin)))


@each
def test_the_reported_parameters_have_the_reported_likelihood(name: str) -> None:
    x, tail, fit = tail_of(name)
    reference, xmin = power_law_ll(x, tail), tail.xmin
    near = {"rel": 1e-9, "abs": 1e-6}
    assert exponential_ll(x, xmin, fit.exp_lambda) == pytest.approx(reference - fit.llr_exp, **near)
    assert truncated_ll(x, xmin, fit.tpl_beta, fit.tpl_lambda) == pytest.approx(
        reference - fit.llr_tpl, **near
    )
    if "SEXP" not in fit.alt_at_boundary:
        rate = 1 / np.mean((x / xmin) ** fit.sexp_beta - 1)
        ours = stretched_ll(x, xmin, fit.sexp_beta, rate)
        assert ours == pytest.approx(reference - fit.llr_sexp, **near)


@each
def test_the_stretched_exponential_is_stationary(name: str) -> None:
    x, tail, fit = tail_of(name)
    if "SEXP" in fit.alt_at_boundary:
        assert fit.sexp_beta == 0
        return
    u, beta = np.log(x / tail.xmin), fit.sexp_beta
    score = 1 + beta * u.mean() - beta * (u * np.exp(beta * u)).mean() / np.expm1(beta * u).mean()
    assert score == pytest.approx(0, abs=1e-6)


@each
def test_the_lognormal_is_the_best_of_its_width(name: str) -> None:
    x, tail, fit = tail_of(name)
    if "LOGN" in fit.alt_at_boundary:
        assert fit.logn_c == 0
        return
    sigma = (2 * fit.logn_c) ** -0.5
    u = np.log(x / tail.xmin)
    centre = float(u.mean())
    best = minimize_scalar(
        lambda mu: -lognormal_ll(np.exp(u), 1.0, mu, sigma),
        bounds=(centre - 40 * sigma - 4 * sigma**2 / centre, centre + 10 * sigma),
        method="bounded",
        options={"xatol": 1e-9},
    )
    ours = power_law_ll(x, tail) - fit.llr_logn + float(np.log(x).sum()) - float(u.sum())
    assert ours == pytest.approx(-best.fun, abs=1e-5)


PACKAGE = {
    "exp": (powerlaw.Exponential, ("Lambda",)),
    "sexp": (powerlaw.Stretched_Exponential, ("Lambda", "beta")),
    "logn": (powerlaw.Lognormal, ("mu", "sigma")),
    "tpl": (powerlaw.Truncated_Power_Law, ("alpha", "Lambda")),
}


def package_parameters(rival: str, x: Floats, xmin: float) -> list[float]:
    kind, names = PACKAGE[rival]
    # Its own default caps the exponent of the truncated power law at 3.
    opened = {"alpha": [-20, None]} if rival == "tpl" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = kind(data=x, xmin=xmin, parameter_ranges={**kind.DEFAULT_PARAMETER_RANGES, **opened})
    return [float(getattr(found, name)) for name in names]


def package_ll(rival: str, x: Floats, xmin: float) -> float:
    """The exact likelihood at the package's parameters; its own is off where a normalisation cancels."""
    parameters = package_parameters(rival, x, xmin)
    if rival == "exp":
        return exponential_ll(x, xmin, *parameters)
    if rival == "sexp":
        rate, beta = parameters
        return stretched_ll(x, xmin, beta, (rate * xmin) ** beta)
    if rival == "logn":
        return lognormal_ll(x, xmin, *parameters)
    return truncated_ll(x, xmin, *parameters)


@each
@pytest.mark.parametrize("rival", PACKAGE)
def test_never_less_likely_than_the_powerlaw_package(name: str, rival: str) -> None:
    x, tail, fit = tail_of(name)
    ours = power_law_ll(x, tail) - getattr(fit, f"llr_{rival}")
    assert ours >= package_ll(rival, x, tail.xmin) - 1e-6


@each
def test_a_wider_family_is_never_less_likely(name: str) -> None:
    _, _, fit = tail_of(name)
    assert max(fit.llr_tpl, fit.llr_sexp, fit.llr_logn) <= 0
    assert max(fit.llr_tpl, fit.llr_sexp) <= fit.llr_exp + 1e-6


@each
def test_nested_p_is_half_a_chi_square_or_one_at_the_boundary(name: str) -> None:
    _, _, fit = tail_of(name)
    for rival in ("sexp", "logn", "tpl"):
        llr, p = getattr(fit, f"llr_{rival}"), getattr(fit, f"llr_{rival}_p")
        if rival.upper() in fit.alt_at_boundary:
            assert (llr, p) == (0, 1)
        else:
            assert p == pytest.approx(0.5 * chi2.sf(-2 * llr, 1), rel=1e-9)


@each
def test_vuong_p_of_the_exponential(name: str) -> None:
    x, tail, fit = tail_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ratio_, p = powerlaw.loglikelihood_ratio(
            np.log((tail.alpha - 1) / tail.xmin) - tail.alpha * np.log(x / tail.xmin),
            math.log(fit.exp_lambda) - fit.exp_lambda * (x - tail.xmin),
        )
    assert fit.llr_exp == pytest.approx(ratio_, rel=1e-9, abs=1e-9)
    assert fit.llr_exp_p == pytest.approx(p, rel=1e-6, abs=1e-12)


def test_a_heavier_tail_than_any_power_law_is_at_every_boundary() -> None:
    x = np.exp(np.append(0.0, -np.log(1 - MIDPOINTS)) ** 2)
    fit = fitted(x)
    assert fit.alt_at_boundary == ("SEXP", "LOGN")
    assert (fit.logn_c, fit.sexp_beta, fit.best_dist) == (0, 0, "PL")


def test_a_steep_heavy_tail_is_at_the_boundary_of_the_truncated_power_law() -> None:
    steep = PARETO ** (1.5 / 8)
    x = np.append(steep, [10.0, 20.0])
    fit = fitted(x)
    assert "TPL" in fit.alt_at_boundary
    assert fit.tpl_lambda == 0
    assert fit.tpl_beta == pytest.approx(whole_tail(x).alpha, rel=1e-12)


def truncated_power_law(beta: float, rate: float, n: int = 4000) -> Floats:
    """Quantiles of x^-beta e^(-rate x) from 1 on."""
    grid = np.linspace(0, math.log(60 / rate), 400_001)
    density = np.exp(-(beta - 1) * grid - rate * np.expm1(grid))
    mass = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    return np.exp(np.interp((np.arange(1, n + 1) - 0.5) / n, mass / mass[-1], grid))


@pytest.mark.parametrize(("beta", "rate"), [(2.0, 0.1), (1.5, 0.02), (2.5, 0.01), (-1.0, 0.5)])
def test_recovers_the_truncated_power_law(beta: float, rate: float) -> None:
    fit = fitted(truncated_power_law(beta, rate))
    assert fit.tpl_beta == pytest.approx(beta, abs=0.01)
    assert fit.tpl_lambda == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize(("beta", "rate"), [(2.0, 0.1), (1.5, 0.02)])
def test_recovers_the_truncated_power_law_from_random_samples(beta: float, rate: float) -> None:
    rng = np.random.default_rng(3)
    quantiles = truncated_power_law(beta, rate, 20_000)
    fits = [fitted(np.append(quantiles[0], rng.choice(quantiles, 5000))) for _ in range(8)]
    assert np.mean([fit.tpl_beta for fit in fits]) == pytest.approx(beta, abs=0.03)
    assert np.mean([fit.tpl_lambda for fit in fits]) == pytest.approx(rate, rel=0.1)


def test_a_sharp_cutoff_is_called_by_its_name() -> None:
    assert fitted(truncated_power_law(1.5, 0.02)).best_dist == "TPL"


@each
def test_scale_moves_only_the_rates(name: str) -> None:
    x = SAMPLES[name]
    base, scaled = (fit_alternatives(v, fit_tail(v)) for v in (x, x * 2.0**30))
    for field in fields(AlternativesFit):
        ours, theirs = getattr(base, field.name), getattr(scaled, field.name)
        if field.name.endswith("_lambda") and ours is not None:
            theirs *= 2.0**30
        if isinstance(ours, float):
            assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-9), field.name
        else:
            assert theirs == ours, field.name


def test_order_does_not_matter() -> None:
    x = SAMPLES["heavy matrix"]
    assert fit_alternatives(x[::-1].copy(), fit_tail(x)) == fit_alternatives(x, fit_tail(x))


@pytest.mark.parametrize("spread", [1e-9, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_narrow_tails_converge(seed: int, spread: float) -> None:
    x = 1 + spread * np.random.default_rng(seed).random(100) ** 2
    fit = fitted(x)
    assert fit.llr_tpl <= fit.llr_exp + 1e-6


@pytest.mark.parametrize("decades", [2, 6, 11])
def test_wide_tails_converge(decades: int) -> None:
    fit = fitted(10 ** np.random.default_rng(decades).uniform(-decades, 0, 200))
    assert fit.best_dist != "PL"
    assert all(math.isfinite(getattr(fit, f"llr_{rival}")) for rival in PACKAGE)


def extended_loss(u: Floats, beta: float, rate: float) -> float:
    """Mean negative log-likelihood of exp(-(beta - 1) u - rate e^u) on [0, max u], by a dense sum."""
    grid = np.linspace(0, u.max(), 40_001)
    density = np.exp(-(beta - 1) * grid - rate * np.expm1(grid))
    mass = np.trapezoid(density, grid)
    return float(np.log(mass) + (beta - 1) * u.mean() + rate * np.expm1(u).mean())


def from_the_peak(x: Floats) -> Floats:
    logs = np.log(np.sort(x))
    counts, edges = np.histogram(logs, bins=100)
    peak = edges[counts.argmax()]
    return logs[logs >= peak] - peak


EXTENDED = [name for name in SAMPLES if name != "few values"]


@pytest.mark.parametrize("name", EXTENDED)
def test_the_extended_fit_is_a_minimum(name: str) -> None:
    x = SAMPLES[name]
    _, _, fit = tail_of(name)
    u = from_the_peak(x)
    rate = fit.etpl_lambda * x.max() / math.exp(u.max())
    assert rate >= 0
    best = extended_loss(u, fit.etpl_beta, rate)
    for beta, factor in [(0.02, 1), (-0.02, 1), (0, 1.02), (0, 0.98), (0.01, 1.01), (-0.01, 0.99)]:
        assert extended_loss(u, fit.etpl_beta + beta, rate * factor) >= best - 1e-7
    assert extended_loss(u, fit.etpl_beta, rate + 1e-3) >= best - 1e-7


@pytest.mark.parametrize("name", EXTENDED)
def test_the_distance_of_the_extended_fit(name: str) -> None:
    x = SAMPLES[name]
    _, _, fit = tail_of(name)
    u = from_the_peak(x)
    rate = fit.etpl_lambda * x.max() / math.exp(u.max())
    grid = np.linspace(0, u.max(), 40_001)
    density = np.exp(-(fit.etpl_beta - 1) * grid - rate * np.expm1(grid))
    mass = np.append(0, np.cumsum((density[1:] + density[:-1]) / 2))
    cdf = np.interp(u, grid, mass / mass[-1])
    steps = np.arange(u.size + 1) / u.size
    assert fit.etpl_D_ks == pytest.approx(max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()), abs=1e-5)


def test_no_extended_fit_when_the_peak_is_the_top() -> None:
    x = np.append(np.geomspace(1, 90, 60), np.full(40, 100.0))
    fit = fit_alternatives(x, fit_tail(x))
    assert fit.status is BlockStatus.OK
    assert (fit.etpl_beta, fit.etpl_lambda, fit.etpl_D_ks) == (None, None, None)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (FitStatus.OFF, BlockStatus.OFF),
        (FitStatus.TOO_FEW_EVALS, BlockStatus.TOO_SMALL),
        (FitStatus.NO_CANDIDATE, BlockStatus.FAILED),
        (FitStatus.CONSTANT, BlockStatus.FAILED),
        (FitStatus.FAILED, BlockStatus.FAILED),
    ],
)
def test_no_tail_no_rivals(tail: FitStatus, expected: BlockStatus) -> None:
    fit = fit_alternatives(PARETO, TailFit(estimator="hs1", status=tail))
    assert fit == AlternativesFit(status=expected)


def test_nine_points_are_too_few() -> None:
    assert fit_alternatives(PARETO[:9], whole_tail(PARETO[:9])).status is BlockStatus.TOO_SMALL
    assert fit_alternatives(PARETO[:10], whole_tail(PARETO[:10])).status is BlockStatus.OK


def test_every_layer_of_minilm_converges(minilm_file: Path) -> None:
    fits = []
    with safe_open(minilm_file, framework="numpy") as tensors:
        for key in [k for k in tensors.keys() if "encoder.layer" in k and k.endswith("dense.weight")]:
            evals = np.linalg.svd(tensors.get_tensor(key).astype(np.float64), compute_uv=False) ** 2
            fits.append(fit_alternatives(evals, fit_tail(evals)))
    assert len(fits) == 18
    assert {fit.status for fit in fits} == {BlockStatus.OK}
    assert all(fit.etpl_D_ks is not None for fit in fits)
