"""Numbers -> findings. A flag comes only from blocks whose status is ok; it is evidence, not a verdict."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.diagnosis.pairs import pair_findings, pair_model_findings, scale_changes, shifted, unseen
from scanner.diagnosis.spread import deviations
from scanner.weights.lora import updated_module
from scanner.weights.roles import role
from schemas.config import TRUNCATED_ESTIMATOR, Thresholds
from schemas.records import changed
from schemas.results import BlockStatus, FailureKind, Flag, FlagKind, Phase, RowStatus
from schemas.rows import LayerMetrics

_SPREAD_FLOOR = 0.05
"""log10 units added to the spread, so that identical siblings do not make a hair a finding."""


@dataclass(frozen=True, slots=True)
class _Siblings:
    """How far a row's log_spectral_norm lies from same-role, same-shape rows, and how far they spread."""

    deviation: float
    count: int
    spread: float


def judge(rows: Sequence[LayerMetrics], limits: Thresholds) -> tuple[LayerMetrics, ...]:
    """Rows of one repository with siblings and pairs compared and findings attached; the order is kept."""
    siblings = _compare_siblings(rows, limits.scale_peers_min)
    changes, rescaled = scale_changes(rows), shifted(rows, limits)
    rows = [changed(row, scale_change_z=changes[i]) if i in changes else row for i, row in enumerate(rows)]
    return tuple(
        _judged(row, siblings.get(i), row.component not in rescaled, limits) for i, row in enumerate(rows)
    )


def layer_findings(row: LayerMetrics, limits: Thresholds) -> tuple[Flag, ...]:
    """What a layer's own columns say; its siblings are judge()'s part."""
    if row.status_reason == FailureKind.NONFINITE:
        count = float(row.num_nonfinite or 0)
        return (Flag(FlagKind.NONFINITE, count, 0.0, f"{count:.0f} entries are NaN or Inf"),)
    if row.status != RowStatus.OK:
        return ()
    if row.norm is None:
        return (Flag(FlagKind.ZERO_MATRIX, 0.0, 0.0, "every entry is exactly zero"),)
    return (*_tail_findings(row, limits), *_bulk_findings(row, limits), *_null_findings(row))


def model_findings(
    rows: Sequence[LayerMetrics], limits: Thresholds, *, whole: bool = True
) -> tuple[Flag, ...]:
    """What the rows of one model say together, by themselves and against the base.

    `whole` is False where a file of it could not be read, so that there are tensors without a row.
    """
    return (*_untrained(rows, limits), *pair_model_findings(rows, limits, whole=whole))


def _untrained(rows: Sequence[LayerMetrics], limits: Thresholds) -> tuple[Flag, ...]:
    """untrained_like when most bulks reach the edge of noise."""
    bulks = [row for row in rows if row.bulk_ok and row.mp_softrank is not None]
    if len(bulks) < limits.untrained_rows:
        return ()
    softrank = float(np.median([row.mp_softrank for row in bulks]))
    random = sum(row.phase == Phase.RANDOM_LIKE for row in bulks)
    if softrank < limits.untrained_softrank or random < limits.untrained_share * len(bulks):
        return ()
    missing = sum(map(unseen, rows))
    sentence = (
        f"{random} of {len(bulks)} layers have the spectrum of a random matrix and the median soft rank is "
        f"{softrank:.2f} (1 = pure noise): the model looks untrained"
        f"{f'; {missing} that failed or are beyond a limit are not counted' if missing else ''}"
    )
    return (Flag(FlagKind.UNTRAINED_LIKE, softrank, limits.untrained_softrank, sentence),)


def _judged(
    row: LayerMetrics, siblings: _Siblings | None, collapses: bool, limits: Thresholds
) -> LayerMetrics:
    """The row with all that changes in it; one copy, as a row has many fields."""
    findings, changes = [*layer_findings(row, limits)], dict[str, Any]()
    if siblings:
        changes |= {"scale_dev": siblings.deviation, "scale_peers": siblings.count}
        findings += _scale_findings(row, siblings, limits)
    findings += pair_findings(row, collapses, limits)
    if findings:
        kinds = dict.fromkeys(flag.kind.value for flag in findings)
        changes |= {"findings": tuple(findings), "flags": tuple(kinds)}
    return changed(row, **changes) if changes else row


