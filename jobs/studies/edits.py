"""A trained net edited and fine-tuned in ways whose harm is known: what the comparison with its base says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.studies.figures import BLUE, GREEN, RED
from jobs.studies.matrices import WITH_NULL
from jobs.studies.nets import MIDDLE, State, Training, accuracy, edited, sized, trained, untrained
from jobs.studies.study import Check, Figure, Outcome, Study, Table, listed, near, number, same
from scanner.api import compare
from schemas.results import FlagKind, FloatArray, Phase
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_SHARE = 0.2
_ROUNDING = 0.0005
_FINE_TUNE = Training(batch=16, samples=200)


@dataclass(frozen=True, slots=True)
class _Edit:
    """A change of the base, and what is expected of its middle layer: numbers, phase, and flags.

    Harmful edits may earn flags beyond those expected; those that expect none must earn none.
    """

    make: Callable[[State], State]
    numbers: Mapping[str, float]
    flags: frozenset[str]
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    row: LayerMetrics
    accuracy: float


def edits(quick: bool) -> Outcome:
    """Make every edit of one net and hold it against the net."""
    del quick
    base = trained(untrained(), sized(32))
    found = {name: _held(base, edit.make(base)) for name, edit in _EDITS.items()}
    checks = [near("base: alpha", _held(base, base).row.alpha, 2.91, 0.02)]
    checks += [check for name, one in found.items() for check in _judged(name, one.row)]
    harmed = [name for name, one in found.items() if FlagKind.FT_UNSTABLE in one.row.flags]
    clean = [name for name, one in found.items() if not one.row.flags]
    return Outcome(
        got=f"ft_unstable: {listed(harmed)}; no flag: {listed(clean)}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="edits",
                caption="How far each edit moved the middle layer, and what became of the test accuracy "
                f"({accuracy(base):.3f} before).",
                draw=partial(_draw, found),
            ),
        ),
        tables=(_table(found),),
    )


def _scaled(base: State) -> State:
    return edited(base, 0.1 * _middle(base))


def _pruned(base: State) -> State:
    """The smallest nine tenths of the entries set to zero."""
    matrix = _middle(base)
    return edited(base, np.where(np.abs(matrix) >= np.quantile(np.abs(matrix), 0.9), matrix, 0.0))


def _int4(base: State) -> State:
    """Every row rounded to fifteen levels."""
    matrix = _middle(base)
    step = np.abs(matrix).max(axis=1, keepdims=True) / 7
    return edited(base, np.round(matrix / step) * step)


def _truncated(base: State) -> State:
    """The 32 leading singular directions."""
    left, sigma, right = np.linalg.svd(_middle(base), full_matrices=False)
    return edited(base, np.asarray(left[:, :32] * sigma[:32] @ right[:32]))


def _tuned(**changes: Any) -> Callable[[State], State]:
    return lambda base: trained(base, replace(_FINE_TUNE, **changes))


_EDITS: Mapping[str, _Edit] = {
    "times 0.1": _Edit(
        _scaled,
        {"d_log_spectral_norm": -2.0, "d_alpha": 0.0},
        frozenset({FlagKind.SCALE_COLLAPSE}),
    ),
    "fine-tune lr .003": _Edit(_tuned(lr=0.003, epochs=3), {"rel_delta": 0.005}, frozenset()),
    "fine-tune lr .2": _Edit(
        _tuned(lr=0.2, epochs=5),
        {"rel_delta": 1.25, "d_log_spectral_norm": 0.93, "alpha": 1.97},
        frozenset({FlagKind.FT_UNSTABLE, FlagKind.CORRELATION_TRAP}),
    ),
    "fine-tune permuted labels": _Edit(
        _tuned(lr=0.02, epochs=40, shuffled=True),
        {"rel_delta": 0.60, "subspace_overlap10": 0.46},
        frozenset({FlagKind.FT_UNSTABLE}),
    ),
    "fine-tune decay .05": _Edit(
        _tuned(lr=0.02, epochs=40, decay=0.05),
        {"rank0_frac": 0.36},
        frozenset({FlagKind.RANK_COLLAPSE}),
        Phase.RANK_COLLAPSE,
    ),
    "prune 90 %": _Edit(_pruned, {"d_alpha": -0.55}, frozenset({FlagKind.CORRELATION_TRAP})),
    "int4": _Edit(_int4, {"d_alpha": -0.13}, frozenset()),
    "rank 32": _Edit(_truncated, {}, frozenset({FlagKind.RANK_COLLAPSE}), Phase.RANK_COLLAPSE),
}


EDITS = Study(
    id="V12",
    name="edits",
    question="A trained net is rescaled, pruned, quantised, truncated and fine-tuned, gently and badly. "
    "Does the comparison with its base tell harm from harmless change?",
    expected="scale_collapse, ft_unstable, RANK-COLLAPSE where they belong; none for int4 and a gentle "
    "fine-tune",
    meaning="A fine-tune flagged `ft_unstable` lost the directions of its base, blew up its scale or grew "
    "traps; here each of them lost accuracy. Pruning and low-rank compression earn the same flags in nets "
    "that still work: read them as a large change of structure, and as damage only after a training run.",
    run=edits,
    quick=False,
)


def _middle(state: State) -> FloatArray:
    return np.asarray(state[MIDDLE].numpy(), dtype=np.float64)


def _held(base: State, other: State) -> _Found:
    """The middle layer of `other` against that of the base, the other layers beside it."""
    (row,) = (row for row in compare(base, other, config=WITH_NULL) if row.tensor == MIDDLE)
    return _Found(row, accuracy(other))


def _judged(name: str, row: LayerMetrics) -> list[Check]:
    edit = _EDITS[name]
    checks = [
        _numbered(f"{name}: {column}", getattr(row, column), value) for column, value in edit.numbers.items()
    ]
    shown = sorted(row.flags if not edit.flags else edit.flags & {*row.flags})
    checks.append(same(f"{name}: flags", shown, sorted(edit.flags)))
    if edit.phase is not None:
        checks.append(same(f"{name}: phase", row.phase, edit.phase))
    return checks


def _numbered(what: str, got: float | None, expected: float) -> Check:
    """Within a fifth, and within the rounding of a number that is given to a thousandth."""
    tolerance = _SHARE * abs(expected) + (_ROUNDING if abs(expected) < 0.01 else 0.0)
    return near(what, got, expected, tolerance)


def _table(found: Mapping[str, _Found]) -> Table:
    columns = ("rel_delta", "d_log_spectral_norm", "d_alpha", "alpha", "subspace_overlap10", "rank0_frac")
    rows = tuple(
        (
            name,
            *(number(getattr(one.row, column)) for column in columns),
            f"{one.accuracy:.3f}",
            ", ".join(one.row.flags) or "none",
        )
        for name, one in found.items()
    )
    return Table(caption="The middle layer:", head=("edit", *columns, "accuracy", "flags"), rows=rows)


def _draw(found: Mapping[str, _Found], canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    heights = range(len(found), 0, -1)
    for height, one in zip(heights, found.values(), strict=True):
        unstable = FlagKind.FT_UNSTABLE in one.row.flags
        left.barh(height, one.row.rel_delta or 0.0, color=RED if unstable else BLUE, height=0.6)
        right.barh(height, one.accuracy, color=RED if one.accuracy < 0.95 else GREEN, height=0.6)
    left.set_yticks(heights, [*found])
    left.set_xlabel("rel_delta (red: ft_unstable)")
    right.set_xlabel("test accuracy (red: below .95)")
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
