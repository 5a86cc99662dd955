"""A fine-tune's rows against its base -> findings: unstable layers, collapsed scales, no change at all.

Only rows whose base_status is ok carry findings of their own. A row of the base's very file is a pair too,
one that did not change. What was not seen, because it failed or is beyond a limit, counts against every
verdict on the model as a whole: it may be the very layer that contradicts it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf

import numpy as np

from scanner.diagnosis.spread import deviations
from schemas.config import Thresholds
from schemas.results import BaseStatus, BlockStatus, Flag, FlagKind, RowStatus, SkipReason
from schemas.rows import LayerMetrics

_SPREAD_FLOOR = 0.02
"""log10 units added to the spread, so that equal changes do not make a hair a finding."""

_BEYOND = frozenset({SkipReason.TOO_LARGE, SkipReason.UNSUPPORTED_DTYPE})
_PAIRED = frozenset({BaseStatus.OK, BaseStatus.SAME_FILE})


def unseen(row: LayerMetrics) -> bool:
    """Whether the row is a matrix of which nothing is known: it failed, or is beyond a limit."""
    return row.status == RowStatus.FAILED or row.status_reason in _BEYOND


def scale_changes(rows: Sequence[LayerMetrics]) -> Mapping[int, float]:
    """By row number, how far the change of scale lies from the model's other pairs, in robust deviations.

    z = (s - median s) / (1.4826 MAD + 0.02) with s = d_log_spectral_norm, over the pairs of one component.
    """
    groups: dict[str | None, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if _change(row) is not None:
            groups[row.component].append(i)
    found: dict[int, float] = {}
    for members in groups.values():
        away, spread = deviations([_change(rows[i]) for i in members])
        scores = {i: float(d / (spread + _SPREAD_FLOOR)) for i, d in zip(members, away, strict=True)}
        found |= {i: z for i, z in scores.items() if rows[i].base_status == BaseStatus.OK}
    return found


def shifted(rows: Sequence[LayerMetrics], limits: Thresholds) -> frozenset[str | None]:
    """Components of which more pairs than a few changed their scale: there no single layer collapsed."""
    components = {row.component for row in rows}
    shares = {name: _moved_share([r for r in rows if r.component == name], limits) for name in components}
    return frozenset(name for name, share in shares.items() if share > limits.scale_change_share)


def pair_findings(row: LayerMetrics, collapses: bool, limits: Thresholds) -> Iterator[Flag]:
    """What a row's own pair says; `collapses` unless the scales of the whole component shifted."""
    if row.base_status != BaseStatus.OK:
        return
    change, z = row.d_log_spectral_norm, row.scale_change_z
    if collapses and change is not None and z is not None:
        if abs(change) >= limits.scale_change and abs(z) >= limits.scale_change_z:
            side = "fell" if change < 0 else "rose"
            sentence = (
                f"lambda_max {side} by a factor of 10^{abs(change):.1f} against the base, "
                f"{abs(z):.0f} deviations from what the other layers did"
            )
            yield Flag(FlagKind.SCALE_COLLAPSE, change, limits.scale_change, sentence)
    for value, threshold, sentence in _instabilities(row, limits):
        yield Flag(FlagKind.FT_UNSTABLE, value, threshold, sentence)


def pair_model_findings(
    rows: Sequence[LayerMetrics], limits: Thresholds, *, whole: bool = True
) -> Iterator[Flag]:
    """What the pairs of one model say together: scale_shift, and ft_noop where the `whole` was read."""
    yield from _shift(rows, limits)
    if whole:
        yield from _no_change(rows, limits)


def _shift(rows: Sequence[LayerMetrics], limits: Thresholds) -> Iterator[Flag]:
    changes = [change for row in rows if (change := _change(row)) is not None]
    count = len(changes) + sum(map(_uncompared, rows))
    moved = sum(abs(change) >= limits.scale_change for change in changes)
    if moved <= limits.scale_change_share * count:
        return
    middle = float(np.median(changes))
    sentence = (
        f"{moved / count:.0%} of {count} layers changed lambda_max by a factor of 10^"
        f"{limits.scale_change:g} or more (median 10^{middle:+.1f}): the model was rescaled"
    )
    yield Flag(FlagKind.SCALE_SHIFT, middle, limits.scale_change, sentence)


def _instabilities(row: LayerMetrics, limits: Thresholds) -> Iterator[tuple[float, float, str]]:
    """Each sign of an unstable fine-tune: value, threshold, sentence."""
    moved, overlap = row.rel_delta, row.subspace_overlap10
    if moved is not None and overlap is not None:
        if moved >= limits.ft_rel_delta and overlap < limits.ft_overlap:
            yield (
                moved,
                limits.ft_rel_delta,
                f"the change is {moved:.2f} of the base's norm and only {overlap:.2f} of its leading "
                "directions are left",
            )
    grown = row.d_log_spectral_norm
    if grown is not None and grown >= limits.ft_scale:
        yield grown, limits.ft_scale, f"lambda_max grew by a factor of {10**grown:.1f} against the base"
    if row.null_status == BlockStatus.OK and (row.d_num_traps or 0) > 0:
        traps = row.d_num_traps or 0
        yield float(traps), 1.0, f"{traps} correlation traps that the base does not have"
    fallen, alpha = row.d_alpha, row.alpha
    if fallen is not None and alpha is not None and row.fit_ok:
        if fallen <= limits.ft_d_alpha and alpha < limits.ft_alpha:
            yield fallen, limits.ft_d_alpha, f"alpha fell by {-fallen:.2f} to {alpha:.2f}"


def _no_change(rows: Sequence[LayerMetrics], limits: Thresholds) -> Iterator[Flag]:
    """Not said of a quantised model: what changed is in the codes, which have no counterpart."""
    pairs = [row for row in rows if row.base_status in _PAIRED]
    if not pairs or any(_uncompared(row) or row.quant_method for row in rows):
        return
    most = max(map(_moved, pairs))
    if most >= limits.ft_noop:
        return
    same = sum(row.base_status == BaseStatus.SAME_FILE for row in pairs)
    small = sum(row.status_reason == SkipReason.TOO_SMALL for row in rows)
    sentence = (
        f"all {len(pairs)} matrices with a counterpart are unchanged (relative change at most "
        f"{most:.1g}, {same} in the base's own files{f', {small} too small to compare' if small else ''}): "
        "a re-upload, or training without effect"
    )
    yield Flag(FlagKind.FT_NOOP, most, limits.ft_noop, sentence)


def _uncompared(row: LayerMetrics) -> bool:
    """Whether the row may have a counterpart that nobody held it against."""
    return unseen(row) or row.base_status == BaseStatus.FAILED


def _moved(row: LayerMetrics) -> float:
    """Relative change of a pair; of a base that is zero, any change is without bounds."""
    if row.rel_delta is not None:
        return row.rel_delta
    from_zero = row.base_status == BaseStatus.OK and row.norm is not None
    return inf if from_zero else 0.0


def _change(row: LayerMetrics) -> float | None:
    """log10 change of scale of a pair; None for a row that is none."""
    return 0.0 if row.base_status == BaseStatus.SAME_FILE else row.d_log_spectral_norm


def _moved_share(rows: Sequence[LayerMetrics], limits: Thresholds) -> float:
    changes = [change for row in rows if (change := _change(row)) is not None]
    return sum(abs(change) >= limits.scale_change for change in changes) / len(changes) if changes else 0.0
