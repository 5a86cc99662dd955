"""Matrices in which nothing was learnt: the bulk, the phase and the traps must say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import log
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREEN, GREY, RED
from jobs.studies.matrices import WITH_NULL, decaying, gaussian, measured
from jobs.studies.study import Figure, Known, Outcome, Study, at_least, at_most, near, same
from scanner.spectra.bulk import fit_bulk, standardised
from scanner.spectra.eigen import DenseWeights, solve
from schemas.config import Thresholds
from schemas.results import FlagKind, Phase, Spectrum
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_SHAPES = {(100, 50): 100, (300, 300): 30, (1000, 100): 60, (768, 768): 8, (1500, 500): 12}
_RARE = Known(
    value=1.0,
    within=0.1,
    because="Of a thousand other 100 x 50 matrices one is beyond the limit too, by 3 %: it is kept by "
    "nearly all matrices of that size, not by all. From 300 x 300 up none came near it.",
)
_CONV = (64, 64, 9)
_CONV_DRAWS = 40
_SLICE_SPREAD = 0.35
"""Standard deviation of the log of a slice's scale."""


def null(quick: bool) -> Outcome:
    """Scan Gaussian matrices of five shapes."""
    del quick
    rows = [_noise(shape, draw) for shape, draws in _SHAPES.items() for draw in range(draws)]
    random = [row.phase == Phase.RANDOM_LIKE for row in rows]
    margins = [row.mp_D / (log(row.M) / row.M) for row in rows if row.mp_D is not None and row.M]
    spikes = [bool(row.num_spikes) for row in rows]
    traps = sum(row.num_traps or 0 for row in rows)
    trained = sum(FlagKind.UNDER_TRAINED in row.flags for row in rows)
    checks = (
        same("matrices", len(rows), sum(_SHAPES.values())),
        at_least("share RANDOM-LIKE", float(np.mean(random)), 0.97),
        same("bulks measured", len(margins), len(rows)),
        at_most("largest mp_D over ln M / M", max(margins), 1.0, known=_RARE),
        at_most("share with a false spike", float(np.mean(spikes)), 0.03),
        same("correlation traps", traps, 0),
    )
    return Outcome(
        got=f"{np.mean(random):.1%} of {len(rows)} RANDOM-LIKE, {sum(spikes)} with a false spike, {traps} "
        "traps",
        checks=checks,
        figures=(
            Figure(
                name="noise",
                caption="alpha of pure noise is anything from 2 to 30; its KS distance and the length of its "
                "tail give it away. Hatched: what the flag fit_unreliable catches.",
                draw=partial(_draw, rows, _tails()),
            ),
        ),
        remark=f"{trained} of {len(rows)} noise matrices are called under_trained, although their alphas "
        f"reach {max(row.alpha or 0 for row in rows):.0f}: that flag asks for a reliable fit, and D_ks and "
        "the length of the tail keep noise from it.",
    )


def pooled(quick: bool) -> Outcome:
    """Pool nine Gaussian slices of unlike scale, standardised and raw."""
    del quick
    spectra = [_unlike_slices(draw) for draw in range(_CONV_DRAWS)]
    bulks = [fit_bulk(spectrum) for spectrum in spectra]
    raw = [fit_bulk(_raw(spectrum)).num_spikes or 0 for spectrum in spectra]
    distances = [bulk.mp_D for bulk in bulks if bulk.mp_D is not None]
    spiked = sum(bool(bulk.num_spikes) for bulk in bulks)
    checks = (
        same("bulks measured", len(distances), _CONV_DRAWS),
        near("mean mp_D", float(np.mean(distances)), 0.015, 0.003),
        at_most("largest mp_D", max(distances), 0.0325),
        at_most("layers with a spike", spiked, 1),
        near("false spikes of raw pooling, mean", float(np.mean(raw)), 64, 20),
    )
    return Outcome(
        got=f"mp_D {np.mean(distances):.3f} (max {max(distances):.3f}), spikes in {spiked} of {_CONV_DRAWS}; "
        f"raw pooling {np.mean(raw):.0f} false spikes a layer",
        checks=checks,
        figures=(
            Figure(
                name="pooled-noise",
                caption="Eigenvalues of one convolution of nine Gaussian slices, pooled, with the edge of "
                "the bulk fitted to them.",
                draw=partial(_draw_pooled, spectra[0]),
                height=2.8,
            ),
        ),
    )


