"""A LoRA pair measured without its product: the same singular values, and a scale that is read."""

from __future__ import annotations

from functools import partial
from math import log10
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREY
from jobs.studies.matrices import rows_of
from jobs.studies.study import Check, Figure, Outcome, Study, at_most, near, same
from scanner.spectra.lowrank import solve_product
from schemas.results import FloatArray, Role
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_RANK, _SIDE = 8, 768
_ALPHA = 16.0
_EXACT = "float64 SVD of the product"


def lora(quick: bool) -> Outcome:
    """Scan one pair with two values of lora_alpha and compare with the dense product."""
    del quick
    rng = np.random.default_rng(14)
    down, up = rng.standard_normal((_RANK, _SIDE)), rng.standard_normal((_SIDE, _RANK))
    row, half = (_scanned(down, up, alpha) for alpha in (_ALPHA, _ALPHA / 2))
    dense: FloatArray = np.asarray(np.linalg.svd(_ALPHA / _RANK * up @ down, compute_uv=False)[:_RANK])
    ours = np.sqrt(solve_product(up, down, _ALPHA / _RANK).evals[::-1])
    checks = _checks(row, half, ours, dense)
    shift = (half.log_norm or 0.0) - (row.log_norm or 0.0)
    return Outcome(
        got=f"singular values within {_worst(ours, dense):.0e}; half of lora_alpha shifts log_norm by "
        f"{shift:.5f}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="lora",
                caption="Singular values of one adapter: from the factors (points) and from the 768 x 768 "
                "product (line).",
                draw=partial(_draw, ours, dense),
                height=2.4,
            ),
        ),
    )


LORA = Study(
    id="V14",
    name="lora",
    question="An adapter stores two thin factors. Are the norms of their product right without forming it, "
    "and is lora_alpha heard?",
    expected="singular values to 1e-13; half of lora_alpha shifts log_norm by -.60206",
    meaning="Adapters are measured as the update they stand for, scale included, at the cost of their thin "
    "factors. They get norms and ranks but no alpha: eight eigenvalues are no tail.",
    run=lora,
    quick=True,
)


def _scanned(down: FloatArray, up: FloatArray, alpha: float) -> LayerMetrics:
    """The row of the pair, named as adapters with their own alpha are."""
    tensors = {"layer.lora_down.weight": down, "layer.lora_up.weight": up, "layer.alpha": np.array(alpha)}
    (row,) = (row for row in rows_of(tensors) if row.role == Role.LORA and row.num_evals)
    return row


def _checks(row: LayerMetrics, half: LayerMetrics, ours: FloatArray, dense: FloatArray) -> list[Check]:
    shift = None if row.log_norm is None or half.log_norm is None else half.log_norm - row.log_norm
    return [
        at_most("singular values, relative difference", _worst(ours, dense), 1e-13, _EXACT),
        near("log_norm of the row", row.log_norm, log10(float(dense @ dense)), 1e-12, _EXACT),
        near("log_spectral_norm of the row", row.log_spectral_norm, 2 * log10(dense[0]), 1e-12, _EXACT),
        near("half of lora_alpha: shift of log_norm", shift, -2 * log10(2), 1e-12, "log10 of 1/4"),
        same("eigenvalues", row.num_evals, _RANK, _EXACT),
        same("lora_rank", row.lora_rank, _RANK, "shape of the factors"),
        near("lora_scale", row.lora_scale, _ALPHA / _RANK, 0.0, "lora_alpha / r"),
        same("alpha", row.alpha, None, "too few eigenvalues for a tail"),
    ]


def _worst(ours: FloatArray, dense: FloatArray) -> float:
    return float(np.abs(ours / dense - 1).max())


def _draw(ours: FloatArray, dense: FloatArray, canvas: Canvas) -> None:
    axes = canvas.subplots()
    positions = range(1, _RANK + 1)
    axes.plot(positions, dense, color=GREY, label="SVD of the product")
    axes.plot(positions, ours, "o", color=BLUE, label="from the factors")
    axes.set(xlabel="singular value, by size", ylabel="size, weight units", ylim=(0, None))
    axes.legend()
