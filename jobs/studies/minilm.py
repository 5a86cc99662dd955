"""all-MiniLM-L6-v2 against numbers measured elsewhere, and the same layers under a change of scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREEN, GREY, RED
from jobs.studies.study import Check, Figure, NotAvailable, Outcome, Study, near, same
from jobs.verbs.demo import installed_model
from scanner.api import read_matrices, scan
from scanner.spectra.tailfit import fit_tail
from schemas.config import Thresholds
from schemas.errors import UsageError
from schemas.results import FlagKind, FloatArray, Phase, RowStatus
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# tensor -> its values of _WW_COLUMNS, then of _COLUMNS
_ROWS: dict[str, tuple[float, ...]] = {
    "embeddings.position_embeddings": (
        1.55198862, 0.00137610579, 0.118416465, 284, 2.07732752, 1.18928880, 7.72749480, 1.552, 284, 0.122,
    ),
    "encoder.layer.0.attention.self.key": (
        2.57636519, 5.86109351, 0.0717995158, 67, 3.10050353, 1.67041269, 26.9209781, 2.576, 67, 0.072,
    ),
    "encoder.layer.0.output.dense": (
        3.24789859, 4.60145113, 0.0322654403, 65, 3.08291993, 1.80623988, 18.9094999, 3.248, 65, 0.034,
    ),
    "encoder.layer.4.attention.self.value": (
        8.44370669, 10.6027894, 0.110772573, 9, 2.81697575, 1.19990333, 41.4068719, 2.432, 87, 0.112,
    ),
    "pooler.dense": (
        12.3548533, 0.101565893, 0.135220402, 16, 1.08658910, -0.907707455, 98.6953196, 12.355, 16, 0.135,
    ),
}  # fmt: skip
_WW_COLUMNS = (
    "ww_alpha",
    "ww_xmin",
    "ww_D",
    "ww_num_pl_spikes",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
)
_COLUMNS = ("alpha", "n_tail", "D_ks")
_WW_MEANS = {"ww_alpha": 4.1171, "log_norm": 2.9307, "log_spectral_norm": 1.3941, "stable_rank": 38.0629}
_MEANS = {"alpha": 3.9568, "alpha_hill": 2.0100, "alpha_trunc": 3.1842, "alpha_weighted": 4.6245}
_PHASES = {Phase.HEAVY_TAILED: 25, Phase.BULK_DECAY: 13, Phase.RANDOM_LIKE: 1}
_FLOW = {"slope": 1.05, "rho": 0.43, "roughness": 0.54}

_BLOCK = {
    "attention.output.dense": (5.298, None),
    "attention.self.key": (2.576, 4.99),
    "attention.self.query": (2.460, 3.57),
    "attention.self.value": (4.015, None),
    "intermediate.dense": (2.479, 2.22),
    "output.dense": (3.248, 3.67),
}
"""Matrix of block 0 -> our alpha at any scale, WeightWatcher's at 1e-3 of the scale."""
_SCALES = (1.0, 1e-3, 3e-4)


def minilm(quick: bool) -> Outcome:
    """Scan the model with both profiles and compare row by row."""
    del quick
    ours, theirs = _scanned("default"), _scanned("weightwatcher")
    checks = [check for name in _ROWS for check in _row_checks(name, ours[name], theirs[name])]
    counted = [row for row in ours.values() if row.counted]
    checks += [
        near(f"mean {c}", _mean(theirs.values(), c), v, 1e-4, "weightwatcher 0.7.7")
        for c, v in _WW_MEANS.items()
    ]
    checks += [near(f"mean {c} of counted rows", _mean(counted, c), v, 1e-3) for c, v in _MEANS.items()]
    checks += _whole_checks([*ours.values()], counted)
    flow = _flow(counted)
    checks += [near(f"depth {name} of alpha", flow[name], value, 0.005) for name, value in _FLOW.items()]
    return Outcome(
        got=f"mean alpha {_mean(counted, 'alpha'):.4f} over {len(counted)} rows",
        checks=tuple(checks),
        figures=(
            Figure(
                name="minilm",
                caption="alpha of each matrix along the depth of the model; hollow: the fit is unreliable. "
                "Line: mean of the block.",
                draw=partial(_draw, [*ours.values()]),
            ),
        ),
        remark="Correlation flow of published models (one alpha a matrix, in file order; recomputed from "
        "github.com/CalculatedContent/ww-trends-2020): vgg19 slope .96, rho .40, roughness .37; resnet152 "
        f"2.44, .52, 1.11; gpt2 1.79, .60, .83. MiniLM by block: {flow['slope']:.2f}, {flow['rho']:.2f}, "
        f"{flow['roughness']:.2f}.",
    )


