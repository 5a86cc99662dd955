"""Exponential families of two parameters on u >= 0, exp(-p u - q s(u)) / Z, and their maximum likelihood.

ln Z is convex in (p, q), so the fit is one damped Newton descent; Z and the moments are Gauss-Legendre sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.results import FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable

# Densities are integrated to e^-60 of their peak, by 96 Gauss-Legendre nodes squeezed towards its start.
_DROP = 60.0
_ROOTS, _ROOT_WEIGHTS = (np.asarray(part) for part in np.polynomial.legendre.leggauss(96))
_NODES = ((_ROOTS + 1.0) / 2.0) ** 2
_WEIGHTS = _ROOT_WEIGHTS * (_ROOTS + 1.0) / 2.0

_NEWTON_STEPS = 200
_HALVINGS = 60
_DECREMENT = 1e-15
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)
_SERIES_BELOW = 0.02
_GROWTH_SERIES = np.array([1.0 / math.factorial(k) for k in range(2, 9)])


@dataclass(frozen=True, slots=True)
class Family:
    """Densities exp(-p u - q s(u)) / Z on [0, length], u >= 0, q >= 0; s convex with s(0) = s'(0) = 0.

    `statistic` is s; `peak` is where the exponent is greatest when p < 0; `reach` gives distances to the
    left and right of the peak (of 0 when p >= 0) over which the exponent surely drops by _DROP; `power_law`
    is the mean of s under the power law b e^-bu.
    """

    statistic: Callable[[FloatArray], FloatArray]
    peak: Callable[[float, float], float]
    reach: Callable[[float, float], tuple[float, float]]
    power_law: Callable[[float], float]


class State(NamedTuple):
    """ln Z, the means of (u, s) and their covariances at one (p, q)."""

    log_z: float
    mean_u: float
    mean_s: float
    var_u: float
    var_s: float
    cov: float


def _over(drop: float, rate: float) -> float:
    return drop / rate if rate > 0.0 else math.inf


def _quadratic_reach(_: float, q: float) -> tuple[float, float]:
    distance = math.sqrt(_over(_DROP, q))
    return distance, distance


def _exponential_reach(p: float, q: float) -> tuple[float, float]:
    """Upper bounds of the roots of e^w - 1 - w = y on both sides; the curvature at the peak is q - p."""
    y = _over(_DROP, q - min(p, 0.0))
    left = y + math.sqrt(2.0 * y)
    return left, math.log1p(left)


def excess_growth(u: FloatArray) -> FloatArray:
    """e^u - 1 - u, by its series where the difference would cancel."""
    series = u * u * np.polynomial.polynomial.polyval(u, _GROWTH_SERIES)
    return np.where(u < _SERIES_BELOW, series, np.expm1(u) - u)


LOGNORMAL = Family(
    statistic=lambda u: u * u,
    peak=lambda p, q: _over(-p, 2.0 * q),
    reach=_quadratic_reach,
    power_law=lambda b: 2.0 / b**2,
)
TRUNCATED = Family(
    statistic=excess_growth,
    peak=lambda p, q: math.log1p(_over(-p, q)),
    reach=_exponential_reach,
    power_law=lambda b: 1.0 / (b * (b - 1.0)) if b > 1.0 else math.inf,
)


def _window(family: Family, p: float, q: float, length: float) -> tuple[float, float]:
    """The part of [0, length] that holds all but e^-_DROP of the density."""
    left, right = family.reach(p, q)
    if p >= 0.0:
        return 0.0, min(_over(_DROP, p), right, length)
    peak = min(family.peak(p, q), length)
    return max(0.0, peak - left), min(peak + right, length)


def state_at(family: Family, p: float, q: float, length: float) -> State:
    """Find ln Z and the moments of (u, s) at (p, q) on [0, length]; 96 exponentials."""
    low, high = _window(family, p, q, length)
    u = low + (high - low) * _NODES
    s = family.statistic(u)
    exponent = -p * u - q * s
    top = float(exponent.max())
    mass = _WEIGHTS * np.exp(exponent - top)
    total = float(mass.sum())
    mass /= total
    mean_u, mean_s = float(mass @ u), float(mass @ s)
    du, ds = u - mean_u, s - mean_s
    weighted = mass * ds
    return State(
        log_z=top + math.log(total * (high - low)),
        mean_u=mean_u,
        mean_s=mean_s,
        var_u=float(mass @ (du * du)),
        var_s=float(weighted @ ds),
        cov=float(weighted @ du),
    )


def minimise(
    family: Family, mean_u: float, mean_s: float, *, p: float, length: float = math.inf
) -> tuple[float, float, float] | None:
    """Damped Newton for the least ln Z + p mean_u + q mean_s, inside q > 0; None if it does not converge.

    Returns (p, q, least value). The function is convex; a step goes at most 0.9 of the way to q = 0.
    """
    q = 1e-3 / mean_s
    state = state_at(family, p, q, length)
    loss = state.log_z + p * mean_u + q * mean_s
    for _ in range(_NEWTON_STEPS):
        dp, dq, slope = _newton_step(state, mean_u, mean_s)
        if -slope <= _DECREMENT:
            return p, q, loss
        share = min(1.0, 0.9 * _over(q, -dq))
        for _ in range(_HALVINGS):
            state = state_at(family, p + share * dp, q + share * dq, length)
            trial = state.log_z + (p + share * dp) * mean_u + (q + share * dq) * mean_s
            if trial <= loss + 1e-4 * share * slope + _ROUNDING * (1.0 + abs(loss)):
                break
            share /= 2.0
        p, q, loss = p + share * dp, q + share * dq, trial
    return None


def _newton_step(state: State, mean_u: float, mean_s: float) -> tuple[float, float, float]:
    """Newton's step (dp, dq) and the slope along it, which is minus the squared decrement."""
    gp, gq = mean_u - state.mean_u, mean_s - state.mean_s
    determinant = state.var_u * state.var_s - state.cov**2
    dp = (state.cov * gq - state.var_s * gp) / determinant
    dq = (state.cov * gp - state.var_u * gq) / determinant
    return dp, dq, gp * dp + gq * dq
