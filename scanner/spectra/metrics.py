"""Norms, ranks and entropies of a spectrum: everything that needs no fit."""

from math import exp, log, log10, sqrt

import numpy as np
from numba import njit

from schemas.records import record
from schemas.results import FloatArray, Spectrum

EPS = float(np.finfo(np.float64).eps)


@record()
class Norms:
    """Scale and rank metrics; the columns of `layers` of the same names."""

    norm: float
    lambda_max: float
    log_norm: float
    log_spectral_norm: float
    log_spectral_norm_n: float
    stable_rank: float
    rank0_frac: float
    entropy: float
    eff_rank: float
    hard_rank: int | None
    log_soft_rank: float | None


def norms(spectrum: Spectrum) -> Norms | None:
    """Norms and ranks of a spectrum, or None when every eigenvalue is zero.

    norm = sum lambda (Frobenius norm squared); lambda_max (spectral norm squared); stable_rank = norm /
    lambda_max; rank0_frac = share of lambda <= 1e-6 lambda_max; entropy = -sum p ln p / ln n and eff_rank =
    exp(-sum p ln p) with p = lambda/norm; hard_rank = #{sigma > sigma_max N eps}, only from an SVD;
    log_soft_rank = log_norm / log_spectral_norm, None near a zero denominator. Unit weight^2, logs base 10;
    `_n` divides by N first. Cost O(n). Sources: arXiv 2002.06716 (norms, stable rank); Roy & Vetterli 2007
    (effective rank).
    """
    lam = spectrum.evals
    total, top = float(lam.sum()), float(lam[-1]) if lam.size else 0.0
    if top <= 0:
        return None
    nats, low = _nats(lam, total)
    log_norm, log_top = log10(total), log10(top)
    return Norms(
        norm=total,
        lambda_max=top,
        log_norm=log_norm,
        log_spectral_norm=log_top,
        log_spectral_norm_n=log_top - log10(spectrum.N),
        stable_rank=total / top,
        rank0_frac=low / lam.size,
        entropy=nats / log(lam.size) if lam.size > 1 else 0.0,
        eff_rank=exp(nats),
        hard_rank=_hard_rank(spectrum) if spectrum.method == "svd_f64" else None,
        log_soft_rank=log_norm / log_top if abs(log_top) >= 0.05 else None,
    )


def alpha_weighted(alpha: float, lambda_max: float) -> float:
    """Alpha * log10 lambda_max, the per-layer term of alpha-hat (arXiv 2002.06716)."""
    return alpha * log10(lambda_max)


def log_alpha_norm(evals: FloatArray, alpha: float) -> float:
    """log10 of sum lambda^alpha (the alpha-Shatten norm of arXiv 2002.06716), by log-sum-exp; cost O(n)."""
    return _log_power_sum(evals, alpha) / log(10.0)


@njit(nogil=True, cache=True)
def _log_power_sum(x: FloatArray, alpha: float) -> float:
    top, total = alpha * log(x.max()), 0.0
    for value in x:
        if value > 0.0:
            total += exp(alpha * log(value) - top)
    return top + log(total)


@njit(nogil=True, cache=True)
def _nats(x: FloatArray, total: float) -> tuple[float, int]:
    """Entropy of x / total, and how many of x are at most 1e-6 of the largest, the last."""
    nats, low, limit = 0.0, 0, 1e-6 * x[-1]
    for value in x:
        low += value <= limit
        p = value / total
        if p > 0.0:
            nats -= p * log(p)
    return nats, low


def _hard_rank(spectrum: Spectrum) -> int:
    slices = spectrum.evals[None] if spectrum.slices is None else spectrum.slices
    return int(_resolved(slices, spectrum.N * EPS))


@njit(nogil=True, cache=True)
def _resolved(slices: FloatArray, relative: float) -> int:
    """How many roots of the eigenvalues (slices, M) exceed `relative` times the largest of their slice."""
    rank = 0
    for k in range(slices.shape[0]):
        limit = sqrt(slices[k].max()) * relative
        for value in slices[k]:
            rank += sqrt(value) > limit
    return rank
