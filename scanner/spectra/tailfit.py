"""Power-law fits of the upper tail of a spectrum, with xmin chosen by the Kolmogorov-Smirnov distance.

Every sum over a tail is the excess T_i = sum over j >= i of ln(x_j / x_i), taken from
T_i = T_{i+1} + (n - i - 1) ln(x_{i+1} / x_i): all terms are non-negative, so nothing cancels, and the
logs are of x / xmax, so a change of scale by a power of two changes no bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas.config import ESTIMATOR, PROFILES, TRUNCATED_ESTIMATOR, TailRules, estimator_of
from schemas.results import FitStatus, Spectrum, TailFit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

WEIGHTWATCHER = "weightwatcher-0.7.7"
"""Estimator name of the compatibility profile."""
WEIGHTWATCHER_CUT = 1e-5
"""WeightWatcher fits eigenvalues above this, whatever the scale of the weights."""
WEIGHTWATCHER_LEAST_TAIL = 8
"""Least tail of a sample below 20; a sample below 8 is its own tail."""

_EPS = float(np.finfo(np.float64).eps)
EIGENVALUE_ERROR = {"gram_f32": 32.0 * float(np.finfo(np.float32).eps)}
"""Error of any eigenvalue over lambda_max where it is not 10 eps: a float64 Gram matrix errs by 1 to 10 eps
(measured on 42 matrices against a float64 SVD), a float32 one by up to 23 (39 matrices against float64)."""
# |d D_i| <= 2.74 b_i delta for relative errors delta of the eigenvalues.
_DISTANCE_ERROR = 2.74

_WW_SMALL_SAMPLE = 20
_WW_SMALL_MIN_EXCESS = 1e-12
_WW_CONSTANT_TAIL_D = 0.5

_SERIES_BELOW = 0.05
_NEWTON_STEPS = 100


@dataclass(frozen=True, slots=True)
class _Sample:
    """Ascending eigenvalues above the cut, x / xmax, its logs, T_i and alpha_i - 1 of each tail."""

    x: NDArray[np.float64]
    relative: NDArray[np.float64]
    logs: NDArray[np.float64]
    excess: NDArray[np.float64]
    exponents: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        x: NDArray[np.float64],
        *,
        correction: float = 0.0,
        least_excess: float = 0.0,
        distinct: bool = False,
    ) -> _Sample:
        # Imported here because numba is slow to import and reading results needs no search.
        from scanner.spectra.search import tail_models

        relative = x / x[-1]
        logs = np.log(relative)
        excess, exponents = tail_models(
            x, logs, correction=correction, least_excess=least_excess, distinct=distinct
        )
        return cls(x, relative, logs, excess, exponents)


def fit_tail(
    spectrum_or_evals: Spectrum | ArrayLike, profile: str = "default", *, rules: TailRules | None = None
) -> TailFit:
    """Fit p(x) ~ x^-alpha to the eigenvalues x >= xmin, xmin being the one with the least KS distance.

    Args:
        spectrum_or_evals: a Spectrum, or eigenvalues in any order (n,), unit weight^2. Bare eigenvalues
            are taken to come from a float64 Gram matrix, which only `near_ties` depends on.
        profile: "default" is estimator "hs1": relative cut, two-sided KS distance, least tail of
            `rules.min_tail` points. "weightwatcher" repeats `fit_powerlaw` of WeightWatcher 0.7.7 on the
            eigenvalues as they are: absolute cut 1e-5, one-sided distance, tails of two points.
        rules: limits of "hs1"; "weightwatcher" has its own. With `xmax` "max" the power law ends at the
            largest eigenvalue (estimator "hs1-xmax"), with its own exact search.

    Returns:
        A TailFit. Status of "hs1": ok, too_few_evals, no_candidate or constant; of "weightwatcher": ok
        or failed. Numbers are None unless ok; `alpha_trunc` also without a root, `alpha_hill` also when
        the upper half of the eigenvalues is one value.

    Raises:
        ValueError: an eigenvalue is negative, NaN or infinite, the input is not one-dimensional, or the
            profile is unknown.

    Under W -> c W, "hs1" keeps alpha, D_ks and n_tail. Cost: a sort unless ascending, n logs, and the search
    of `closest_tail`; O(n) memory. Source: Clauset, Shalizi and Newman 2009, sections 3.1 and 3.3, with the
    maximum-likelihood alpha of equation 3.1.
    """
    method = spectrum_or_evals.method if isinstance(spectrum_or_evals, Spectrum) else "gram_f64"
    evals = _ascending(
        spectrum_or_evals.evals if isinstance(spectrum_or_evals, Spectrum) else spectrum_or_evals
    )
    error = EIGENVALUE_ERROR.get(method, 10.0 * _EPS)
    if profile == "default":
        return _fit_hs1(evals, rules or TailRules(), error)
    if profile == "weightwatcher":
        return _fit_weightwatcher(evals, error)
    raise ValueError(f"unknown tail-fit profile {profile!r}; choose one of {', '.join(PROFILES)}")


def above_cut(evals: ArrayLike, rules: TailRules) -> NDArray[np.float64]:
    """Eigenvalues that "hs1" fits, ascending: above max(relative_cut, n eps) * lambda_max.

    Input: (n,), not negative, any order, unit weight^2. Raises ValueError as `fit_tail` does. Cost: one
    pass, and a sort of what is not ascending.
    """
    x = _ascending(evals)
    top = float(x[-1]) if x.size else 0.0
    return _above(x, max(rules.relative_cut, x.size * _EPS) * top)


def truncated_alpha(mean_log: float, log_range: float) -> float | None:
    """Maximum-likelihood exponent of a power law on [xmin, xmax], from y = ln(x / xmin).

    Args:
        mean_log: mean of y over the tail.
        log_range: ln(xmax / xmin).

    Returns:
        alpha = 1 + t / log_range, any real number, where 1/t - 1/(e^t - 1) = mean_log / log_range; None
        when that ratio is not inside (0, 1). Cost: a few Newton steps. Source: Deluca and Corral 2013.
    """
    if not 0.0 < mean_log < log_range:
        return None
    ratio = mean_log / log_range
    # The left side f satisfies f(-t) = 1 - f(t).
    t = _truncation_root(ratio) if ratio <= 0.5 else -_truncation_root((log_range - mean_log) / log_range)
    return 1.0 + t / log_range


def _truncation_root(ratio: float) -> float:
    """Solve f(t) = 1/t - 1/(e^t - 1) = ratio for ratio <= 1/2, that is t >= 0.

    f is convex and lies above its tangent 1/2 - t/12, so Newton's method from the tangent's root climbs
    to the solution without ever passing it.
    """
    t = 12.0 * (0.5 - ratio)
    for _ in range(_NEWTON_STEPS):
        value, slope = _truncation_curve(t)
        step = (ratio - value) / slope
        if step <= _EPS * t:
            break
        t += step
    return t


def _truncation_curve(t: float) -> tuple[float, float]:
    """Return f(t) and f'(t) for t >= 0."""
    if t < _SERIES_BELOW:
        value = 0.5 - t / 12.0 + t**3 / 720.0 - t**5 / 30240.0
        return value, -1.0 / 12.0 + t**2 / 240.0 - t**4 / 6048.0
    decay = math.exp(-t)
    rest = -math.expm1(-t)
    return 1.0 / t - decay / rest, decay / rest**2 - 1.0 / t**2


