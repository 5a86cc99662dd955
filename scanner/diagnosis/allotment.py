"""The arithmetic of allocation plans: numbers shared out in proportion to alpha, so that totals hold."""

from collections.abc import Callable, Mapping, Sequence
from math import floor, log2, sqrt
from statistics import fmean

Range = tuple[float, float]


def linear(alphas: Sequence[float], scale: Range) -> list[float]:
    """Map the range of alpha onto `scale`."""
    low, high = min(alphas), max(alphas)
    s1, s2 = scale
    return [s1 + (a - low) / (high - low) * (s2 - s1) for a in alphas]


CURVES: Mapping[str | None, Callable[[float], float]] = {"sqrt": sqrt, "log2": log2}


def proportional(alphas: Sequence[float], curve: Callable[[float], float]) -> list[float]:
    """Factors of mean 1 in proportion to curve(alpha)."""
    weights = [curve(a) for a in alphas]
    mean = fmean(weights)
    return [weight / mean for weight in weights]


def sparsities(weights: Sequence[float], params: Sequence[int], share: float, *, clip: bool) -> list[float]:
    """AlphaPruning's scaling to a share of all parameters; with `clip`, what is full stays full."""
    values = [1.0] * len(weights)
    free, wanted = list(range(len(weights))), share * sum(params)
    while free:
        factor = wanted / sum(params[i] * weights[i] for i in free)
        partial = [i for i in free if not clip or factor * weights[i] < 1]
        if len(partial) == len(free):
            for i in free:
                values[i] = factor * weights[i]
            break
        wanted -= sum(params[i] for i in free) - sum(params[i] for i in partial)
        free = partial
    return values


def experts(alphas: Sequence[float | None], total: int, beta: float) -> list[int]:
    """AlphaLoRA's shares; a block without an alpha takes the mean share."""
    largest = max((alpha for alpha in alphas if alpha is not None), default=1.0)
    powers = [None if alpha is None else (alpha / largest) ** beta for alpha in alphas]
    mean = fmean([power for power in powers if power is not None] or [1.0])
    return largest_remainder([mean if power is None else power for power in powers], total)


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `total` (Hamilton's method).

    Every share is rounded down, and what is left goes to the largest remainders, of equal ones to the
    larger weight and then to the earlier.
    """
    whole = sum(weights)
    shares = [total * weight / whole for weight in weights]
    counts = [floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], -weights[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
