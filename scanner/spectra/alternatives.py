"""Four rivals of the power law on its own tail: exponential, stretched, lognormal, truncated.

Everything is a density of u = ln(x / xmin) >= 0, so no scale of the weights enters. Two rivals are
two-parameter exponential families, exp(-p u - q s(u)) / Z with q >= 0, whose likelihood is concave:
s = u^2 is the lognormal (c = q) and s = e^u - 1 - u the truncated power law (b = p - q, v = q). In that form
neither has a ridge, and q = 0 is the power law itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scanner.spectra.families import LOGNORMAL, TRUNCATED, Family, excess_growth, minimise, state_at
from scanner.spectra.tailfit import above_cut, truncated_alpha
from schemas.config import TailRules
from schemas.results import BlockStatus, FitStatus, FloatArray, TailFit

SIGNIFICANT = 0.05
"""An alternative beats the power law only at this p or below."""
LEAST_TAIL = 10
"""Fewer points than this say nothing about two parameters."""
PEAK_BINS = 100
"""Bins of the histogram of log x whose fullest bin starts the tail of the extended truncated power law."""

_GAP_ROOTS, _GAP_WEIGHTS = (np.asarray(part) for part in np.polynomial.legendre.leggauss(8))

_STRETCHES = np.geomspace(1e-4, 20.0, 48)
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativesFit:
    """Rivals of the power law on x >= xmin; all numbers None unless `status` is ok.

    llr_*: sum of ln p_PL - ln p_alt over the tail, nats; > 0 favours the power law. *_p: of the test that
    both fit equally well, in [0, 1]. best_dist: PL, TPL, EXP, SEXP or LOGN. alt_at_boundary: rivals whose
    best fit is the power law itself (llr 0, p 1). exp_lambda, tpl_lambda, etpl_lambda: unit 1/weight^2;
    tpl_beta, etpl_beta: exponent of x, any real. logn_c = 1/(2 s^2) >= 0, unitless. sexp_beta >= 0, 0 only
    at the boundary. etpl_*: truncated power law on [histogram peak, lambda_max] with its KS distance; None
    also when fewer than 10 eigenvalues lie there.
    """

    status: BlockStatus
    llr_exp: float | None = None
    llr_sexp: float | None = None
    llr_logn: float | None = None
    llr_tpl: float | None = None
    llr_exp_p: float | None = None
    llr_sexp_p: float | None = None
    llr_logn_p: float | None = None
    llr_tpl_p: float | None = None
    best_dist: str | None = None
    alt_at_boundary: tuple[str, ...] | None = None
    exp_lambda: float | None = None
    tpl_beta: float | None = None
    tpl_lambda: float | None = None
    etpl_beta: float | None = None
    etpl_lambda: float | None = None
    etpl_D_ks: float | None = None
    logn_c: float | None = None
    sexp_beta: float | None = None


def fit_alternatives(evals: FloatArray, tail: TailFit, *, rules: TailRules | None = None) -> AlternativesFit:
    """Fit four rivals to the tail that `tail` describes and test each against its power law.

    Args:
        evals: (n,) float64 eigenvalues in any order, unit weight^2; those at or above `tail.xmin` are fitted.
        tail: the power law, from `fit_tail` on the same eigenvalues.
        rules: only `relative_cut` is used, for the histogram of the extended truncated power law.

    Returns:
        An AlternativesFit. Status: ok; off (no tail fit was requested); too_small (too few eigenvalues for a
        tail fit, or fewer than 10 in the tail); failed (no tail, or Newton's method did not converge).

    Densities in u: PL b e^-bu; EXP w e^u exp(-w (e^u - 1)); SEXP w k e^ku exp(-w (e^ku - 1)); LOGN
    exp(-b u - c u^2)/Z; TPL exp(-b u - v e^u)/Z. All are maximum-likelihood. EXP is not nested: Vuong's
    p = erfc(|R| / sqrt(2 n v)), v the population variance of the differences. The others contain PL at the
    edge of their parameters, so R <= 0 and p = P(chi2_1 > 2|R|) / 2, or 1 at the edge. best_dist: least AIC
    among rivals with R < 0 and p <= 0.05, else PL. Cost: O(n_tail), about 60 exponentials a point.
    Sources: Clauset, Shalizi and Newman 2009, table 1 and section 5; Vuong 1989; Self and Liang 1987.
    """
    refusal = _refusal(tail)
    if refusal is not None or tail.xmin is None:
        return AlternativesFit(status=refusal or BlockStatus.FAILED)
    u = np.log(np.sort(evals[evals >= tail.xmin]) / tail.xmin)
    lognormal, truncated = _nested(u, LOGNORMAL), _nested(u, TRUNCATED)
    if lognormal is None or truncated is None:
        return AlternativesFit(status=BlockStatus.FAILED)
    rivals = {"EXP": _exponential(u), "SEXP": _stretched(u), "LOGN": lognormal, "TPL": truncated}
    extended = _extended(evals, rules or TailRules())
    return AlternativesFit(
        status=BlockStatus.OK,
        **{f"llr_{name.lower()}": rival.llr for name, rival in rivals.items()},
        **{f"llr_{name.lower()}_p": rival.p for name, rival in rivals.items()},
        best_dist=_best(rivals),
        alt_at_boundary=tuple(name for name, rival in rivals.items() if rival.at_boundary),
        exp_lambda=rivals["EXP"].second / tail.xmin,
        sexp_beta=rivals["SEXP"].first,
        logn_c=lognormal.second,
        tpl_beta=1.0 + truncated.first - truncated.second,
        tpl_lambda=truncated.second / tail.xmin,
        etpl_beta=extended and extended.beta,
        etpl_lambda=extended and extended.decay,
        etpl_D_ks=extended and extended.distance,
    )


class TruncatedFit(NamedTuple):
    """x^-beta e^(-decay x) on x >= xmin; decay in 1/weight^2, llr as in AlternativesFit."""

    beta: float
    decay: float
    llr: float


def fit_truncated(evals: FloatArray, xmin: float) -> TruncatedFit | None:
    """Fit the truncated power law alone to the eigenvalues at or above `xmin`.

    Shapes, units, source and cost as for `fit_alternatives`, which fits it too. None when Newton's method
    does not converge.
    """
    fit = _nested(np.log(np.sort(evals[evals >= xmin]) / xmin), TRUNCATED)
    return None if fit is None else TruncatedFit(1.0 + fit.first - fit.second, fit.second / xmin, fit.llr)


class _Rival(NamedTuple):
    """A fitted rival: log-likelihood ratio, its p, and up to two parameters."""

    llr: float
    p: float
    first: float = 0.0
    second: float = 0.0
    parameters: int = 2
    at_boundary: bool = False


def _refusal(tail: TailFit) -> BlockStatus | None:
    if tail.status == FitStatus.OFF:
        return BlockStatus.OFF
    if tail.status == FitStatus.TOO_FEW_EVALS:
        return BlockStatus.TOO_SMALL
    if tail.status != FitStatus.OK:
        return BlockStatus.FAILED
    return BlockStatus.TOO_SMALL if (tail.n_tail or 0) < LEAST_TAIL else None


def _best(rivals: dict[str, _Rival]) -> str:
    """Least AIC = 2 parameters - 2 log-likelihood, relative to twice the power law's log-likelihood."""
    aic = {
        name: 2.0 * rival.parameters + 2.0 * rival.llr
        for name, rival in rivals.items()
        if rival.llr < 0.0 and rival.p <= SIGNIFICANT
    }
    return min(aic, key=aic.__getitem__, default="PL")


def _nested_p(llr: float) -> float:
    """P(chi2_1 > 2 |R|) / 2: the null lies on the edge of the parameters (Self and Liang 1987)."""
    return 0.5 * math.erfc(math.sqrt(abs(llr)))


def _exponential(u: FloatArray) -> _Rival:
    """Closed form w = 1 / mean(e^u - 1), with Vuong's test."""
    grown = np.expm1(u)
    b, w = 1.0 / float(u.mean()), 1.0 / float(grown.mean())
    differences = math.log(b / w) - (b + 1.0) * u + w * grown
    llr, spread = float(differences.sum()), float(differences.std())
    p = math.erfc(abs(llr) / (spread * math.sqrt(2.0 * u.size))) if spread > 0.0 else 1.0
    return _Rival(llr, p, second=w, parameters=1)


def _stretched(u: FloatArray) -> _Rival:
    """Best of the profile over beta: a log grid, then Brent's method between the best point's neighbours."""
    from scipy.optimize import minimize_scalar

    mean = float(u.mean())
    grid = _STRETCHES / mean
    grid = grid[grid * u[-1] < _LARGEST_EXPONENT]
    best = int(_stretched_profile(u, grid).argmax())
    low, high = grid[best - 1] if best else 0.0, grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda beta: -_stretched_profile(u, np.array([beta]))[0],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-8 * high},
    )
    beta, gain = max(
        (
            (float(found.x), -float(found.fun)),
            (float(grid[best]), float(_stretched_profile(u, grid[[best]])[0])),
        ),
        key=lambda fit: fit[1],
    )
    # Along the profile the power law is the limit beta = 0, left uphill if mean u^2 < 2 (mean u)^2.
    llr = -u.size * (gain + math.log(mean))
    if llr >= 0.0 or (best == 0 and float((u * u).mean()) >= 2.0 * mean**2):
        return _Rival(0.0, 1.0, at_boundary=True)
    return _Rival(llr, _nested_p(llr), first=beta)


