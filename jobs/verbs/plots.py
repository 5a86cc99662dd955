"""Pictures of one matrix: its spectrum, its tail, and the search for xmin."""

from pathlib import Path
from typing import Any

import numpy as np

from scanner.explain import Explanation
from scanner.spectra.bulk import mp_cdf
from schemas.errors import UsageError
from schemas.results import FloatArray

_INK, _LAW, _NOISE, _RIVAL = "#1f2933", "#c2410c", "#94a3b8", "#2563eb"
_BINS = 80
_STYLES = {"EXP": ":", "SEXP": (0, (3, 1, 1, 1)), "LOGN": "-.", "TPL": "--"}


def draw(made: Explanation, title: str, path: Path) -> None:
    """Write the picture as PNG, SVG or PDF, by the file's ending. Raises UsageError when that fails."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    spectrum, tail, search = figure.subplots(1, 3)
    figure.suptitle(title, fontsize=10)
    _spectrum(spectrum, made)
    _tail(tail, made)
    _search(search, made)
    try:
        with mpl.rc_context({"svg.hashsalt": "hubspectra"}):
            figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write the plot {path}: {error}") from error


def _spectrum(axes: Any, made: Explanation) -> None:
    """Eigenvalue density with the Marchenko-Pastur bulk of a random matrix of that variance."""
    row, evals = made.row, made.spectrum.evals
    if row.norm is None:
        axes.set_title("Every eigenvalue is zero")
        return
    live = evals[evals > 1e-9 * evals[-1]]
    edges = np.geomspace(live[0], live[-1] * 1.0001, _BINS + 1)
    axes.hist(live, edges, color=_NOISE, label="eigenvalues")
    if row.sigma2_mp and row.lambda_edge and made.spectrum.slices is None:
        bulk = np.count_nonzero(evals <= row.lambda_edge)
        expected = np.diff(mp_cdf(edges / (row.sigma2_mp * made.spectrum.N), made.spectrum.Q)) * bulk
        axes.stairs(expected, edges, color=_RIVAL, label="Marchenko-Pastur")
        axes.axvline(row.lambda_edge, color=_RIVAL, linestyle=":", label="edge of noise")
    if row.xmin is not None:
        axes.axvline(row.xmin, color=_LAW, label="xmin")
    axes.set(xscale="log", xlabel="eigenvalue of WᵀW", ylabel="count", title="Spectrum")
    axes.legend(fontsize=8)


def _tail(axes: Any, made: Explanation) -> None:
    """Share of the tail above an eigenvalue, with the power law and its rivals."""
    from matplotlib.ticker import LogLocator

    fit, opinion = made.tail, made.opinion
    axes.set(xscale="log", yscale="log", xlabel="eigenvalue of WᵀW", ylabel="share of the tail above it")
    if fit.alpha is None or fit.xmin is None:
        axes.set_title(f"No tail: {fit.status.value}")
        return
    x = made.spectrum.evals[made.spectrum.evals >= fit.xmin]
    share = 1 - np.arange(len(x)) / len(x)
    axes.plot(x, share, ".", color=_INK, markersize=3, label=f"{len(x)} eigenvalues")
    grid = np.geomspace(x[0], x[-1], 100)
    axes.plot(grid, (grid / fit.xmin) ** (1 - fit.alpha), color=_LAW, label=f"alpha {fit.alpha:.2f}")
    if opinion is not None:
        for code in sorted(_STYLES.keys() & opinion.ccdf.keys()):
            curve = _positive(opinion.ccdf[code])
            axes.plot(opinion.x, curve, color=_RIVAL, linestyle=_STYLES[code], linewidth=1, label=code)
    axes.set(ylim=(0.5 / len(x), 1.5), title="Tail")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.legend(fontsize=8)


def _search(axes: Any, made: Explanation) -> None:
    """Distance and alpha of every candidate xmin: a flat alpha over a wide valley is a tail to trust."""
    curve = made.curve
    if not curve.xmin.size:
        axes.set_title("No candidate for xmin")
        return
    axes.plot(curve.xmin, curve.D_ks, color=_INK, linewidth=1)
    axes.set(xscale="log", xlabel="candidate xmin", ylabel="KS distance", title="Search for xmin")
    beside = axes.twinx()
    beside.plot(curve.xmin, curve.alpha, color=_LAW, linewidth=1)
    beside.set_ylabel("alpha", color=_LAW)
    if made.tail.xmin is not None:
        axes.axvline(made.tail.xmin, color=_LAW, linestyle=":")
        beside.set_ylim(1, max(3 * (made.tail.alpha or 2.0), 4))


def _positive(curve: FloatArray) -> FloatArray:
    return np.where(curve > 0, curve, np.nan)
