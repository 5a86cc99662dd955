"""Which precision a device gets, and the certificate without which no float32 spectrum is believed.

A float32 Gram matrix errs by some eps32 * lambda_max in every eigenvalue, so its small eigenvalues are
noise. Alpha is decided by the large ones alone; the certificate proves after the fact that it was.
"""

import math

import numpy as np

from scanner.spectra.moments import Moments
from scanner.spectra.tailfit import EIGENVALUE_ERROR, above_cut, fit_tail
from schemas.config import ScanConfig, TailRules
from schemas.results import FloatArray, Spectrum

STRONG_FLOAT64 = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})
"""Compute capabilities with float64 at half the float32 rate: P100, V100, A100, H100 and H200, B200. Every
other one, B300 (10.3) too, has 1/32 or 1/64; an unknown one is taken for those, which costs time only."""

_STRONG_NAMES = ("Instinct MI",)

MAX_RATIO = 10.0
"""Largest lambda_max / xmin of a float32 fit: up to here alpha stayed within 1.1e-5 on 34 matrices."""

_TRACE_ERROR = 1e-6
"""Largest relative gap between the sum of eigenvalues and the sum of squared entries; measured 1.2e-7."""

_RANGE = 1e30
"""lambda_max outside 1/_RANGE.._RANGE leaves float32's comfortable range."""

_UNRESOLVED = 64.0 * float(np.finfo(np.float32).eps)
"""Eigenvalues below this times lambda_max are noise in float32."""

_CHORDS = np.array([(a, m, b) for a in (0.0, 0.1, 0.3) for m in (0.4, 0.6, 0.8, 0.9) for b in (0.95, 0.99)])
"""Places, as shares of the sample, of triples of points whose logs lie on no straight line in a bulk."""

_HALVINGS = 40


def has_strong_float64(name: str, capability: tuple[int, int]) -> bool:
    """Whether a card computes in float64 at no less than half of its float32 rate."""
    return capability in STRONG_FLOAT64 or any(mark in name for mark in _STRONG_NAMES)


def tries_single(config: ScanConfig, strong: bool) -> bool:
    """Whether float32 is tried first: when asked for, or by `auto` on a card weak in float64.

    Never for profile weightwatcher, whose ranks and least singular values are float64's.
    """
    precision = config.spectrum.precision
    wanted = precision == "float32" or (precision == "auto" and not strong)
    return wanted and config.profile != "weightwatcher"


def refusal(spectrum: Spectrum, moments: Moments, config: ScanConfig) -> str | None:
    """Say why a gram_f32 spectrum can't stand for the float64 one, or None: it is certified.

    Certified means: the eigenvalues add up to the squared entries, lambda_max / xmin < 10, xmin is the
    winner whatever the rounding (section "near ties" of the tail fit, with each candidate's own error),
    no candidate among the unresolved eigenvalues can beat it, and they are too few for a rank collapse.
    Alpha is then within 2e-5 of float64's; over the 31 of MiniLM's 39 matrices that are certified the worst
    was 6e-6, and 1e-4 for any other column but near_ties, which counts the unresolved eigenvalues too. Cost:
    one tail fit. `spectrum.evals` (n,), weight^2.
    """
    top = float(spectrum.evals[-1])
    if not 1 / _RANGE < top < _RANGE:
        return "lambda_max leaves the range of float32"
    if not adds_up(spectrum, moments, _TRACE_ERROR):
        return "the eigenvalues do not add up"
    resolved = spectrum.evals[spectrum.evals > _UNRESOLVED * top]
    if 1 - resolved.size / spectrum.evals.size >= config.thresholds.rank0_share:
        return "too many eigenvalues are below the resolution of float32"
    return _tail_refusal(spectrum, resolved, config.tail)


def adds_up(spectrum: Spectrum, moments: Moments, tolerance: float) -> bool:
    """Whether the eigenvalues sum to the sum of squared entries, a free test of any eigensolver.

    Squares that leave the range of the solver do not add up either.
    """
    if moments.std is None or moments.mean is None or (moments.abs_max and not spectrum.evals[-1]):
        return False
    squares = moments.count * (moments.std**2 + moments.mean**2)
    return math.isclose(float(spectrum.evals.sum()), squares, rel_tol=tolerance)


def _tail_refusal(spectrum: Spectrum, resolved: FloatArray, rules: TailRules) -> str | None:
    certain = Spectrum(evals=resolved, N=spectrum.N, M=spectrum.M, method=spectrum.method)
    fit = fit_tail(certain, rules=rules)
    if fit.xmin is None or fit.xmax is None or fit.D_ks is None:
        return "there is no tail to certify"
    if fit.xmax >= MAX_RATIO * fit.xmin:
        return f"lambda_max / xmin is {fit.xmax / fit.xmin:.3g}, float32 serves below {MAX_RATIO:g}"
    if fit.near_ties != 1:
        return "float32 leaves xmin uncertain"
    kept = above_cut(spectrum.evals, rules).size
    if kept > resolved.size and least_distance(resolved, kept) <= _widened(fit.D_ks, fit.xmax / fit.xmin):
        return "an unresolved eigenvalue might be xmin"
    return None


def _widened(distance: float, ratio: float) -> float:
    """The winner's distance and more than its own uncertainty."""
    return distance + 10 * EIGENVALUE_ERROR["gram_f32"] * ratio


def least_distance(resolved: FloatArray, count: int) -> float:
    """A lower bound on the distance of any power law that starts below all `resolved` eigenvalues.

    Its survival is a straight line in logs, whatever its exponent and start; the sample's is not. At three
    points a < m < b the line stays under the chord of a and b, so a distance D needs
    ln(E_m - D) <= chord of ln(E_a + D), ln(E_b + D). Returns the largest D that one of the triples rules
    out, less what up to `count` - n unresolved members of the tail move E. `resolved` ascending (n,) > 0.
    """
    n = resolved.size
    place = np.minimum((_CHORDS * n).astype(np.intp), n - 1)
    survival, share = (n - place) / n, _share(resolved[place], EIGENVALUE_ERROR["gram_f32"] * resolved[-1])
    low, high = np.zeros(len(place)), survival[:, 1].copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        chord = (1 - share) * np.log(survival[:, 0] + middle) + share * np.log(survival[:, 2] + middle)
        impossible = chord < np.log(np.maximum(survival[:, 1] - middle, np.finfo(float).tiny))
        low, high = np.where(impossible, middle, low), np.where(impossible, high, middle)
    return float(low.max()) - (count - n) / count


def _share(x: FloatArray, error: float) -> FloatArray:
    """Where the middle of x (k, 3) lies between its ends, as a share of their logs; the least it can be."""
    logs, relative = np.log(x), error / x
    first, last = logs[:, 0] + relative[:, 0], logs[:, 2] + relative[:, 2]
    middle = logs[:, 1] - relative[:, 1] / (1 - relative[:, 1])
    span = np.maximum(last - first, np.finfo(float).tiny)
    return np.asarray(np.clip((middle - first) / span, 0.0, 1.0))
