"""A matrix against itself with its entries permuted: what of the spectrum is correlation."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from scanner.spectra.bulk import TW1_999, johnstone_edge, standardised, too_small
from scanner.spectra.eigen import DenseWeights, Weights
from scanner.spectra.moments import Moments
from schemas.config import BulkRules
from schemas.results import BlockStatus, FloatArray, Spectrum

FLOOR = 1e-6
"""Eigenvalues below this share of the joint maximum count as this share in `rand_distance`."""

# Rounding leaves the null eigenvalues of a rank-one matrix at about eps * lambda_max.
_ROUNDING = 1e-12
_BINS_LEAST, _BINS_MOST, _EVALS_PER_BIN = 8, 50, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NullFit:
    """A spectrum against that of its permuted entries; all numbers None unless `status` is ok.

    rand_lambda_max: largest eigenvalue of the permuted matrix, weight^2; rand_softrank: over lambda_max.
    rand_distance, rand_distance_ww: Jensen-Shannon distances in [0, sqrt(ln 2)], of histograms of
    ln lambda and of the sorted eigenvalues. num_traps: permuted eigenvalues beyond what entries of this
    variance allow; trap_cause: mean (of the entries) or elements (single huge ones); None without a trap.
    """

    status: BlockStatus
    rand_lambda_max: float | None = None
    rand_softrank: float | None = None
    rand_distance: float | None = None
    rand_distance_ww: float | None = None
    num_traps: int | None = None
    trap_cause: str | None = None


def null_seed(config_seed: int, repo: str, revision: str, tensor: str, part: str | None) -> int:
    """Seed of one row's permutation, a uint64 that depends on nothing but the arguments.

    The first 8 bytes of BLAKE2b over the arguments, so that any worker draws the same permutation.
    """
    name = "\0".join((str(config_seed), repo, revision, tensor, "" if part is None else f"\0{part}"))
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def randomised(weights: Weights, seed: int) -> DenseWeights:
    """Permute all entries of a matrix, or the entries within each slice of a convolution.

    Shapes: (r, c), or (o, i, k...) whose prod(k) slices are permuted one by one, so that each keeps its
    scale. Unit and values as in `weights`; `seed` is a uint64 and fixes the result. Cost: O(r c) time, about
    0.03 s per million entries, and 16 bytes an entry (24 for a convolution) at the peak.
    Source: arXiv 1810.01075, section 4.3.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    entries = weights.block(slice(None), slice(None))
    if len(weights.shape) == 2:
        return DenseWeights(rng.permutation(entries.reshape(-1)).reshape(weights.shape))
    slices = entries.reshape(*weights.shape[:2], -1).transpose(2, 0, 1)
    mixed = np.stack([rng.permutation(one.reshape(-1)).reshape(one.shape) for one in slices], axis=-1)
    return DenseWeights(mixed.reshape(weights.shape))


def compare_to_null(
    spectrum: Spectrum, random_spectrum: Spectrum, moments: Moments, rules: BulkRules | None = None
) -> NullFit:
    """Compare a spectrum with that of `randomised` weights of the same shape.

    Args:
        spectrum: of the weights.
        random_spectrum: of the permuted weights, (n,) eigenvalues as in `spectrum`.
        moments: of the entries, which no permutation changes.
        rules: least number of eigenvalues, least slice side of a pooled convolution.

    Returns:
        A NullFit. Status: ok; too_small (below `rules`); failed (a zero matrix, or entries without moments).

    JSD(p, q) = sqrt((KL(p|m) + KL(q|m)) / 2), m = (p + q) / 2, natural log. rand_distance: p, q are
    histograms of ln lambda on clamp(n div 8, 8, 50) equal bins over the joint range. rand_distance_ww: p, q
    are the ascending eigenvalues themselves, m taken before normalising. num_traps = #{lambda_rand >
    s_w^2 (mu + 3.2724 sd)}, Johnstone's 99.9 % edge with the entries' population variance s_w^2;
    trap_cause is mean when mean^2 N M, the eigenvalue of a constant matrix, is beyond that edge.
    rand_distance and num_traps of a pooled convolution divide each slice by its mean square weight; the
    other columns never do. Distances below 0.12 (rand_distance) or 0.02 (_ww) are those of a random matrix.
    Cost: one sort. Sources: Johnstone 2001; SETOL (correlation traps); WeightWatcher 0.7.7 (_ww, softrank).
    """
    if too_small(spectrum, rules or BulkRules()):
        return NullFit(status=BlockStatus.TOO_SMALL)
    top = float(spectrum.evals[-1])
    if moments.mean is None or moments.std is None or top <= 0.0:
        return NullFit(status=BlockStatus.FAILED)
    variance, mean_square = moments.std**2, moments.mean**2
    if spectrum.slices is not None:
        total = variance + mean_square
        variance, mean_square = variance / total, mean_square / total
    lam, rand = standardised(spectrum), standardised(random_spectrum)
    edge = variance * johnstone_edge(spectrum.N, spectrum.M, TW1_999)
    traps = int(np.count_nonzero(rand > max(edge, _ROUNDING * float(rand[-1]))))
    rand_top = float(random_spectrum.evals[-1])
    cause = "mean" if mean_square * spectrum.N * spectrum.M > edge else "elements"
    return NullFit(
        status=BlockStatus.OK,
        rand_lambda_max=rand_top,
        rand_softrank=rand_top / top,
        rand_distance=rand_distance(lam, rand),
        rand_distance_ww=rand_distance_ww(spectrum.evals, random_spectrum.evals),
        num_traps=traps,
        trap_cause=cause if traps else None,
    )


def rand_distance(evals: FloatArray, rand: FloatArray) -> float:
    """Jensen-Shannon distance of the histograms of ln lambda, in [0, sqrt(ln 2)]; 0 for equal spectra.

    Both (n,) float64, any order and unit, not all zero. Bins as in `compare_to_null`.
    """
    floor = FLOOR * max(float(evals.max()), float(rand.max()))
    logs = [np.log(np.maximum(values, floor)) for values in (evals, rand)]
    bins = min(max(evals.size // _EVALS_PER_BIN, _BINS_LEAST), _BINS_MOST)
    span = (min(float(part.min()) for part in logs), max(float(part.max()) for part in logs))
    first, second = (np.histogram(part, bins=bins, range=span)[0].astype(np.float64) for part in logs)
    return _jensen_shannon(first, second)


def rand_distance_ww(evals: FloatArray, rand: FloatArray) -> float:
    """Jensen-Shannon distance of the sorted eigenvalues as probability vectors, in [0, sqrt(ln 2)].

    Both (n,) float64, any order, not all zero. Source: WeightWatcher 0.7.7.
    """
    return _jensen_shannon(np.sort(evals), np.sort(rand))


def _jensen_shannon(p: FloatArray, q: FloatArray) -> float:
    middle = (p + q) / 2.0
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2.0
    return float(np.sqrt(max(divergence, 0.0)))


def _relative_entropy(p: FloatArray, q: FloatArray) -> float:
    """KL(p | q) in nats, both normalised here; q > 0 wherever p > 0."""
    live = p > 0.0
    share = p[live] / p.sum()
    return float(share @ np.log(share / (q[live] / q.sum())))