def _stretched_profile(u: FloatArray, betas: FloatArray) -> FloatArray:
    """Mean log-likelihood plus 1 at each beta, w = 1 / mean(e^(beta u) - 1) being its best."""
    grown = np.expm1(betas[:, None] * u).mean(axis=1)
    return np.asarray(np.log(betas / grown) + betas * u.mean())


def _nested(u: FloatArray, family: Family) -> _Rival | None:
    """Fit an unbounded family; the power law is best iff its mean of s does not exceed the sample's."""
    mean_u, mean_s = float(u.mean()), float(family.statistic(u).mean())
    b = 1.0 / mean_u
    if mean_s >= family.power_law(b):
        return _Rival(0.0, 1.0, first=b, at_boundary=True)
    fit = minimise(family, mean_u, mean_s, p=b)
    if fit is None:
        return None
    p, q, loss = fit
    llr = min(0.0, u.size * (loss - 1.0 - math.log(mean_u)))
    return _Rival(llr, _nested_p(llr), first=p, second=q)


class _Extended(NamedTuple):
    beta: float
    decay: float
    distance: float


def _extended(evals: FloatArray, rules: TailRules) -> _Extended | None:
    """Truncated power law on [peak, lambda_max], the peak being the left edge of the first fullest bin.

    The histogram has 100 equal bins of log x over the eigenvalues above the cut. Logs are of x / lambda_max,
    so a change of scale by a power of two moves no eigenvalue to another bin.
    """
    x = above_cut(evals, rules)
    top = float(x[-1])
    logs = np.log(x / top)
    counts, edges = np.histogram(logs, bins=PEAK_BINS)
    peak = float(edges[counts.argmax()])
    u = logs[logs >= peak] - peak
    length = float(u[-1])
    mean_u, mean_s = float(u.mean()), float(excess_growth(u).mean())
    alpha = truncated_alpha(mean_u, length)
    if u.size < LEAST_TAIL or alpha is None:
        return None
    p, q = alpha - 1.0, 0.0
    if mean_s < state_at(TRUNCATED, p, q, length).mean_s:
        fit = minimise(TRUNCATED, mean_u, mean_s, p=p, length=length)
        if fit is None:
            return None
        p, q, _ = fit
    return _Extended(1.0 + p - q, q * math.exp(-peak) / top, _bounded_distance(u, p, q))


def _bounded_distance(u: FloatArray, p: float, q: float) -> float:
    """Two-sided KS distance of ascending u from the truncated family on [0, u[-1]], gap by gap."""
    starts = np.append(0.0, u[:-1])
    half = (u - starts) / 2.0
    nodes = starts[:, None] + half[:, None] * (_GAP_ROOTS + 1.0)
    exponent = -p * nodes - q * excess_growth(nodes)
    cdf = np.cumsum(half * (np.exp(exponent - exponent.max()) @ _GAP_WEIGHTS))
    cdf /= cdf[-1]
    steps = np.arange(u.size + 1) / u.size
    return float(max((steps[1:] - cdf).max(), (cdf - steps[:-1]).max()))
