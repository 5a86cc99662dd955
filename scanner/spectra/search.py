"""The exact search for xmin, as the rest of the house calls it; kernels.py has the laws and the loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scanner.spectra.kernels import find_closest, fit_closest, sum_tails

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BestFit(NamedTuple):
    """The power law that is closest to its own tail, and how sure that is.

    start, distance: as in `Closest`. near_ties: tails that an error of the sample could make the winner, it
    included. exponent, excess: b and T of the winner. upper_excess: T of the upper half of the sample.
    """

    start: int
    distance: float
    near_ties: int
    exponent: float
    excess: float
    upper_excess: float


def best_fit(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    *,
    error: float,
    min_tail: int,
    two_sided: bool,
    correction: float = 0.0,
    least_excess: float = 0.0,
    distinct: bool = False,
) -> BestFit:
    """`tail_models`, `closest_tail` and the near ties in one call, which small samples are the better for.

    Args:
        x: as in `tail_models`.
        logs: as in `tail_models`.
        error: relative error of the largest of x; that of x_i is x_max / x_i times as large.
        min_tail: as in `closest_tail`.
        two_sided: as in `closest_tail`.
        correction: as in `tail_models`.
        least_excess: as in `tail_models`.
        distinct: as in `tail_models`.

    A distance D_i errs by at most 2.74 b_i delta for relative errors delta of the eigenvalues. Counting near
    ties costs a comparison for each candidate whose floor exceeds its limit, a scan of its tail for others.
    """
    rule = correction, least_excess, distinct
    return BestFit(*fit_closest(x, logs, error, min_tail, two_sided, rule))


class Closest(NamedTuple):
    """The tail whose power law is closest to it.

    start, distance: the smallest index among those with the least D, and D; -1 and 2.0 without a
    candidate. evaluations: model survivals computed, approximate ones included. floors: (n,) a deviation
    of each candidate times n_i, or inf where D was computed or there is no candidate; near ties are counted
    by them.
    """

    start: int
    distance: float
    evaluations: int
    floors: NDArray[np.float64]


def closest_tail(
    logs: NDArray[np.float64], exponents: NDArray[np.float64], *, min_tail: int, two_sided: bool
) -> Closest:
    """Find the tail start whose power law is closest to its own tail in Kolmogorov-Smirnov distance.

    Args:
        logs: (n,) float64, non-decreasing natural logs of the sample.
        exponents: (n,) float64, alpha_i - 1; not positive, not finite or NaN where i is no candidate.
        min_tail: least number of points of a tail, so that i <= n - min_tail.
        two_sided: the true KS distance; otherwise the lower step of the sample only.

    Returns:
        A Closest whose start and distance are bit-identical to brute force over the same deviations.

    Cost: O(n^2) survivals at worst, 2 n to 13 n measured from n = 1024, nearly all without exp; O(n)
    memory. Source of the objective: Clauset, Shalizi and Newman 2009, equation 3.9.
    """
    return Closest(*find_closest(logs, exponents, len(logs) - min_tail, two_sided))


def tail_models(
    x: NDArray[np.float64],
    logs: NDArray[np.float64],
    *,
    correction: float = 0.0,
    least_excess: float = 0.0,
    distinct: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum every tail of an ascending sample and take the maximum-likelihood exponent of each.

    Args:
        x: (n,) float64, ascending, positive.
        logs: (n,) float64, natural logs of x, any constant apart; made non-decreasing in place.
        correction: what is taken from n_i in the exponent.
        least_excess: a tail at or below it has no exponent.
        distinct: only the first of equal values has an exponent.

    Returns:
        (T, b): T_i = sum over j >= i of ln(x_j / x_i), and b_i = (n_i - correction) / T_i or 0. Cost:
        one pass. Source: Clauset, Shalizi and Newman 2009, equation 3.1.
    """
    return sum_tails(x, logs, correction, least_excess, distinct)
