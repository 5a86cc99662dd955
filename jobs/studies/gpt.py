"""Scale against shape where they disagree: a badly trained model that looks best by its scale."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from jobs.studies.figures import BLUE, RED
from jobs.studies.reference import Rows, published
from jobs.studies.study import Check, Figure, Outcome, Study, near, same

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_MODELS = ("GPT", "GPT2-small", "GPT2-medium", "GPT2-large", "GPT2-xl")
_SCALE, _SHAPE = "alpha_hat", "alpha"
_TABLES = {_SCALE: ("T2_gpt",), _SHAPE: ("F_gpt_alpha_hist", "text_gpt2")}
_EXPECTED = {
    _SCALE: (7.01, 9.62, 9.74, 7.67, 7.17),
    _SHAPE: (4.63, 3.83, 3.82, 3.97, 3.81),
}
_SOURCE = "NatCom Table 2 and text"


def gpt(quick: bool) -> Outcome:
    """Rank five published models by a scale metric and by a shape metric."""
    del quick
    rows = published("published_tables.csv")
    found = {metric: {model: _value(rows, metric, model) for model in _MODELS} for metric in _TABLES}
    checks: list[Check] = []
    for metric, expected in _EXPECTED.items():
        for model, value in zip(_MODELS, expected, strict=True):
            checks.append(near(f"{model}: {metric}", found[metric][model], value, 0.01, _SOURCE))
    best, worst = (
        min(found[_SCALE], key=found[_SCALE].__getitem__),
        max(found[_SHAPE], key=found[_SHAPE].__getitem__),
    )
    checks += [same("lowest alpha_hat", best, "GPT", _SOURCE), same("highest alpha", worst, "GPT", _SOURCE)]
    return Outcome(
        got=f"{best} is best of five by alpha-hat and {worst} worst by alpha",
        checks=tuple(checks),
        figures=(
            Figure(
                name="gpt",
                caption="Published means of the GPT family (lower is better, by the theory): scale and shape "
                "disagree about the first GPT.",
                draw=partial(_draw, found),
                height=2.6,
            ),
        ),
    )


GPT = Study(
    id="V10d",
    name="published-gpt",
    question="The paper takes the first GPT for poorly trained and GPT2 for well trained. What do a scale "
    "metric and a shape metric say of them?",
    expected="alpha-hat ranks GPT best (7.01), alpha ranks it worst (4.63)",
    meaning="A layer whose scale collapsed has a small norm and so a good alpha-hat: a scale metric alone "
    "praises what it should warn of. The leaderboard therefore shows shape (`alpha_hill`) and scale side "
    "by side.",
    run=gpt,
    quick=True,
)


def _value(rows: Rows, metric: str, model: str) -> float:
    tables = _TABLES[metric]
    own = (
        row for row in rows if row["table"] in tables and row["model"] == model and row["metric"] == metric
    )
    return float(next(own)["value"])


def _draw(found: Mapping[str, Mapping[str, float]], canvas: Canvas) -> None:
    panels = zip(
        canvas.subplots(1, 2, sharey=True),
        ((_SCALE, "alpha-hat (scale)"), (_SHAPE, "alpha (shape)")),
        strict=True,
    )
    for axes, (metric, label) in panels:
        colours = [RED if model == "GPT" else BLUE for model in _MODELS[::-1]]
        axes.barh(_MODELS[::-1], [found[metric][model] for model in _MODELS[::-1]], color=colours, height=0.6)
        axes.set_xlabel(f"mean {label}")
        axes.grid(visible=False, axis="y")
