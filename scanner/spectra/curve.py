"""The whole search seen: distance and alpha for every candidate xmin. For pictures; fits use search.py."""

from dataclasses import dataclass

import numpy as np

from scanner.spectra.tailfit import above_cut
from schemas.config import TailRules
from schemas.results import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceCurve:
    """One entry a candidate, ascending: xmin (weight^2), alpha (> 1) and the two-sided KS distance D_ks."""

    xmin: FloatArray
    alpha: FloatArray
    D_ks: FloatArray


def distance_curve(evals: FloatArray, rules: TailRules | None = None, most: int = 1000) -> DistanceCurve:
    """Fit a power law above every candidate xmin, or above `most` of them spread evenly.

    Args:
        evals: (n,) float64, not negative, any order, unit weight^2.
        rules: cut and least tail, as of `fit_tail`.
        most: candidates at most.

    Returns:
        A DistanceCurve; empty where no candidate has alpha > 1. Its least D_ks over all candidates is the
        one `fit_tail` finds. Cost: `most` * n exponentials. Source: Clauset, Shalizi and Newman 2009,
        section 3.3.
    """
    rules = rules or TailRules()
    x = above_cut(evals, rules)
    first = np.flatnonzero(np.diff(x, prepend=-1.0)) if x.size else np.empty(0, np.int64)
    candidates = first[x.size - first >= rules.min_tail]
    spread = np.unique(np.linspace(0, candidates.size - 1, min(most, candidates.size)).round().astype(int))
    points = [_point(x, int(i)) for i in (candidates[spread] if candidates.size else [])]
    columns = np.array([point for point in points if point is not None]).reshape(-1, 3).T
    return DistanceCurve(xmin=columns[0], alpha=columns[1], D_ks=columns[2])


def _point(x: FloatArray, i: int) -> tuple[float, float, float] | None:
    u = np.log(x[i:] / x[i])
    total, n = float(u.sum()), u.size
    if total <= 0.0:
        return None
    slope = n / total
    below = -np.expm1(-slope * u)
    steps = np.arange(n + 1) / n
    distance = max(np.abs(below - steps[:-1]).max(), np.abs(below - steps[1:]).max())
    return float(x[i]), 1.0 + slope, float(distance)
