"""The bootstrap p of a power-law tail: how often a sample of the fitted model fits worse than the data.

A replicate is drawn in ascending order and in logs, so that it needs no sort, no power and no logarithm:
k ~ Binomial(n, n_tail/n) points of the tail as order statistics of exponential variables (Renyi: the
spacing below the t-th of k is Exp(1)/(k - t)), and the other n - k as counts of the eigenvalues below
xmin, expanded in order. Then the whole search for xmin runs on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from scanner.spectra.kernels import find_closest, sum_tails
from scanner.spectra.tailfit import above_cut

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from schemas.config import TailRules
    from schemas.results import TailFit

REPLICATES = 200
"""Enough to know p to +-.035 and no more; 2,500 give +-.01."""

_compiled = numba.njit(nogil=True, cache=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapFit:
    """A power law against samples of itself; all numbers None without a fit to test.

    p_boot: share of replicates whose D is at least D_ks; small rules the power law out, large proves
    nothing, and eigenvalues repel each other, so it is approximate. boot_reps: replicates fitted.
    boot_alpha_stderr: standard deviation of their alpha, the choice of xmin included; None below two.
    """

    p_boot: float | None = None
    boot_reps: int | None = None
    boot_alpha_stderr: float | None = None


@_compiled
def _add_body(sample: NDArray[np.float64], body: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Fill `sample` with draws from `body` with replacement, in its order."""
    counts = np.zeros(len(body), dtype=np.int64)
    for _ in range(len(sample)):
        counts[int(rng.random() * len(body))] += 1
    end = 0
    for i in range(len(body)):
        sample[end : end + counts[i]] = body[i]
        end += counts[i]


@_compiled
def _add_tail(sample: NDArray[np.float64], origin: float, b: float, rng: np.random.Generator) -> None:
    """Fill `sample` with ascending logs of a power law with exponent b from exp(origin)."""
    k = len(sample)
    spaced = 0.0
    for t in range(k):
        spaced += rng.standard_exponential() / (k - t)
        sample[t] = origin + spaced / b


@_compiled
def _draw(logs: NDArray[np.float64], start: int, b: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one replicate: (n,) ascending logs."""
    n = len(logs)
    k = n if start == 0 else rng.binomial(n, (n - start) / n)
    sample = np.empty(n)
    _add_body(sample[: n - k], logs[:start], rng)
    _add_tail(sample[n - k :], logs[start], b, rng)
    return sample


@_compiled
def _replicates(
    logs: NDArray[np.float64], start: int, b: float, min_tail: int, reps: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (alpha, D) of each replicate, both NaN where it has no candidate."""
    alphas, distances = np.full(reps, math.nan), np.full(reps, math.nan)
    for replicate in range(reps):
        sample = _draw(logs, start, b, rng)
        _, exponents = sum_tails(sample, sample, 0.0, 0.0, True)
        winner, distance, _, _ = find_closest(sample, exponents, len(sample) - min_tail, True)
        if winner >= 0:
            alphas[replicate], distances[replicate] = 1.0 + exponents[winner], distance
    return alphas, distances


def bootstrap_p(
    evals: ArrayLike, fit: TailFit, rules: TailRules, *, reps: int = REPLICATES, seed: int
) -> BootstrapFit:
    """Test a power-law tail by the semi-parametric bootstrap of Clauset, Shalizi and Newman.

    Args:
        evals: (n,) eigenvalues in any order, not negative, unit weight^2.
        fit: what "hs1" fitted to them.
        rules: the rules it was fitted with. The relative cut was applied to the data; it is not applied
            to replicates, whose largest value may be far above that of the data.
        reps: replicates, at least 1.
        seed: an integer >= 0; equal seeds give equal results (PCG64).

    Returns:
        A BootstrapFit, all None when `fit` is not ok.

    Raises:
        ValueError: `reps` is below 1, or eigenvalues as for `fit_tail`.

    Cost: `reps` searches of `closest_tail`, no eigenvalues. Source: Clauset, Shalizi and Newman 2009,
    section 4.1.
    """
    if reps < 1:
        raise ValueError(f"a bootstrap needs at least one replicate, got reps={reps}")
    if fit.alpha is None or fit.xmin is None or fit.D_ks is None:
        return BootstrapFit()
    x = above_cut(evals, rules)
    logs = np.maximum.accumulate(np.log(x / x[-1]))
    start = int(np.searchsorted(x, fit.xmin))
    rng = np.random.Generator(np.random.PCG64(seed))
    alphas, distances = _replicates(logs, start, fit.alpha - 1.0, rules.min_tail, reps, rng)
    fitted = np.isfinite(distances)
    done = int(np.count_nonzero(fitted))
    if done == 0:
        return BootstrapFit()
    return BootstrapFit(
        p_boot=float(np.mean(distances[fitted] >= fit.D_ks)),
        boot_reps=done,
        boot_alpha_stderr=_spread(alphas[fitted]),
    )


def _spread(values: NDArray[np.float64]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
