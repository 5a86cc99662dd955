"""The random-matrix part of a spectrum: Marchenko-Pastur bulk, Tracy-Widom edge, spikes."""

from functools import lru_cache
from math import acos, cbrt, inf, isnan, log, nan, pi, sqrt

import numpy as np
from numba import njit

from schemas.config import BulkRules
from schemas.records import record
from schemas.results import BlockStatus, FloatArray, Spectrum

TW1_99, TW1_999 = 2.0234, 3.2724
"""Quantiles of the Tracy-Widom law of order 1 (Johnstone 2001)."""

_CELLS = 8192
_MAX_ROUNDS = 8


@record()
class BulkFit:
    """Marchenko-Pastur fit of a spectrum; all numbers None unless `status` is ok.

    sigma2_mp: variance of the bulk's entries, weight^2 (pooled convolutions: in units of each slice's mean
    square weight, as are the edges). lambda_plus: asymptotic edge; lambda_edge: finite-size Tracy-Widom
    quantile. mp_edge_ratio: lambda_max/lambda_plus. mp_D: KS distance of the bulk. mp_softrank:
    min(1, lambda_plus/lambda_max). spike_mass: share of the norm above lambda_edge.
    """

    status: BlockStatus
    sigma2_mp: float | None = None
    lambda_plus: float | None = None
    lambda_edge: float | None = None
    mp_edge_ratio: float | None = None
    mp_D: float | None = None
    mp_softrank: float | None = None
    spike_mass: float | None = None
    mp_ok: bool | None = None
    num_spikes: int | None = None


def fit_bulk(spectrum: Spectrum, rules: BulkRules | None = None) -> BulkFit:
    """Fit a Marchenko-Pastur law to the eigenvalues below the Tracy-Widom edge.

    sigma^2 = median(bulk) / (N m_Q), the bulk re-chosen as {lambda <= lambda_edge} until sigma^2 moves by
    less than 1e-6 (at most 8 times). lambda_plus = s^2 (sqrt N + sqrt M)^2, lambda_edge = s^2 (mu + q sd)
    in Johnstone's form, q at 99 % (99.9 % for pooled convolutions, whose slices are first divided by their
    mean square weight). mp_ok: KS distance within ln M / M (half that for convolutions).
    Status: ok, too_small (below `rules`), no_bulk (fewer than a quarter of the eigenvalues below the edge).
    Cost O(n log n). Sources: Marchenko & Pastur 1967; Johnstone 2001; arXiv 1810.01075 section 5.
    """
    rules = rules or BulkRules()
    conv = spectrum.slices is not None
    if too_small(spectrum, rules):
        return BulkFit(status=BlockStatus.TOO_SMALL)
    lam = standardised(spectrum)
    if not lam.size or not lam[-1]:
        return BulkFit(status=BlockStatus.NO_BULK)
    n, m, q = spectrum.N, spectrum.M, spectrum.Q
    edge_unit = johnstone_edge(n, m, TW1_999 if conv else TW1_99)
    sigma2, spikes, share, distance = _fit(lam, n, edge_unit, *_law(q))
    if isnan(distance):
        return BulkFit(status=BlockStatus.NO_BULK)
    top, plus = float(lam[-1]), sigma2 * (sqrt(n) + sqrt(m)) ** 2
    allowed = log(m) / (2 * m) if conv else max(log(m) / m, 0.004)
    return BulkFit(
        status=BlockStatus.OK,
        sigma2_mp=sigma2,
        lambda_plus=plus,
        lambda_edge=sigma2 * edge_unit,
        mp_edge_ratio=top / plus,
        mp_D=distance,
        mp_softrank=min(1.0, plus / top),
        spike_mass=share,
        mp_ok=distance <= allowed,
        num_spikes=spikes,
    )


def johnstone_edge(n: int, m: int, quantile: float) -> float:
    """Quantile of the largest eigenvalue of X^T X, X n x m standard Gaussian (Johnstone 2001)."""
    a, b = sqrt(n - 1), sqrt(m)
    return (a + b) ** 2 + quantile * (a + b) * cbrt((1 / a if a else inf) + 1 / b)


def mp_cdf(x: FloatArray, q: float) -> FloatArray:
    """Marchenko-Pastur distribution function at x = lambda/(sigma^2 N) for aspect ratio q = N/M >= 1."""
    low, high = _support(q)
    theta = np.arccos(np.clip((low + high - 2 * x) / (high - low), -1.0, 1.0))
    return np.interp(theta, *_cdf_grid(q))