def scale(quick: bool) -> Outcome:
    """Multiply block 0 by small factors: alpha must not move."""
    del quick
    spectra = _block_evals()
    checks, moved, failed = [], 0.0, 0
    for name, (expected, scaled) in _BLOCK.items():
        for factor in _SCALES:
            ours = fit_tail(factor**2 * spectra[name]).alpha
            checks.append(near(f"{name} x {factor:g}: alpha", ours, expected, 5e-4))
            moved = max(moved, abs((ours or 0.0) - (fit_tail(spectra[name]).alpha or 0.0)))
        for factor in _SCALES[1:]:
            compat = fit_tail(factor**2 * spectra[name], "weightwatcher").alpha
            checks.append(_compat_check(name, factor, compat, scaled if factor == 1e-3 else None))
            failed += compat is None
    return Outcome(
        got=f"ours moves by {moved:.0e} at most; WeightWatcher's rules fail {failed} of 12 fits",
        checks=tuple(checks),
        figures=(
            Figure(
                name="scale",
                caption="alpha of the six matrices of block 0 as their scale is changed; a cross at the "
                "top: no fit.",
                draw=partial(_draw_scale, spectra),
                height=2.8,
            ),
        ),
    )


MINILM = Study(
    id="V8",
    name="minilm",
    question="Does a scan of all-MiniLM-L6-v2 give WeightWatcher's numbers in its profile, and those of the "
    "reference implementation in ours?",
    expected="five rows and all means of both; 25 HEAVY-TAILED, 13 BULK-DECAY, 1 RANDOM-LIKE",
    meaning="The default estimator and WeightWatcher agree on most layers; where they do not, the tail is "
    "short and WeightWatcher's alpha hangs on a few points. The one RANDOM-LIKE matrix is the pooler, "
    "which this model never used.",
    run=minilm,
    quick=True,
)

SCALE = Study(
    id="V9",
    name="scale",
    question="Weights times a constant are the same network up to a constant. Does alpha notice?",
    expected="ours unchanged; compat at 1e-3: fail, 4.99, 3.57, fail, 2.22, 3.67; at 3e-4 six failures",
    meaning="alpha, D_ks and n_tail do not depend on the scale of the weights, so models with unlike "
    "initialisation or normalisation can be compared. WeightWatcher's absolute cut of 1e-5 makes small "
    "weights look over-trained or fail.",
    run=scale,
    quick=True,
)


@cache
def _folder() -> Path:
    try:
        return installed_model()
    except UsageError as error:
        raise NotAvailable(str(error)) from error


@cache
def _scanned(profile: str) -> dict[str, LayerMetrics]:
    rows = scan(_folder() / "model.safetensors", profile)
    return {row.tensor.removesuffix(".weight"): row for row in rows if row.status == RowStatus.OK}


@cache
def _block_evals() -> dict[str, FloatArray]:
    stem = "encoder.layer.0."
    wanted = {f"{stem}{name}.weight": name for name in _BLOCK}
    matrices = (m for m in read_matrices(_folder() / "model.safetensors") if m.name in wanted)
    return {wanted[m.name]: np.asarray(np.linalg.svd(m.values, compute_uv=False) ** 2) for m in matrices}


def _row_checks(name: str, ours: LayerMetrics, theirs: LayerMetrics) -> list[Check]:
    expected = _ROWS[name]
    pairs = zip(_WW_COLUMNS, expected, strict=False)
    checks = [
        near(f"{name}: {column}", getattr(theirs, column), value, 2e-8 * abs(value), "weightwatcher 0.7.7")
        for column, value in pairs
    ]
    return checks + [
        near(f"{name}: {column}", getattr(ours, column), value, 6e-4)
        for column, value in zip(_COLUMNS, expected[len(_WW_COLUMNS) :], strict=True)
    ]