NOISE = Study(
    id="V4",
    name="noise",
    question="Does a matrix of independent Gaussian entries, 210 of them in five shapes, look random to "
    "every part of the diagnosis?",
    expected="RANDOM-LIKE >= 97 %, mp_D < ln M / M, false spikes <= 3 %, no traps",
    meaning="A layer called RANDOM-LIKE has a spectrum that noise explains, and noise is called so at "
    "least 97 times in 100. Never read alpha of such a layer: a power law can be fitted to noise as to "
    "anything.",
    run=null,
    quick=False,
)

POOLED = Study(
    id="V15",
    name="pooled-noise",
    question="The kernel positions of a convolution have unlike scales. Does pooling their spectra invent "
    "spikes?",
    expected="mp_D mean .015, max < .0325, spikes in <= 1 of 40; raw about 64",
    meaning="Each slice is divided by its mean square weight before the bulk is fitted, so unlike scales "
    "of the kernel positions do not pass for learnt structure. Without that step every convolution would "
    "show spikes.",
    run=pooled,
    quick=True,
)


def _noise(shape: tuple[int, int], draw: int) -> LayerMetrics:
    return measured(gaussian(*shape, seed=10_000 * shape[0] + draw), WITH_NULL)


def _tails() -> list[LayerMetrics]:
    """Matrices with a real tail, to draw beside the noise."""
    return [measured(decaying(1000, 400, power, draw)) for power in (0.5, 0.75, 1.0) for draw in range(8)]


def _unlike_slices(draw: int) -> Spectrum:
    rng = np.random.default_rng([15, draw])
    scales = np.exp(_SLICE_SPREAD * rng.standard_normal(_CONV[2]))
    return solve(DenseWeights(rng.standard_normal(_CONV) * scales))


def _raw(spectrum: Spectrum) -> Spectrum:
    """The same eigenvalues with no memory of their slices."""
    return replace(spectrum, slices=None)


def _draw(noise: Sequence[LayerMetrics], tails: Sequence[LayerMetrics], canvas: Canvas) -> None:
    left, right = canvas.subplots(1, 2, sharey=True)
    limits = Thresholds()
    panels = ((left, "D_ks", limits.ks_max), (right, "tail_decades", limits.tail_decades_min))
    for axes, column, limit in panels:
        for rows, colour, mark, label in (
            (noise, GREY, "o", "Gaussian noise"),
            (tails, BLUE, "D", "power-law covariance"),
        ):
            x = [getattr(row, column) for row in rows]
            axes.scatter(x, [row.alpha for row in rows], s=9, c=colour, marker=mark, label=label, lw=0)
        unreliable = (limit, axes.get_xlim()[1]) if column == "D_ks" else (axes.get_xlim()[0], limit)
        axes.axvspan(*unreliable, facecolor="none", edgecolor="#e8b9a0", hatch="///", linewidth=0)
    left.set(xlabel="D_ks", ylabel="alpha", yscale="log", xticks=(0.05, 0.1, 0.15), yticks=(2, 3, 5, 10, 20))
    left.set_yticks((), minor=True)
    left.set_yticklabels(("2", "3", "5", "10", "20"))
    right.set(xlabel="tail_decades, log10(xmax / xmin)")
    right.legend(loc="upper right")


def _draw_pooled(spectrum: Spectrum, canvas: Canvas) -> None:
    unit = standardised(spectrum)
    panels = (("raw", spectrum.evals, fit_bulk(_raw(spectrum)), RED), ("standardised", unit, None, GREEN))
    for axes, (title, evals, bulk, colour) in zip(canvas.subplots(1, 2), panels, strict=True):
        fitted = bulk or fit_bulk(spectrum)
        axes.hist(evals, bins=60, color=BLUE, alpha=0.75)
        axes.axvline(fitted.lambda_edge or 0.0, color=colour, label="edge of the bulk")
        axes.set(title=f"{title}: {fitted.num_spikes} beyond the edge", xlabel="eigenvalue", ylabel="count")
        axes.legend()
