"""The 5+1 phases of training as a decision list over the bulk and the tail."""

from scanner.spectra.bulk import BulkFit
from scanner.spectra.metrics import Norms
from schemas.results import BlockStatus, FitStatus, Phase, TailFit


def classify(norms: Norms, bulk: BulkFit, tail: TailFit, num_evals: int, rank0_share: float) -> Phase:
    """Name the phase of training of one spectrum (arXiv 1810.01075, section 4).

    First match wins: part of the spectrum collapsed to zero; no bulk to speak of; then, inside a
    Marchenko-Pastur bulk, no spike, an edge that bleeds (lambda_max below 1.5 lambda_plus), or at most 10 %
    spikes; else a tail (alpha <= 4, n_tail >= max(20, 5 %), lambda_max >= 5 lambda_plus) or its beginnings.
    Thresholds are a choice, tuned on synthetic families; UNDECIDED is an answer.
    """
    if norms.rank0_frac >= rank0_share:
        return Phase.RANK_COLLAPSE
    ratio, spikes = bulk.mp_edge_ratio, bulk.num_spikes
    if bulk.status != BlockStatus.OK or ratio is None or spikes is None:
        return Phase.UNDECIDED
    if bulk.mp_ok:
        if spikes == 0:
            return Phase.RANDOM_LIKE
        if ratio < 1.5:
            return Phase.BLEEDING_OUT
        if spikes <= 0.1 * num_evals:
            return Phase.BULK_SPIKES
    return _tail_phase(tail, ratio, num_evals)


def _tail_phase(tail: TailFit, ratio: float, num_evals: int) -> Phase:
    if tail.status != FitStatus.OK or tail.alpha is None or tail.n_tail is None:
        return Phase.UNDECIDED
    heavy = tail.alpha <= 4 and tail.n_tail >= max(20, 0.05 * num_evals) and ratio >= 5
    return Phase.HEAVY_TAILED if heavy else Phase.BULK_DECAY
