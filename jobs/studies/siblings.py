"""One layer of twelve out of scale: found by comparison with its siblings, at no cost to alpha."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from jobs.studies.figures import BLUE, GREY, RED
from jobs.studies.matrices import gaussian, rows_of
from jobs.studies.study import Check, Figure, Outcome, Study, at_most, near, same
from schemas.config import Thresholds
from schemas.results import FlagKind
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_LAYERS, _SIDE, _ODD = 12, 64, 5
_FACTORS = {1e-4: (-8.0, True), 10**-0.4: (-0.8, False)}
"""Factor of the odd layer -> its expected scale_dev, and whether that is a finding."""


def siblings(quick: bool) -> Outcome:
    """Scan twelve Gaussian layers, one of them scaled."""
    del quick
    plain = _scanned(1.0)
    found = {factor: _scanned(factor) for factor in _FACTORS}
    checks = [check for factor, rows in found.items() for check in _judged(factor, rows, plain)]
    deviations = [rows[_ODD].scale_dev or 0.0 for rows in found.values()]
    return Outcome(
        got=f"scale_dev {deviations[0]:.2f} flagged, {deviations[1]:.2f} not, alphas unchanged",
        checks=tuple(checks),
        figures=(
            Figure(
                name="siblings",
                caption="scale_dev of twelve like layers, one of them scaled; shaded: what is no finding.",
                draw=partial(_draw, found),
                height=2.4,
            ),
        ),
    )


SIBLINGS = Study(
    id="V16",
    name="siblings",
    question="One of twelve Gaussian layers is multiplied by 1e-4, or by 10^-.4. Is the first found, and "
    "only it?",
    expected="scale_dev -8.0 flagged, -.8 not (± .1), every alpha unchanged",
    meaning="A layer whose scale left that of its siblings by a factor of ten (a hundred in lambda_max) is "
    "named `scale_outlier` even though its shape, alpha, is that of all others. Scale and shape are told "
    "apart.",
    run=siblings,
    quick=True,
)


def _scanned(factor: float) -> list[LayerMetrics]:
    scales = [factor if i == _ODD else 1.0 for i in range(_LAYERS)]
    return rows_of(
        {f"blocks.{i}.fc.weight": s * gaussian(_SIDE, _SIDE, seed=160 + i) for i, s in enumerate(scales)}
    )


def _judged(factor: float, rows: Sequence[LayerMetrics], plain: Sequence[LayerMetrics]) -> list[Check]:
    expected, flagged = _FACTORS[factor]
    hits = [i for i, row in enumerate(rows) if FlagKind.SCALE_OUTLIER in row.flags]
    drift = max(abs((a.alpha or 0) / (b.alpha or 1) - 1) for a, b in zip(rows, plain, strict=True))
    name = f"x {factor:.3g}"
    return [
        near(f"{name}: scale_dev", rows[_ODD].scale_dev, expected, 0.1, "log10 of the squared factor"),
        same(f"{name}: layers flagged", hits, [_ODD] if flagged else []),
        at_most(f"{name}: relative change of any alpha", drift, 1e-9, "invariance of the estimator"),
    ]


def _draw(found: dict[float, list[LayerMetrics]], canvas: Canvas) -> None:
    limit = Thresholds().scale_dev
    for axes, (factor, rows) in zip(canvas.subplots(1, 2), found.items(), strict=True):
        colours = [RED if FlagKind.SCALE_OUTLIER in row.flags else BLUE for row in rows]
        axes.bar(range(_LAYERS), [row.scale_dev or 0.0 for row in rows], color=colours)
        axes.axhspan(-limit, limit, color="#f0f0f0", zorder=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(title=f"one layer x {factor:.3g}", xlabel="layer", ylabel="scale_dev, log10 lambda_max")