def _whole_checks(rows: Sequence[LayerMetrics], counted: Sequence[LayerMetrics]) -> list[Check]:
    unreliable = sum(FlagKind.FIT_UNRELIABLE in row.flags for row in rows)
    return [
        same("measured rows", len(rows), 39),
        same("counted rows", len(counted), 37),
        same("phases", dict(Counter(row.phase for row in rows)), _PHASES),
        same("unreliable fits", unreliable, 12),
    ]


def _flow(counted: Sequence[LayerMetrics]) -> dict[str, float]:
    """How the mean alpha of the blocks runs along the depth, scaled to [0, 1]."""
    means = _block_means(counted)
    steps = np.arange(means.size)
    ranks = means.argsort().argsort()
    return {
        "slope": float(np.polyfit(steps / (means.size - 1), means, 1)[0]),
        "rho": float(np.corrcoef(steps, ranks)[0, 1]),
        "roughness": float(np.abs(np.diff(means)).mean()),
    }


def _block_means(counted: Sequence[LayerMetrics]) -> FloatArray:
    blocks = sorted({row.layer_index for row in counted if row.layer_index is not None})
    return np.array(
        [_mean([row for row in counted if row.layer_index == block], "alpha") for block in blocks]
    )


def _mean(rows: Iterable[LayerMetrics], column: str) -> float:
    return float(np.mean([getattr(row, column) for row in rows]))


def _compat_check(name: str, factor: float, got: float | None, expected: float | None) -> Check:
    what = f"{name} x {factor:g}: WeightWatcher's alpha"
    if expected is None:
        return same(what, "no fit" if got is None else got, "no fit", "weightwatcher 0.7.7")
    return near(what, got, expected, 5e-3, "weightwatcher 0.7.7")


def _draw(rows: Sequence[LayerMetrics], canvas: Canvas) -> None:
    axes = canvas.subplots()
    counted = [row for row in rows if row.counted and row.layer_index is not None]
    colours = (BLUE, BLUE, BLUE, RED, GREEN, GREEN)
    for role, colour, mark in zip(("q", "k", "v", "o", "up", "down"), colours, "o^sDv>", strict=True):
        for row in (row for row in counted if row.role == role):
            face = "none" if FlagKind.FIT_UNRELIABLE in row.flags else colour
            place = (row.layer_index or 0, row.alpha or np.nan)
            axes.plot(*place, mark, markersize=5, markerfacecolor=face, markeredgecolor=colour)
        axes.plot([], [], mark, color=colour, label=role)
    axes.plot(_block_means(counted), color=GREY, linewidth=1)
    limits = Thresholds()
    axes.axhspan(limits.over_trained_alpha, limits.well_trained_alpha, color="#f0f0f0", zorder=0)
    axes.set(xlabel="block (shaded: alpha in [2, 4])", ylabel="alpha")
    axes.legend(ncols=6, loc="upper left")


def _draw_scale(spectra: dict[str, FloatArray], canvas: Canvas) -> None:
    factors = np.logspace(0, -4, 33)
    panels = (("hubspectra", "default"), ("WeightWatcher's rules", "weightwatcher"))
    for axes, (title, profile) in zip(canvas.subplots(1, 2, sharey=True), panels, strict=True):
        for evals in spectra.values():
            alphas = [fit_tail(factor**2 * evals, profile).alpha for factor in factors]
            axes.plot(factors, [np.nan if a is None else a for a in alphas], color=BLUE, linewidth=1)
            lost = [factor for factor, alpha in zip(factors, alphas, strict=True) if alpha is None]
            axes.plot(lost, [10.6] * len(lost), "x", color=RED, markersize=3)
        axes.set(title=title, xscale="log", xlabel="weights times", ylim=(1, 11))
        axes.invert_xaxis()
    canvas.axes[0].set_ylabel("alpha")