def _tail_findings(row: LayerMetrics, limits: Thresholds) -> Iterator[Flag]:
    if not _judgeable(row):
        return
    weakness = next(_weaknesses(row, limits), None)
    if weakness is None:
        yield from _verdicts(row, limits, f"{row.alpha:.2f} +- {row.alpha_stderr:.2f}")
        return
    yield Flag(FlagKind.FIT_UNRELIABLE, *weakness)
    if row.alpha is not None and row.alpha > limits.under_trained_alpha:
        sentence = f"the tail spans {row.tail_decades:.2f} decades, so alpha {row.alpha:.1f} means little"
        yield Flag(FlagKind.NO_TAIL, row.tail_decades, limits.tail_decades_min, sentence)


def _judgeable(row: LayerMetrics) -> bool:
    """Whether there is an alpha that the thresholds are made for, which a tail cut at xmax is not."""
    fitted = row.fit_ok and None not in (row.alpha, row.alpha_stderr, row.tail_decades)
    return fitted and row.estimator != TRUNCATED_ESTIMATOR


def _verdicts(row: LayerMetrics, limits: Thresholds, shown: str) -> Iterator[Flag]:
    """What a reliable alpha says."""
    alpha, error = row.alpha or 0.0, row.alpha_stderr or 0.0
    if alpha > limits.under_trained_alpha:
        sentence = f"alpha {shown} is a light tail: the layer looks under-trained"
        yield Flag(FlagKind.UNDER_TRAINED, alpha, limits.under_trained_alpha, sentence)
    if alpha + 2 * error < limits.over_trained_alpha:
        sentence = (
            f"alpha {shown} is below {limits.over_trained_alpha:g} by more than two standard errors"
            f"{_condition(row)}: the layer looks over-trained"
        )
        yield Flag(FlagKind.OVER_TRAINED, alpha, limits.over_trained_alpha, sentence)
    if limits.over_trained_alpha <= alpha <= limits.well_trained_alpha and _shaped_by_training(row):
        sentence = (
            f"alpha {shown} lies from {limits.over_trained_alpha:g} to {limits.well_trained_alpha:g} "
            f"in phase {row.phase}: the layer looks well trained, which says nothing of accuracy"
        )
        yield Flag(FlagKind.WELL_TRAINED, alpha, limits.well_trained_alpha, sentence)


def _condition(row: LayerMetrics) -> str:
    return "" if row.erg_dlambda is None else f" (trace-log distance {row.erg_dlambda:.2g})"


def _shaped_by_training(row: LayerMetrics) -> bool:
    """A heavy tail that the entries' correlations made: no trap, as far as a null model was asked for."""
    untrapped = row.null_status == BlockStatus.OFF or (
        row.null_status == BlockStatus.OK and row.num_traps == 0
    )
    return row.bulk_ok and row.phase in (Phase.HEAVY_TAILED, Phase.BULK_DECAY) and untrapped


def _weaknesses(row: LayerMetrics, limits: Thresholds) -> Iterator[tuple[float, float, str]]:
    """Each reason for which alpha is weak evidence: value, threshold, sentence."""
    least = max(limits.n_tail_min, limits.n_tail_share * (row.num_evals or 0))
    if row.D_ks is not None and row.D_ks > limits.ks_max:
        yield row.D_ks, limits.ks_max, f"the tail is no straight power law: KS distance {row.D_ks:.3f}"
    if row.n_tail is not None and row.n_tail < least:
        yield float(row.n_tail), float(least), f"only {row.n_tail} eigenvalues lie in the tail"
    if row.tail_decades is not None and row.tail_decades < limits.tail_decades_min:
        yield row.tail_decades, limits.tail_decades_min, f"the tail spans only {row.tail_decades:.2f} decades"
    if row.alpha is not None and row.alpha_trunc is not None:
        excess = row.alpha - row.alpha_trunc
        if excess > limits.alpha_excess:
            yield (
                excess,
                limits.alpha_excess,
                f"alpha falls by {excess:.1f} once the tail may end at its largest value",
            )


