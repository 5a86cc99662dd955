"""Our WeightWatcher profile against WeightWatcher itself, run side by side on the same weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from math import log10, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.studies.figures import BLUE, GREY
from jobs.studies.study import Check, Figure, NotAvailable, Outcome, Study, at_most, same
from scanner.api import scan, spectrum
from scanner.spectra.metrics import log_alpha_norm
from scanner.spectra.weightwatcher import ww_sides
from schemas.results import FloatArray, RowStatus
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Layers = Mapping[str, Mapping[str, Any]]

VERSION = "0.7.7"
_SHAPES: tuple[tuple[int, ...], ...] = (
    (16, 3, 3, 3),
    (32, 16, 1, 1),
    (24, 64, 2, 2),
    (24, 64, 3, 3),
    (64, 1, 3, 3),
    (64, 32, 5, 5),
    (10, 19),
    (12, 12),
    (19, 40),
    (8, 60),
    (300, 200),
    (64, 64),
    (500, 32),
)
_ABSENT = ((7, 60), (64,))
_RELATIVE = 1e-9
_FLOOR = {"sv_min": 1e-14}
"""Least singular values are rounding where a matrix has not full rank: in units of the largest."""
_COLUMNS = (
    "N M Q rf num_evals alpha xmin xmax D sigma num_pl_spikes norm log_norm spectral_norm log_spectral_norm "
    "stable_rank alpha_weighted log_alpha_norm entropy rank_loss weak_rank_loss matrix_rank sv_min sv_max "
    "detX_num ERG_gap detX_val"
).split()
_WORDS = ("warning", "status")
_FAILED = -1.0


def compare(quick: bool) -> Outcome:
    """Analyse one state dict with both and compare every column of every layer."""
    del quick
    state = _state()
    theirs, ours = _analysed(state), _scanned(state)
    shared = sorted(ours.keys() & theirs.keys())
    gaps = {
        column: [_gap(column, ours[name][column], theirs[name][column], theirs[name]) for name in shared]
        for column in _COLUMNS
    }
    source = f"weightwatcher {VERSION}"
    checks: list[Check] = [same("layers with a row", sorted(ours), sorted(theirs), source)]
    checks += [
        at_most(f"{c}: largest relative difference", max(g), _RELATIVE, source) for c, g in gaps.items()
    ]
    checks += [same(c, [ours[n][c] for n in shared], [theirs[n][c] for n in shared], source) for c in _WORDS]
    worst = max(max(gap) for gap in gaps.values())
    return Outcome(
        got=f"{len(shared)} layers, {len(_COLUMNS)} columns: largest relative difference {worst:.0e}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="weightwatcher",
                caption="Largest relative difference between the two over all layers, column by column; the "
                "line is the tolerance.",
                draw=partial(_draw, gaps),
                height=3.6,
            ),
        ),
    )


WEIGHTWATCHER = Study(
    id="V7",
    name="weightwatcher",
    question="Does `--profile weightwatcher` repeat WeightWatcher 0.7.7, column by column, on "
    "convolutions, dense layers and everything it leaves out?",
    expected="every column to 1e-9 relative; the same layers left out",
    meaning="Numbers published with WeightWatcher can be compared with a scan under that profile, to the "
    "last digits. Its failures are repeated too, but stored as NULL with a status instead of -1.",
    run=compare,
    quick=False,
)


def _state() -> dict[str, Any]:
    """Student t(3) entries in float32, and three tensors that get no row."""
    rng = np.random.default_rng(7)
    state = {f"layer{i:02}.weight": rng.standard_t(3, shape) for i, shape in enumerate(_SHAPES + _ABSENT)}
    state["layer10.bias"] = rng.standard_t(3, 300)
    return {name: values.astype(np.float32) for name, values in state.items()}


def _analysed(state: Mapping[str, Any]) -> Layers:
    """WeightWatcher's details by layer. Raises NotAvailable when the pinned version is not installed."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it rounds weights through float16 where it finds CUDA
    try:
        import weightwatcher
    except ImportError as error:
        raise NotAvailable("pip install 'hubspectra[peers]'") from error
    if weightwatcher.__version__ != VERSION:
        raise NotAvailable(
            f"weightwatcher {weightwatcher.__version__} is installed: pip install 'hubspectra[peers]'"
        )
    import torch

    tensors = {name: torch.from_numpy(values) for name, values in state.items()}
    with redirect_stdout(StringIO()):
        details = weightwatcher.WeightWatcher(model=tensors).analyze(plot=False, detX=True)
    return {row["name"]: row for row in details.to_dict("records")}


def _scanned(state: Mapping[str, Any]) -> Layers:
    rows = scan(state, "weightwatcher")
    named = {row.tensor.removesuffix(".weight"): row for row in rows if row.status == RowStatus.OK}
    return {
        name: _columns(row, spectrum(state[row.tensor], method="svd").evals)
        for name, row in named.items()
        if row.ww_status is not None
    }


def _columns(row: LayerMetrics, evals: FloatArray) -> dict[str, Any]:
    """A row under WeightWatcher's names and in its units: squares of a convolution are halved."""
    half = 2.0 if len(row.shape) == 4 else 1.0
    n, m, rf = ww_sides(row.shape)
    norm, top = (row.norm or 0.0) / half, (row.lambda_max or 0.0) / half
    alpha = _FAILED if row.ww_alpha is None else row.ww_alpha
    erg = evals.size if row.erg_num is None else row.erg_num
    return {
        "N": n,
        "M": m,
        "Q": n / m,
        "rf": rf,
        "num_evals": row.num_evals,
        "alpha": alpha,
        "xmin": row.ww_xmin,
        "xmax": row.ww_xmax,
        "D": row.ww_D,
        "sigma": row.ww_sigma,
        "num_pl_spikes": row.ww_num_pl_spikes,
        "norm": norm,
        "log_norm": log10(norm),
        "spectral_norm": top,
        "log_spectral_norm": log10(top),
        "stable_rank": norm / top,
        "alpha_weighted": alpha * log10(top),
        "log_alpha_norm": log_alpha_norm(evals / half, alpha),
        "entropy": row.ww_entropy,
        "rank_loss": row.ww_rank_loss,
        "weak_rank_loss": row.ww_weak_rank_loss,
        "matrix_rank": row.ww_matrix_rank,
        "sv_min": row.ww_sv_min,
        "sv_max": sqrt(top),
        "warning": "over-trained" if alpha < 2 else "under-trained" if alpha > 6 else "",
        "status": row.ww_status,
        "detX_num": erg,
        "ERG_gap": erg - (row.ww_num_pl_spikes or 0),
        "detX_val": evals[-1] / half if row.erg_lambda is None else row.erg_lambda / half,
    }


def _gap(column: str, ours: float, theirs: float, layer: Mapping[str, Any]) -> float:
    """Relative difference, above the column's floor."""
    floor = _FLOOR.get(column, 0.0) * layer["sv_max"]
    difference = abs(ours - theirs)
    return 0.0 if difference <= floor else difference / abs(theirs) if theirs else float("inf")


def _draw(gaps: Mapping[str, list[float]], canvas: Canvas) -> None:
    axes = canvas.subplots()
    worst = [max(*gap, 1e-17) for gap in gaps.values()]
    axes.plot(worst[::-1], range(len(worst)), "o", color=BLUE)
    axes.axvline(_RELATIVE, color=GREY)
    axes.set_yticks(range(len(worst)), [*gaps][::-1], fontsize=7)
    axes.set(xscale="log", xlim=(5e-18, 1e-8), xlabel="largest relative difference (1e-17: none)")
