"""Power-law fits of the upper tail of a spectrum, with xmin chosen by the Kolmogorov-Smirnov distance.

Every sum over a tail is the excess T_i = sum over j >= i of ln(x_j / x_i), taken from
T_i = T_{i+1} + (n - i - 1) ln(x_{i+1} / x_i): all terms are non-negative, so nothing cancels, and the
logs are of x / xmax, so a change of scale by a power of two changes no bit.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.config import ESTIMATOR, PROFILES, TRUNCATED_ESTIMATOR, TailRules, estimator_of
from schemas.results import FitStatus, Spectrum, TailFit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from scanner.spectra.search import BestFit

WEIGHTWATCHER = "weightwatcher-0.7.7"
"""Estimator name of the compatibility profile."""
WEIGHTWATCHER_CUT = 1e-5
"""WeightWatcher fits eigenvalues above this, whatever the scale of the weights."""
WEIGHTWATCHER_LEAST_TAIL = 8
"""Least tail of a sample below 20; a sample below 8 is its own tail."""

_EPS = float(np.finfo(np.float64).eps)
_ERROR = 10.0 * _EPS
EIGENVALUE_ERROR = {"gram_f32": 32.0 * float(np.finfo(np.float32).eps)}
"""Error of any eigenvalue over lambda_max where it is not 10 eps: a float64 Gram matrix errs by 1 to 10 eps
(measured on 42 matrices against a float64 SVD), a float32 one by up to 23 (39 matrices against float64)."""

_WW_SMALL_SAMPLE = 20
_WW_SMALL_MIN_EXCESS = 1e-12
_WW_CONSTANT_TAIL_D = 0.5


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
    if isinstance(spectrum_or_evals, Spectrum):
        evals, error = spectrum_or_evals.evals, EIGENVALUE_ERROR.get(spectrum_or_evals.method, _ERROR)
    else:
        evals, error = _ascending(spectrum_or_evals), _ERROR
    if profile == "default":
        return _fit_hs1(evals, rules or TailRules(), error)
    if profile == "weightwatcher":
        return fit_as_weightwatcher(evals, error)
    raise ValueError(f"unknown tail-fit profile {profile!r}; choose one of {', '.join(PROFILES)}")


def above_cut(evals: ArrayLike, rules: TailRules) -> NDArray[np.float64]:
    """Eigenvalues that "hs1" fits, ascending: above max(relative_cut, n eps) * lambda_max.

    Input: (n,), not negative, any order, unit weight^2. Raises ValueError as `fit_tail` does. Cost: one
    pass, and a sort of what is not ascending.
    """
    return _resolved(_ascending(evals), rules)


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
    return 1.0 + _root()(mean_log / log_range) / log_range


# Imported when called for, because numba is slow to import and reading results needs no search; asked for
# once, because an import costs a twentieth of a small fit.
@cache
def _best_fit() -> Callable[..., BestFit]:
    from scanner.spectra.search import best_fit

    return best_fit


@cache
def _root() -> Callable[[float], float]:
    from scanner.spectra.truncated import root

    return root


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


def _resolved(ascending: NDArray[np.float64], rules: TailRules) -> NDArray[np.float64]:
    top = float(ascending[-1]) if ascending.size else 0.0
    return _above(ascending, max(rules.relative_cut, ascending.size * _EPS) * top)


def _above(ascending: NDArray[np.float64], cut: float) -> NDArray[np.float64]:
    if ascending.size and ascending[0] > cut:
        return ascending
    return ascending[ascending.searchsorted(cut, side="right") :]


def _fit_hs1(evals: NDArray[np.float64], rules: TailRules, error: float) -> TailFit:
    x = _resolved(evals, rules)
    if len(x) < max(rules.min_evals, 1):
        return TailFit(estimator=estimator_of(rules), status=FitStatus.TOO_FEW_EVALS)
    if x[0] == x[-1]:
        return TailFit(estimator=estimator_of(rules), status=FitStatus.CONSTANT)
    if rules.xmax == "max":
        return _truncated_winner(x, rules.min_tail)
    fit = _winner(x, ESTIMATOR, error, min_tail=rules.min_tail, distinct=True)
    return fit or TailFit(estimator=ESTIMATOR, status=FitStatus.NO_CANDIDATE)


def fit_as_weightwatcher(evals: NDArray[np.float64], error: float = _ERROR) -> TailFit:
    """Repeat WWFit of WeightWatcher 0.7.7, except that alpha = inf or 0 of equal eigenvalues is a failure.

    `evals` are known to be finite, not negative and ascending; see `fit_tail`.
    """
    x = _above(evals, WEIGHTWATCHER_CUT)
    return _weightwatcher_winner(x, error) or TailFit(estimator=WEIGHTWATCHER, status=FitStatus.FAILED)


def _weightwatcher_winner(x: NDArray[np.float64], error: float) -> TailFit | None:
    n = len(x)
    if n < 2:
        return None
    small = n < _WW_SMALL_SAMPLE
    rule = {"correction": 1.0, "least_excess": _WW_SMALL_MIN_EXCESS} if small else {}
    min_tail = min(WEIGHTWATCHER_LEAST_TAIL, n) if small else 2
    fit = _winner(x, WEIGHTWATCHER, error, min_tail=min_tail, **rule)
    constant_pair_wins = not small and x[-2] == x[-1] and fit and (fit.D_ks or 1.0) > _WW_CONSTANT_TAIL_D
    return None if constant_pair_wins else fit


def _winner(
    x: NDArray[np.float64], estimator: str, error: float, *, min_tail: int, **rule: Any
) -> TailFit | None:
    """Search the tails for the least distance and describe the winner; None where there is none.

    `error` is the relative error of the largest eigenvalue; that of x_i is xmax / x_i times as large.
    """
    logs, two_sided = np.log(x / x[-1]), estimator == ESTIMATOR
    fit = _best_fit()(x, logs, error=error, min_tail=min_tail, two_sided=two_sided, **rule)
    i, b = fit.start, fit.exponent
    if i < 0:
        return None
    n_tail, log_range = len(x) - i, -float(logs[i])
    return TailFit(
        estimator=estimator,
        status=FitStatus.OK,
        alpha=1.0 + b,
        alpha_stderr=b / math.sqrt(n_tail),
        xmin=float(x[i]),
        xmax=float(x[-1]),
        D_ks=fit.distance,
        n_tail=n_tail,
        tail_decades=log_range / math.log(10.0),
        near_ties=fit.near_ties,
        alpha_trunc=truncated_alpha(fit.excess / n_tail, log_range),
        alpha_hill=_hill(len(x), fit.upper_excess),
    )


def _truncated_winner(x: NDArray[np.float64], min_tail: int) -> TailFit:
    """Search the tails that end at the largest eigenvalue; see `truncated_alpha`."""
    from scanner.spectra.search import tail_models
    from scanner.spectra.truncated import closest_truncated, curve, truncated_exponents

    logs = np.log(x / x[-1])
    excess, _ = tail_models(x, logs, distinct=True)
    exponents = truncated_exponents(x, logs, excess)
    i, distance, _ = closest_truncated(logs, exponents, min_tail=min_tail)
    if i < 0:
        return TailFit(estimator=TRUNCATED_ESTIMATOR, status=FitStatus.NO_CANDIDATE)
    n_tail, log_range, b = len(x) - i, -float(logs[i]), float(exponents[i])
    _, slope = curve(abs(b) * log_range)
    return TailFit(
        estimator=TRUNCATED_ESTIMATOR,
        status=FitStatus.OK,
        alpha=1.0 + b,
        alpha_stderr=1.0 / (log_range * math.sqrt(-slope * n_tail)),
        xmin=float(x[i]),
        xmax=float(x[-1]),
        D_ks=distance,
        n_tail=n_tail,
        tail_decades=log_range / math.log(10.0),
        alpha_trunc=1.0 + b,
        alpha_hill=_hill(len(x), float(excess[len(x) // 2])),
    )


def _hill(n: int, excess: float) -> float | None:
    """Hill's alpha of the upper half, whose `excess` it is: no search, never comparable with alpha."""
    return 1.0 + (n - n // 2) / excess if excess > 0.0 else None
