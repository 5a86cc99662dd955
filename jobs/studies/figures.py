"""How figures look and how they become files: the same bytes for the same numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.studies.study import Figure

BLUE, RED, GREEN, GREY, GOLD = "#0072B2", "#D55E00", "#009E73", "#767676", "#B8860B"
"""Told apart by colour-blind eyes too (Okabe and Ito)."""

_WIDTH = 7.0
"""Inches of 100 pixels."""

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "hubspectra",
    "figure.facecolor": "white",
}


def save(figure: Figure, folder: Path) -> Path:
    """Draw `figure` as an SVG in `folder`; no date and no version in it, so that only numbers change it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    path = folder / f"{figure.name}.svg"
    with _styled():
        canvas = Canvas(figsize=(_WIDTH, figure.height), dpi=100, layout="constrained")
        FigureCanvasSVG(canvas)
        figure.draw(canvas)
        canvas.savefig(path, format="svg", metadata={"Date": None, "Creator": "hubspectra"})
    return path


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield
