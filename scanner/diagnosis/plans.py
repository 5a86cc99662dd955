"""Layer rows -> allocation plans: how much learning rate, decay, sparsity or how many experts a layer gets.

All four rest on one reading of the tail exponent alpha: a small alpha (heavy tail) marks a layer that is
trained well, a large one a layer that is not. Well-trained layers get a smaller step, less decay, less
pruning and fewer new experts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import floor, isfinite
from statistics import fmean
from typing import Literal

from scanner.diagnosis.allotment import CURVES, Range, experts, linear, proportional, sparsities
from scanner.weights.roles import natural
from schemas.errors import ConfigError
from schemas.results import Role, RowStatus, SkipReason
from schemas.rows import LayerMetrics

AlphaColumn = Literal["alpha_hill", "alpha", "alpha_peak_compat"]
Variant = Literal["linear", "sqrt", "log2"]

ALPHA_COLUMNS: tuple[AlphaColumn, ...] = ("alpha_hill", "alpha", "alpha_peak_compat")
VARIANTS: tuple[Variant, ...] = ("linear", "sqrt", "log2")

MIN_USABLE = 5
"""Alphas below which their order says nothing."""

MIN_RANGE = 0.3
"""Spread of alpha below which it is noise."""

MIN_EVALS = 50
"""Eigenvalues below which a matrix keeps the base learning rate or decay."""

_NEVER_TUNED = frozenset({Role.EMBED, Role.POS_EMBED, Role.LORA})
_HEADS = frozenset({Role.LM_HEAD, Role.CLASSIFIER})
_UNANALYSED = frozenset({SkipReason.TOO_SMALL, SkipReason.TOO_LARGE})


class PlanKind(StrEnum):
    """What is allocated."""

    LEARNING_RATE = "learning-rate"
    WEIGHT_DECAY = "weight-decay"
    PRUNING = "pruning"
    EXPERTS = "experts"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRule:
    """A paper's defaults. `group_key` is the optimizer's name of the quantity, where it has one."""

    source: str
    base: float
    alpha: AlphaColumn
    scale: Range | None = None
    beta: float | None = None
    group_key: str | None = None


PUBLISHED: Mapping[PlanKind, PublishedRule] = {
    PlanKind.LEARNING_RATE: PublishedRule(
        source="TempBalance, arXiv 2312.00359",
        base=0.1,
        alpha="alpha_hill",
        scale=(0.5, 1.5),
        group_key="lr",
    ),
    PlanKind.WEIGHT_DECAY: PublishedRule(
        source="AlphaDecay, arXiv 2506.14562",
        base=0.1,
        alpha="alpha_hill",
        scale=(2 / 3, 5.0),
        group_key="weight_decay",
    ),
    PlanKind.PRUNING: PublishedRule(
        source="AlphaPruning, arXiv 2410.10912", base=0.7, alpha="alpha_peak_compat", scale=(0.8, 1.2)
    ),
    PlanKind.EXPERTS: PublishedRule(
        source="AlphaLoRA, arXiv 2410.10054", base=160, alpha="alpha_peak_compat", beta=2.5
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """What one weight tensor, or one block of them, gets.

    `value` = `factor` * the even share: the base value, or for experts total / blocks. `alpha` is the mean
    over the rows behind it, None where none has one. `note` says why an entry is left at the even share.
    """

    name: str
    tensors: tuple[str, ...]
    params: int
    alpha: float | None
    factor: float
    value: float
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An allocation over the layers of one model.

    `base` is the global learning rate, decay or sparsity, or the number of experts in all. `reason` is set
    when the plan is uniform and says why.
    """

    kind: PlanKind
    base: float
    alpha: AlphaColumn
    variant: Variant | None
    scale: Range | None
    beta: float | None
    clip: bool | None
    source: str
    reason: str | None
    entries: tuple[PlanEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What gets one value: a tensor or a block. With a `note` it takes no part in the allocation."""

    name: str
    tensors: tuple[str, ...]
    params: int
    alpha: float | None
    note: str | None

    @property
    def usable(self) -> float | None:
        """The alpha that counts."""
        return None if self.note else self.alpha


def make_plan(
    rows: Sequence[LayerMetrics],
    kind: PlanKind,
    *,
    base: float | None = None,
    scale: Range | None = None,
    variant: Variant | None = None,
    alpha: AlphaColumn | None = None,
    beta: float | None = None,
    clip: bool | None = None,
    guard: bool = True,
) -> Plan:
    """Allocate over the rows of one model; what is None takes the published default of `kind`.

    learning-rate, weight-decay: one value a tensor, base * (s1 + (a - amin)/(amax - amin) * (s2 - s1)) with
    `scale` (s1, s2), or with `variant` sqrt or log2 base * n * f(a)/sum f(a). The first matrix, the last and
    those of fewer than 50 eigenvalues keep the base value; embeddings are not in the plan.
    pruning: one sparsity a block, the linear map times the constant that makes sum params * value =
    base * sum params; `clip` (default) caps at 1 and rescales the others until that holds, False is the
    original rule, which may exceed 1.
    experts: whole numbers base * a^beta/sum a^beta a block by largest remainder; they add up to `base`, and
    a block may get none.

    With `guard`, fewer than 5 alphas or a range below 0.3 give a uniform plan and its reason.
    Raises ConfigError for options that `kind` does not know, for rows of several sub-models, and when no row
    holds the alpha column asked for.
    """
    options = _resolved(kind, base, scale, variant, alpha, beta, clip)
    _check(rows, options)
    parts = _blocks(rows, options.alpha) if _by_block(kind) else _tensors(rows, options.alpha)
    reason = _not_usable([part.usable for part in parts if part.usable is not None], guard)
    return replace(options, reason=reason, entries=_entries(parts, replace(options, reason=reason)))


# Options


def _by_block(kind: PlanKind) -> bool:
    return kind in (PlanKind.PRUNING, PlanKind.EXPERTS)


def _resolved(
    kind: PlanKind,
    base: float | None,
    scale: Range | None,
    variant: Variant | None,
    alpha: AlphaColumn | None,
    beta: float | None,
    clip: bool | None,
) -> Plan:
    """An empty plan with every default filled in, its numbers checked."""
    rule = PUBLISHED[kind]
    tuned, pruning, experts = not _by_block(kind), kind is PlanKind.PRUNING, kind is PlanKind.EXPERTS
    _known(kind, variant is None or tuned, "variant")
    _known(kind, scale is None or (not experts and variant in (None, "linear")), "scale")
    _known(kind, beta is None or experts, "beta")
    _known(kind, clip is None or pruning, "clip")
    plan = Plan(
        kind=kind,
        base=rule.base if base is None else base,
        alpha=alpha or rule.alpha,
        variant=(variant or "linear") if tuned else None,
        scale=None if variant in ("sqrt", "log2") else (scale or rule.scale),
        beta=rule.beta if beta is None else beta,
        clip=(clip is not False) if pruning else None,
        source=rule.source,
        reason=None,
        entries=(),
    )
    _sound(plan)
    return plan


def _known(kind: PlanKind, fits: bool, option: str) -> None:
    if not fits:
        raise ConfigError(f"{option} has no meaning for this {kind} plan: leave it out")


def _sound(plan: Plan) -> None:
    if plan.alpha not in ALPHA_COLUMNS:
        raise ConfigError(f"no such alpha column: {plan.alpha}; take {', '.join(ALPHA_COLUMNS)}")
    if plan.variant not in (None, *VARIANTS):
        raise ConfigError(f"no such variant: {plan.variant}; take {', '.join(VARIANTS)}")
    if not (isfinite(plan.base) and plan.base > 0):
        raise ConfigError(f"base must be a positive number, got {plan.base}")
    if plan.kind is PlanKind.PRUNING and plan.base > 1:
        raise ConfigError(f"base of a pruning plan is a share of the weights, at most 1, got {plan.base}")
    if plan.kind is PlanKind.EXPERTS and plan.base != floor(plan.base):
        raise ConfigError(f"base of an experts plan is a whole number of experts, got {plan.base}")
    if plan.scale and not (0 < plan.scale[0] <= plan.scale[1] < float("inf")):
        raise ConfigError(f"scale must be 0 < low <= high, got {plan.scale[0]} and {plan.scale[1]}")
    if plan.beta is not None and not (isfinite(plan.beta) and plan.beta > 0):
        raise ConfigError(f"beta must be a positive number, got {plan.beta}")


def _check(rows: Sequence[LayerMetrics], plan: Plan) -> None:
    components = sorted({row.component or "" for row in rows})
    if len(components) > 1:
        raise ConfigError(
            f"the rows are of several sub-models ({', '.join(components)}); plan one component at a time"
        )
    fitted = [row for row in rows if row.fit_ok]
    if fitted and all(getattr(row, plan.alpha) is None for row in fitted):
        held = [name for name in ALPHA_COLUMNS if any(getattr(row, name) is not None for row in fitted)]
        instead = f"take {' or '.join(held)} instead (--alpha)" if held else "scan the model again"
        raise ConfigError(f"{plan.alpha} was not computed for this model (NULL in every layer): {instead}")


def _not_usable(alphas: Sequence[float], guard: bool) -> str | None:
    if not alphas:
        return "no layer has a usable alpha"
    spread = max(alphas) - min(alphas)
    if guard and len(alphas) < MIN_USABLE:
        return f"{len(alphas)} usable alphas are too few to tell layers apart, {MIN_USABLE} are needed"
    if guard and spread < MIN_RANGE:
        return f"alpha differs by {spread:.3g} only, less than {MIN_RANGE}: the layers are alike"
    return "all alphas are equal" if spread == 0 else None


# Rows -> parts


def _tensors(rows: Sequence[LayerMetrics], column: AlphaColumn) -> list[_Part]:
    """Weight tensors in natural order of their names, those that feed the output last.

    Matrices that could not be analysed have their place too: a stem of three channels is the first matrix.
    """
    members: dict[str, list[LayerMetrics]] = defaultdict(list)
    for row in rows:
        if _is_matrix(row) and row.role not in _NEVER_TUNED:
            members[row.tensor].append(row)
    names = sorted(members, key=lambda name: (_nearness(members[name][0]), natural(name)))
    parts = []
    for place, name in enumerate(names):
        note = _kept(members[name], place, len(names))
        parts.append(_part(name, members[name], members[name], column, note))
    return parts


def _is_matrix(row: LayerMetrics) -> bool:
    return row.status != RowStatus.SKIPPED or row.status_reason in _UNANALYSED


def _nearness(row: LayerMetrics) -> int:
    """How near the output: a head too small to analyse is not `is_last`, but comes after what is."""
    return 2 if row.role in _HEADS else int(row.is_last)


def _kept(rows: Sequence[LayerMetrics], place: int, count: int) -> str | None:
    if place == 0:
        return "first matrix"
    if place == count - 1:
        return "last matrix"
    if any(row.num_evals is not None and row.num_evals < MIN_EVALS for row in rows):
        return f"fewer than {MIN_EVALS} eigenvalues"
    return None


def _blocks(rows: Sequence[LayerMetrics], column: AlphaColumn) -> list[_Part]:
    """The repeated blocks in natural order; a matrix too large to analyse follows its block."""
    members: dict[str, list[LayerMetrics]] = defaultdict(list)
    for row in rows:
        planned = row.status == RowStatus.OK or row.status_reason == SkipReason.TOO_LARGE
        if planned and row.layer_index is not None and row.role not in _NEVER_TUNED | _HEADS:
            members[_block(row.tensor)].append(row)
    return [
        _part(name, members[name], [r for r in members[name] if r.status == RowStatus.OK], column, None)
        for name in sorted(members, key=natural)
    ]


def _block(tensor: str) -> str:
    """`encoder.layer.3` of `encoder.layer.3.output.dense.weight`."""
    words = tensor.split(".")
    return ".".join(words[: next(i for i, word in enumerate(words) if word.isdigit()) + 1])


def _part(
    name: str,
    rows: Sequence[LayerMetrics],
    analysed: Sequence[LayerMetrics],
    column: AlphaColumn,
    note: str | None,
) -> _Part:
    found: list[float] = [value for row in analysed if (value := getattr(row, column)) is not None]
    return _Part(
        name=name,
        tensors=tuple(dict.fromkeys(row.tensor for row in rows)),
        params=sum((row.N or 0) * (row.M or 0) * _slices(row) for row in rows),
        alpha=fmean(found) if found else None,
        note=note or (None if found else f"no {column}"),
    )


def _slices(row: LayerMetrics) -> int:
    return 1 if row.slice_id is not None else row.kernel_size or 1


# Parts -> values


def _entries(parts: Sequence[_Part], plan: Plan) -> tuple[PlanEntry, ...]:
    """Values of all parts; those that do not count, in a uniform plan all, take the even share."""
    if not parts:
        return ()
    alphas = [None if plan.reason else part.usable for part in parts]
    if plan.kind is PlanKind.EXPERTS:
        counts = experts(alphas, int(plan.base), plan.beta or 0.0)
        return tuple(_entry(p, n, plan.base / len(parts)) for p, n in zip(parts, counts, strict=True))
    counting = {part: alpha for part, alpha in zip(parts, alphas, strict=True) if alpha is not None}
    values = dict(zip(counting, _values(list(counting.values()), list(counting), plan), strict=True))
    return tuple(_entry(part, values.get(part, plan.base), plan.base) for part in parts)


def _values(alphas: Sequence[float], parts: Sequence[_Part], plan: Plan) -> list[float]:
    if not alphas:
        return []
    if plan.variant in CURVES:
        return [plan.base * share for share in proportional(alphas, CURVES[plan.variant])]
    factors = linear(alphas, plan.scale or (1.0, 1.0))
    if plan.kind is PlanKind.PRUNING:
        return sparsities(factors, [part.params for part in parts], plan.base, clip=bool(plan.clip))
    return [plan.base * factor for factor in factors]


def _entry(part: _Part, value: float, even: float) -> PlanEntry:
    return PlanEntry(
        name=part.name,
        tensors=part.tensors,
        params=part.params,
        alpha=part.alpha,
        factor=value / even,
        value=value,
        note=part.note,
    )