def _bulk_findings(row: LayerMetrics, limits: Thresholds) -> Iterator[Flag]:
    if row.bulk_ok and row.phase == Phase.RANDOM_LIKE:
        sentence = (
            f"no eigenvalue leaves the Marchenko-Pastur bulk (KS distance {row.mp_D or 0:.3f}, soft rank "
            f"{row.mp_softrank or 0:.2f}): the layer looks random"
        )
        yield Flag(FlagKind.RANDOM_LIKE, row.mp_softrank, _softrank_at_edge(row), sentence)
    if row.rank0_frac is not None and row.rank0_frac >= limits.rank0_share and row.quant_method is None:
        sentence = f"{row.rank0_frac:.0%} of the eigenvalues have collapsed to zero"
        yield Flag(FlagKind.RANK_COLLAPSE, row.rank0_frac, limits.rank0_share, sentence)


def _softrank_at_edge(row: LayerMetrics) -> float | None:
    """Soft rank of a spectrum that ends at lambda_edge: a lower one has an eigenvalue beyond it, a spike."""
    if row.lambda_plus is None or row.lambda_edge is None:
        return None
    return min(1.0, row.lambda_plus / row.lambda_edge)


def _null_findings(row: LayerMetrics) -> Iterator[Flag]:
    if row.null_status == BlockStatus.OK and row.num_traps and row.w_mean is not None:
        why = {
            "mean": f"the entries have the mean {row.w_mean:.2g}",
            "elements": f"the entries are not alike (excess kurtosis {row.w_kurtosis or 0:.3g})",
        }.get(row.trap_cause or "", "the cause is open")
        many = "eigenvalues" if row.num_traps > 1 else "eigenvalue"
        sentence = f"{row.num_traps} {many} of the shuffled entries beyond the random bulk: {why}"
        yield Flag(FlagKind.CORRELATION_TRAP, float(row.num_traps), 1.0, sentence)
    if _judgeable(row) and (row.alpha or 2) < 2 and (row.erg_dlambda or 0) < 0:
        sentence = (
            f"alpha {row.alpha:.2f} is below 2 and the tail starts {-(row.erg_dlambda or 0):.2g} mean "
            f"eigenvalues below the trace-log boundary, {-(row.erg_gap or 0)} eigenvalues beyond it"
        )
        yield Flag(FlagKind.ERG_VIOLATED, row.erg_dlambda, 0.0, sentence)


def _scale_findings(row: LayerMetrics, siblings: _Siblings, limits: Thresholds) -> Iterator[Flag]:
    size = abs(siblings.deviation)
    relative = max(limits.scale_dev, limits.scale_dev_mads * (siblings.spread + _SPREAD_FLOOR))
    threshold = min(limits.scale_dev_sure, relative)
    if size >= threshold:
        side = "below" if siblings.deviation < 0 else "above"
        sentence = (
            f"the spectral norm is 10^{size:.1f} {side} the median of its {siblings.count} siblings "
            f"({_kind(row)}, {row.N} x {row.M})"
        )
        yield Flag(FlagKind.SCALE_OUTLIER, siblings.deviation, threshold, sentence)


def _compare_siblings(rows: Sequence[LayerMetrics], least: int) -> Mapping[int, _Siblings]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.log_spectral_norm is not None:
            key = (row.component, _kind(row), row.N, row.M, row.kernel_size, row.conv_mode)
            groups[key].append(i)
    found: dict[int, _Siblings] = {}
    for members in groups.values():
        if len(members) < least:
            continue
        away, spread = deviations([rows[i].log_spectral_norm for i in members])
        found |= {i: _Siblings(float(d), len(members), spread) for i, d in zip(members, away, strict=True)}
    return found


def _kind(row: LayerMetrics) -> str:
    """What a row is one of many of: a role, or LoRA updates of one role and rank."""
    if row.lora_rank is None:
        return row.role
    return f"{row.role} of {role(updated_module(row.tensor), 2)}, rank {row.lora_rank}"
