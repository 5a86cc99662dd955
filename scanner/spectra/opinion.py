"""An independent second opinion on a tail: the powerlaw package, its range of alpha opened."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from scanner.spectra.tailfit import above_cut
from schemas.config import TailRules
from schemas.results import FloatArray, TailFit

SEARCH_LIMIT = 4096
"""Eigenvalues up to which the package searches xmin itself; it takes 1 s at 1,024 (measured 2026-11)."""

_RIVALS = {
    "EXP": "exponential",
    "SEXP": "stretched_exponential",
    "LOGN": "lognormal",
    "TPL": "truncated_power_law",
}
_RANGES = {"alpha": [1, None]}
_CURVE_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLawFit:
    """The package's power law above `xmin`: density exponent alpha, its one-sided KS distance, tail size."""

    alpha: float
    xmin: float
    D_ks: float
    n_tail: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinion:
    """What the powerlaw package makes of a tail.

    `version` of the package; `searched`: its own xmin, None above SEARCH_LIMIT eigenvalues; `at_xmin`: its
    fit above our xmin; `llr` and `p`: its log-likelihood ratio of the power law against EXP, SEXP, LOGN and
    TPL above our xmin (nats, > 0 favours the power law), None where the package finds no fit; `ccdf`: its
    survival functions at `x`, for pictures.
    """

    version: str
    searched: PowerLawFit | None
    at_xmin: PowerLawFit
    llr: dict[str, float | None]
    p: dict[str, float | None]
    x: FloatArray = field(repr=False)
    ccdf: dict[str, FloatArray] = field(repr=False)


def second_opinion(
    evals: FloatArray, tail: TailFit, rules: TailRules | None = None, limit: int = SEARCH_LIMIT
) -> SecondOpinion | None:
    """Fit the tail that `tail` describes with the powerlaw package; None where there is no tail.

    Input: (n,) float64 eigenvalues, unit weight^2, of which those above the cut are given to the package.
    Cost: seconds for a thousand eigenvalues. Source: Alstott, Bullmore and Plenz 2014 (the package), with
    `parameter_ranges` opened, since its default bounds alpha to at most 3.
    """
    if tail.xmin is None or tail.xmax is None:
        return None
    import powerlaw

    x = above_cut(evals, rules or TailRules())
    with _quiet():
        ours = powerlaw.Fit(x, xmin=tail.xmin, verbose=False, parameter_ranges=_RANGES)
        theirs = powerlaw.Fit(x, verbose=False, parameter_ranges=_RANGES) if x.size <= limit else None
        at_xmin, searched = _described(ours, x), None if theirs is None else _described(theirs, x)
        pairs = {code: _comparison(ours, name) for code, name in _RIVALS.items()}
        grid = np.geomspace(tail.xmin, tail.xmax, _CURVE_POINTS)
        curves = {code: _survival(ours, name, grid) for code, name in {"PL": "power_law", **_RIVALS}.items()}
    return SecondOpinion(
        version=version("powerlaw"),
        searched=searched,
        at_xmin=at_xmin,
        llr={code: pair[0] for code, pair in pairs.items()},
        p={code: pair[1] for code, pair in pairs.items()},
        x=grid,
        ccdf={code: curve for code, curve in curves.items() if curve is not None},
    )


def _described(fit: Any, x: FloatArray) -> PowerLawFit:
    law = fit.power_law
    xmin = float(law.xmin)
    n_tail = int(np.count_nonzero(x >= xmin))
    return PowerLawFit(alpha=float(law.alpha), xmin=xmin, D_ks=float(law.D), n_tail=n_tail)


def _comparison(fit: Any, rival: str) -> tuple[float | None, float | None]:
    try:
        ratio, p = fit.distribution_compare("power_law", rival, nested=rival == "truncated_power_law")
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None, None
    return _finite(ratio), _finite(p)


def _survival(fit: Any, name: str, x: FloatArray) -> FloatArray | None:
    try:
        curve = np.asarray(getattr(fit, name).ccdf(x), dtype=np.float64)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None
    return curve if curve.shape == x.shape and np.isfinite(curve).all() else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The package warns of every fit at an edge, and says so to the log as well."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(silenced)