def _ascending(evals: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(evals, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"eigenvalues to fit must be one-dimensional, got shape {x.shape}")
    if not (x[:-1] <= x[1:]).all():
        x = np.sort(x)
    if x.size and not (x[0] >= 0.0 and x[-1] < math.inf):
        bad = int(np.count_nonzero(~np.isfinite(x) | (x < 0.0)))
        raise ValueError(
            f"eigenvalues to fit must be finite and not negative, got {bad} of {x.size} that are not; "
            "set round-off below zero to 0, and do not fit a matrix with NaN or Inf"
        )
    return x


def _above(ascending: NDArray[np.float64], cut: float) -> NDArray[np.float64]:
    return ascending[np.searchsorted(ascending, cut, side="right") :]


def _fit_hs1(evals: NDArray[np.float64], rules: TailRules, error: float) -> TailFit:
    x = above_cut(evals, rules)
    if len(x) < max(rules.min_evals, 1):
        return TailFit(estimator=estimator_of(rules), status=FitStatus.TOO_FEW_EVALS)
    if x[0] == x[-1]:
        return TailFit(estimator=estimator_of(rules), status=FitStatus.CONSTANT)
    if rules.xmax == "max":
        return _truncated_winner(_Sample.of(x, distinct=True), rules.min_tail)
    return _winner(
        _Sample.of(x, distinct=True),
        error,
        estimator=ESTIMATOR,
        nothing=FitStatus.NO_CANDIDATE,
        min_tail=rules.min_tail,
    )


def _fit_weightwatcher(evals: NDArray[np.float64], error: float) -> TailFit:
    """Repeat WWFit of WeightWatcher 0.7.7, except that alpha = inf or 0 of equal eigenvalues is a failure."""
    failed = TailFit(estimator=WEIGHTWATCHER, status=FitStatus.FAILED)
    x = _above(evals, WEIGHTWATCHER_CUT)
    n = len(x)
    if n < 2:
        return failed
    small = n < _WW_SMALL_SAMPLE
    sample = _Sample.of(x, correction=1.0, least_excess=_WW_SMALL_MIN_EXCESS) if small else _Sample.of(x)
    min_tail = min(WEIGHTWATCHER_LEAST_TAIL, n) if small else 2
    fit = _winner(sample, error, estimator=WEIGHTWATCHER, nothing=FitStatus.FAILED, min_tail=min_tail)
    constant_pair_wins = not small and x[-2] == x[-1] and (fit.D_ks or 1.0) > _WW_CONSTANT_TAIL_D
    return failed if constant_pair_wins else fit


def _winner(
    sample: _Sample,
    error: float,
    *,
    estimator: str,
    nothing: FitStatus,
    min_tail: int,
) -> TailFit:
    """Search the tails for the least distance and describe the winner; `nothing` is the other status.

    `error` is the relative error of the largest eigenvalue; that of x_i is xmax / x_i times as large.
    """
    from scanner.spectra import search

    two_sided = estimator == ESTIMATOR
    logs, exponents = sample.logs, sample.exponents
    i, distance, _, floors = search.closest_tail(logs, exponents, min_tail=min_tail, two_sided=two_sided)
    if i < 0:
        return TailFit(estimator=estimator, status=nothing)
    slack = _DISTANCE_ERROR * error * exponents / sample.relative
    limits = distance + slack[i] + slack
    near_ties = search.count_within(logs, exponents, limits, floors, min_tail=min_tail, two_sided=two_sided)
    n_tail = len(sample.x) - i
    log_range = -float(sample.logs[i])
    b = float(exponents[i])
    return TailFit(
        estimator=estimator,
        status=FitStatus.OK,
        alpha=1.0 + b,
        alpha_stderr=b / math.sqrt(n_tail),
        xmin=float(sample.x[i]),
        xmax=float(sample.x[-1]),
        D_ks=distance,
        n_tail=n_tail,
        tail_decades=log_range / math.log(10.0),
        near_ties=near_ties,
        alpha_trunc=truncated_alpha(float(sample.excess[i]) / n_tail, log_range),
        alpha_hill=_hill(sample),
    )


def _truncated_winner(sample: _Sample, min_tail: int) -> TailFit:
    """Search the tails that end at the largest eigenvalue; see `truncated_alpha`."""
    from scanner.spectra.truncated import closest_truncated, truncated_exponents

    exponents = truncated_exponents(sample.x, sample.logs, sample.excess)
    i, distance, _ = closest_truncated(sample.logs, exponents, min_tail=min_tail)
    if i < 0:
        return TailFit(estimator=TRUNCATED_ESTIMATOR, status=FitStatus.NO_CANDIDATE)
    n_tail, log_range, b = len(sample.x) - i, -float(sample.logs[i]), float(exponents[i])
    _, slope = _truncation_curve(abs(b) * log_range)
    return TailFit(
        estimator=TRUNCATED_ESTIMATOR,
        status=FitStatus.OK,
        alpha=1.0 + b,
        alpha_stderr=1.0 / (log_range * math.sqrt(-slope * n_tail)),
        xmin=float(sample.x[i]),
        xmax=float(sample.x[-1]),
        D_ks=distance,
        n_tail=n_tail,
        tail_decades=log_range / math.log(10.0),
        alpha_trunc=1.0 + b,
        alpha_hill=_hill(sample),
    )


def _hill(sample: _Sample) -> float | None:
    """Hill's alpha of the upper half: no search, never comparable with alpha."""
    half = len(sample.x) // 2
    excess = float(sample.excess[half])
    return 1.0 + (len(sample.x) - half) / excess if excess > 0.0 else None