def mp_median(q: float) -> float:
    """Median of the Marchenko-Pastur law for aspect ratio q, in units of sigma^2 N."""
    theta, cdf = _cdf_grid(q)
    low, high = _support(q)
    return float((low + high) / 2 - (high - low) / 2 * np.cos(np.interp(0.5, cdf, theta)))


@lru_cache(maxsize=256)
def _law(q: float) -> tuple[float, tuple[float, float], FloatArray]:
    """Median, support and distribution function, at equal steps of theta, in units of sigma^2 N."""
    return mp_median(q), _support(q), _cdf_grid(q)[1]


def _support(q: float) -> tuple[float, float]:
    root = sqrt(1 / q)
    return (1 - root) ** 2, (1 + root) ** 2


@lru_cache(maxsize=256)
def _cdf_grid(q: float) -> tuple[FloatArray, FloatArray]:
    low, high = _support(q)
    edges = np.linspace(0.0, np.pi, _CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    x = (low + high) / 2 - (high - low) / 2 * np.cos(middle)
    cdf = np.concatenate([[0.0], np.cumsum(np.sin(middle) ** 2 / x)])
    return edges, cdf / cdf[-1]


def too_small(spectrum: Spectrum, rules: BulkRules) -> bool:
    """Whether the eigenvalues, or the sides of pooled slices, are too few for the laws of random matrices."""
    pooled = spectrum.slices is not None
    return spectrum.evals.size < rules.min_evals or (pooled and rules.min_conv_side > spectrum.M)


def standardised(spectrum: Spectrum) -> FloatArray:
    """Eigenvalues that one random-matrix law fits: those of a matrix as they are.

    Those of each slice of a pooled convolution over its mean square weight, sorted; zero slices left out.
    """
    if spectrum.slices is None:
        return spectrum.evals
    lam = _over_mean_squares(spectrum.slices, spectrum.N)
    lam.sort()
    return lam


@njit(nogil=True, cache=True)
def _over_mean_squares(slices: FloatArray, N: int) -> FloatArray:
    found, size = np.empty(slices.size), 0
    for one in slices:
        mean_square = one.mean() / N
        if mean_square > 0:
            found[size : size + len(one)] = one / mean_square
            size += len(one)
    return found[:size]


@njit(nogil=True, cache=True)
def _fit(
    lam: FloatArray, n: int, edge_unit: float, median: float, support: tuple[float, float], grid: FloatArray
) -> tuple[float, int, float, float]:
    """Variance of the bulk, number and share of what lies beyond its edge, distance: NaN without a bulk."""
    sigma2, inside, spikes, share = _converge(lam, n * median, edge_unit)
    if sigma2 <= 0 or inside < len(lam) / 4:
        return sigma2, spikes, share, nan
    return sigma2, spikes, share, _ks(lam[:inside], sigma2 * n, support[0], support[1], grid)


@njit(nogil=True, cache=True)
def _converge(lam: FloatArray, scale: float, edge_unit: float) -> tuple[float, int, int, float]:
    """Variance and size of the bulk at the fixed point, number and share of what lies beyond its edge.

    A step that would leave fewer than a quarter inside is not taken, so that word embeddings, a long tail
    without a plateau, keep a bulk.
    """
    sigma2 = _middle(lam) / scale
    inside = int(np.searchsorted(lam, sigma2 * edge_unit, side="right"))
    for _ in range(_MAX_ROUNDS):
        before, step = sigma2, _middle(lam[:inside]) / scale
        size = int(np.searchsorted(lam, step * edge_unit, side="right"))
        if size < len(lam) / 4:
            break
        sigma2, inside = step, size
        if abs(sigma2 - before) < 1e-6 * before:
            break
    return sigma2, inside, len(lam) - inside, lam[inside:].sum() / lam.sum()


@njit(nogil=True, cache=True)
def _middle(ascending: FloatArray) -> float:
    """The median."""
    half = len(ascending) // 2
    return float(ascending[half] if len(ascending) % 2 else (ascending[half - 1] + ascending[half]) / 2)


@njit(nogil=True, cache=True)
def _ks(bulk: FloatArray, scale: float, low: float, high: float, grid: FloatArray) -> float:
    """Distance of a bulk from the Marchenko-Pastur law, `grid` being `mp_cdf` at equal steps of theta."""
    n, cells, furthest = len(bulk), len(grid) - 1, 0.0
    for k in range(n):
        cosine = (low + high - 2 * (bulk[k] / scale)) / (high - low)
        place = acos(min(max(cosine, -1.0), 1.0)) / pi * cells
        cell = min(int(place), cells - 1)
        cdf = grid[cell] + (grid[cell + 1] - grid[cell]) * (place - cell)
        furthest = max(furthest, (k + 1) / n - cdf, cdf - k / n)
    return furthest
