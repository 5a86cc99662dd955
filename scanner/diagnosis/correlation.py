"""A metric against a score, pooled and inside strata: Simpson's paradox is told, not published.

Scale metrics order models of one family well and models of all families badly, shape metrics the reverse;
a pooled coefficient alone says neither.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

WITHIN_MIN = 5
"""Models a stratum needs to enter tau_within, rho_within and their interval."""

SIGN_MIN = 4
"""Models a stratum needs to enter sign_agreement; four cannot reach p < .083."""

RESAMPLES = 2000

LARGEST = 1e100
"""Beyond it a value is no measurement, and its square no float."""

_EXACT_UP_TO = 7
_COUNT_BLOCK = 1 << 22
_PAIR_BLOCK = 256

Floats = NDArray[np.float64]
Coefficient = Callable[[Floats, Floats], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumCorrelation:
    """Metric against score among the comparable models of one stratum.

    `tau` is Kendall's tau-b, `rho` Spearman's; p-values are two-sided, None with the coefficient where
    fewer than two models are left or one side is constant. `slope`, `r2` and `rmse` (of the score, over n)
    are those of the least-squares line.
    """

    name: str
    n: int
    tau: float | None
    tau_p: float | None
    rho: float | None
    rho_p: float | None
    slope: float | None
    r2: float | None
    rmse: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationReport:
    """A metric against a score: strata by falling size, and what they say together.

    `tau_pooled` and `rho_pooled` run over all n models. `tau_within` is sum n_s tau_s / sum n_s over the
    strata with n_s >= 5 and a tau, `rho_within` likewise, `tau_interval` its bootstrap 95 % interval.
    `sign_agreement` is the share of strata with n_s >= 4 whose tau has the majority sign; a tau of 0 or
    none counts against. `slope` and `r2` are of the fixed-effect regression: score on metric, both minus
    their stratum means, over all strata. None where there is nothing to compute from.
    `global_order` says whether one order over all strata may be published, `reason` why (not).
    `num_left_out` counts models without metric, score or stratum.
    """

    strata: tuple[StratumCorrelation, ...]
    n: int
    num_left_out: int
    tau_pooled: float | None
    rho_pooled: float | None
    tau_within: float | None
    rho_within: float | None
    tau_interval: tuple[float, float] | None
    sign_agreement: float | None
    slope: float | None
    r2: float | None
    global_order: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Sample:
    """Models of one stratum, in an order that does not depend on how they were given."""

    name: str
    x: Floats
    y: Floats


def correlate(
    metric: Sequence[float | None],
    score: Sequence[float | None],
    strata: Sequence[str | None],
    seed: int = 0,
) -> CorrelationReport:
    """Report on n models: metric and score (n,) in any units, stratum names (n,).

    None, NaN and values beyond 1e100 leave a model out. Ranks follow Kendall, Biometrika 33 (1945), and
    Spearman with mid-ranks; p is exact up to n = 7. The interval costs 2000 n_s^2 products a stratum.
    """
    samples = _samples(metric, score, strata)
    found = tuple(_stratum(sample) for sample in samples)
    x, y = _joined(sample.x for sample in samples), _joined(sample.y for sample in samples)
    line = _line(_joined(_centred(s.x) for s in samples), _joined(_centred(s.y) for s in samples))
    pooled, within = _coefficient(stats.kendalltau, x, y), _weighted([(s.n, s.tau) for s in found])
    agreement = _sign_agreement(found)
    reason = _refusal(found, pooled, within, agreement)
    return CorrelationReport(
        strata=found,
        n=len(x),
        num_left_out=len(metric) - len(x),
        tau_pooled=pooled,
        rho_pooled=_coefficient(stats.spearmanr, x, y),
        tau_within=within,
        rho_within=_weighted([(s.n, s.rho) for s in found]),
        tau_interval=_interval(samples, seed) if within is not None else None,
        sign_agreement=agreement,
        slope=line[0] if line else None,
        r2=line[1] if line else None,
        global_order=not reason,
        reason=reason or _grounds(found),
    )


def _samples(
    metric: Sequence[float | None], score: Sequence[float | None], strata: Sequence[str | None]
) -> list[_Sample]:
    """Complete models by stratum: the largest first, then by name; inside by metric and score."""
    members: dict[str, list[tuple[float, float]]] = {}
    for x, y, name in zip(metric, score, strata, strict=True):
        if x is not None and y is not None and name and abs(x) <= LARGEST and abs(y) <= LARGEST:
            members.setdefault(name, []).append((float(x), float(y)))
    ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
    pairs = ((name, np.array(sorted(values), dtype=np.float64)) for name, values in ordered)
    return [_Sample(name, values[:, 0], values[:, 1]) for name, values in pairs]


def _stratum(sample: _Sample) -> StratumCorrelation:
    x, y = sample.x, sample.y
    tau, rho = _coefficient(stats.kendalltau, x, y), _coefficient(stats.spearmanr, x, y)
    line = _line(x, y)
    return StratumCorrelation(
        name=sample.name,
        n=len(x),
        tau=tau,
        tau_p=None if tau is None else _p_value(stats.kendalltau, np.sign, x, y),
        rho=rho,
        rho_p=None if rho is None else _p_value(stats.spearmanr, np.positive, x, y),
        slope=line[0] if line else None,
        r2=line[1] if line else None,
        rmse=line[2] if line else None,
    )


def _coefficient(of: Coefficient, x: Floats, y: Floats) -> float | None:
    """The coefficient of a scipy.stats function, or None where it has none."""
    if not _varies(x) or not _varies(y):
        return None
    return float(of(x, y).statistic)


def _p_value(of: Coefficient, score: np.ufunc, x: Floats, y: Floats) -> float:
    """Two-sided p: over all n! pairings up to n = 7, beyond that scipy's, and never below 2/n!.

    Spearman's t approximation says p = 0 for four models in order; the least there is is 2/4! = .083.
    """
    if len(x) > _EXACT_UP_TO:
        least = 2 / factorial(len(x)) if len(x) < 20 else 0.0
        return max(float(of(x, y).pvalue), least)
    return _exact_p(_pair_scores(x, score), _pair_scores(y, score))


def _pair_scores(values: Floats, score: np.ufunc) -> Floats:
    """Antisymmetric (n, n) matrix that makes Daniels' coefficient Kendall's (sign) or Spearman's (identity).

    Daniels, Biometrika 33 (1944): both are sum a_ij b_ij / sqrt(sum a_ij^2 sum b_ij^2).
    """
    ranks = stats.rankdata(values)
    return np.asarray(score(ranks[:, None] - ranks[None, :]), dtype=np.float64)


def _exact_p(a: Floats, b: Floats) -> float:
    """Share of all pairings with at least the observed |sum a_ij b_ij|; exact, for small n."""
    orders = _orders(len(a))
    totals = np.abs(np.einsum("ij,pij->p", a, b[orders[:, :, None], orders[:, None, :]]))
    return float(np.mean(totals >= abs(np.sum(a * b)) - 1e-9))


@cache
def _orders(n: int) -> NDArray[np.intp]:
    return np.array(list(permutations(range(n))), dtype=np.intp)


def _line(x: Floats, y: Floats) -> tuple[float, float, float] | None:
    """Slope, R^2 and root mean square residual of the least-squares line of y on x; None if x is constant.

    R^2 of a constant y is 0: there is nothing the line explains.
    """
    dx, dy = _centred(x), _centred(y)
    spread, total = float(dx @ dx), float(dy @ dy)
    if not spread:
        return None
    slope = float(dx @ dy) / spread
    residual = float(np.sum((dy - slope * dx) ** 2))
    r2 = max(0.0, 1 - residual / total) if total else 0.0
    return slope, r2, float(np.sqrt(residual / len(x)))


def _weighted(of_strata: Iterable[tuple[int, float | None]]) -> float | None:
    """Mean weighted by size over strata of at least five with a coefficient."""
    counted = [(n, value) for n, value in of_strata if n >= WITHIN_MIN and value is not None]
    return sum(n * value for n, value in counted) / sum(n for n, _ in counted) if counted else None


def _sign_agreement(found: Sequence[StratumCorrelation]) -> float | None:
    signs = [np.sign(s.tau or 0.0) for s in found if s.n >= SIGN_MIN]
    return max(signs.count(1.0), signs.count(-1.0)) / len(signs) if signs else None


def _interval(samples: Sequence[_Sample], seed: int) -> tuple[float, float] | None:
    """Percentile 95 % interval of tau_within over resamples of the models within each stratum.

    A resample in which a stratum is constant has no tau there; the other strata then carry it.
    """
    random = np.random.default_rng(seed)
    total, weight = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for sample in samples:
        n = len(sample.x)
        if n < WITHIN_MIN or not _varies(sample.x) or not _varies(sample.y):
            continue
        taus = _resampled_taus(sample, random)
        total += n * np.nan_to_num(taus)
        weight += n * np.isfinite(taus)
    values = total[weight > 0] / weight[weight > 0]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _resampled_taus(sample: _Sample, random: np.random.Generator) -> Floats:
    """tau-b of each resample (RESAMPLES,), NaN where it is constant.

    With w_i the times model i was drawn, tau_b = w'(A*B)w / sqrt(w'A^2 w w'B^2 w) for the signs A, B of all
    pairs: pairs of one model with itself are ties and vanish. Done in blocks, so that memory is linear in n.
    """
    n = len(sample.x)
    chances = np.full(n, 1 / n)
    batch = max(1, _COUNT_BLOCK // n)
    taus = []
    for start in range(0, RESAMPLES, batch):
        drawn = random.multinomial(n, chances, size=min(batch, RESAMPLES - start)).astype(np.float64)
        concord, x_pairs, y_pairs = _pair_counts(sample, drawn)
        scale = np.sqrt(x_pairs * y_pairs)
        taus.append(np.divide(concord, scale, out=np.full(len(scale), np.nan), where=scale > 0))
    return np.concatenate(taus)


def _pair_counts(sample: _Sample, drawn: Floats) -> Floats:
    """For each row of `drawn` (k, n): concordant minus discordant, untied in x, untied in y, as (3, k)."""
    counts = np.zeros((3, len(drawn)))
    for start in range(0, len(sample.x), _PAIR_BLOCK):
        block = slice(start, start + _PAIR_BLOCK)
        a = np.sign(sample.x[block, None] - sample.x[None, :])
        b = np.sign(sample.y[block, None] - sample.y[None, :])
        for row, pairs in enumerate((a * b, np.abs(a), np.abs(b))):
            counts[row] += np.einsum("kn,kn->k", drawn[:, block], drawn @ pairs.T)
    return counts


def _refusal(
    found: Sequence[StratumCorrelation], pooled: float | None, within: float | None, agreement: float | None
) -> str:
    """Why no order over all strata may be published; empty if it may."""
    if within is None or agreement is None or pooled is None:
        return f"no stratum has {WITHIN_MIN} models that differ in metric and score"
    if agreement < 1:
        signs = ", ".join(f"{s.name} {_tau(s.tau)}" for s in found if s.n >= SIGN_MIN)
        return f"the strata disagree in sign: tau {signs}"
    if np.sign(pooled) != np.sign(within):
        return (
            f"Simpson's paradox: tau is {pooled:+.2f} over all models together and {within:+.2f} within "
            "strata, so the pooled sign is that of the differences between strata"
        )
    return ""


def _grounds(found: Sequence[StratumCorrelation]) -> str:
    judged = [s for s in found if s.n >= SIGN_MIN]
    if len(judged) == 1:
        return f"only {judged[0].name} has {SIGN_MIN} models, so nothing is known of other strata"
    return f"all {len(judged)} strata of {SIGN_MIN} or more models agree in sign, with the pooled sign"


def _tau(value: float | None) -> str:
    return "none" if value is None else f"{value:+.2f}"


def _varies(values: Floats) -> bool:
    return len(values) > 1 and bool(np.any(values != values[0]))


def _centred(values: Floats) -> Floats:
    """Values minus their mean, exactly 0 where they are all equal."""
    return values - values.mean() if _varies(values) else np.zeros_like(values)


def _joined(parts: Iterable[Floats]) -> Floats:
    return np.concatenate([np.empty(0), *parts])
