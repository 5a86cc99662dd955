"""Published tables read again: what the models of a paper say in strata, and an average that cannot be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GOLD, GREEN, RED
from jobs.studies.reference import Rows, published
from jobs.studies.study import Check, Figure, Outcome, Study, Table, near, same
from scanner.diagnosis.correlation import CorrelationReport, correlate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_SERIES = {"vgg": "VGG", "densenet": "DenseNet", "resnet": "ResNet", "ResNet-1K": "ResNet-1K"}
_MEASURES = ("tau_pooled", "tau_within", "sign_agreement", "slope", "r2")

# Kendall's tau of VGG, DenseNet, ResNet and ResNet-1K; then _MEASURES
_TAUS = {
    "alpha": (0.86, 0.00, -0.60, -0.08, 0.14, 0.07, 0.50, -0.89, 0.00),
    "alpha_hat": (-0.93, -1, -1, -0.89, -0.63, -0.92, 1, -4.91, 0.87),
    "log_norm_F": (-0.79, -1, -1, -0.77, -0.55, -0.81, 1, -35.3, 0.75),
    "log_spectral_norm": (-0.93, -1, -1, -0.86, -0.61, -0.90, 1, -16.2, 0.86),
    "log_alpha_norm": (-0.93, -1, -1, -0.88, -0.63, -0.91, 1, -5.20, 0.86),
}
_LINES = {"VGG": (0.48, 0.92), "DenseNet": (0.16, 0.98), "ResNet": (0.61, 0.96), "ResNet-1K": (1.90, 0.87)}
_NORM, _SPECTRAL = "log_norm(<log||W||_F^2>)", "log_spectral_norm(<log||W||_inf^2>)"
# true means over the 27 series: R^2, Kendall, RMSE
_MEANS = {
    _NORM: (0.663, 0.652, 1.38),
    _SPECTRAL: (0.594, 0.518, 1.83),
    "alpha_hat": (0.680, 0.642, 1.24),
    "log_alpha_norm": (0.681, 0.638, 1.18),
}
_TABLES = {"S_R2": "R2", "S_Ktau": "Kendall", "S_RMSE": "RMSE"}
_SUMMARY = "T3_summary(IMPOSSIBLE:R2>1)"


def strata(quick: bool) -> Outcome:
    """Correlate the metrics of 36 published models with their accuracy, pooled and within their series."""
    del quick
    rows = published("trends_permodel.csv")
    found = {metric: _correlated(rows, metric) for metric in _TAUS}
    checks = [check for metric, report in found.items() for check in _tau_checks(metric, report)]
    checks += _line_checks(found["alpha_hat"])
    shape, scale = found["alpha"], found["alpha_hat"]
    return Outcome(
        got=f"alpha-hat: tau {scale.tau_within:+.2f} within, {scale.tau_pooled:+.2f} pooled; alpha: "
        f"{shape.tau_within:+.2f}, signs agree in {shape.sign_agreement:.0%} of the strata",
        checks=tuple(checks),
        figures=(
            Figure(
                name="strata",
                caption="The published models: the scale metric alpha-hat orders each series and the shape "
                "metric alpha does not.",
                draw=partial(_draw_strata, rows),
            ),
        ),
        tables=(_tau_table(found),),
    )


def averages(quick: bool) -> Outcome:
    """Take the published means over 27 series again, and find where the impossible one comes from."""
    del quick
    rows = published("published_tables.csv")
    checks = [check for metric in _MEANS for check in _mean_checks(rows, metric)]
    described = _series(rows, "S_R2", "alpha_hat")
    wrong = _mean_of_a_description(described)
    printed = float(
        next(
            r["value"]
            for r in rows
            if (r["table"], r["metric"], r["stat"]) == (_SUMMARY, "alpha_hat", "R2_mean")
        )
    )
    checks.append(
        near("published mean R^2 of alpha_hat, remade by the mistake", wrong, printed, 0.06, "NatCom Table 3")
    )
    return Outcome(
        got=f"mean R^2 of alpha-hat {np.mean(described):.3f}, not {printed:g}; averaging a describe() gives "
        f"{wrong:.2f}",
        checks=tuple(checks),
        figures=(
            Figure(
                name="averages",
                caption="Means over the 27 series of the paper, taken again: regressions of accuracy on "
                "each metric.",
                draw=partial(_draw_averages, rows),
                height=2.8,
            ),
        ),
    )


def shares(quick: bool) -> Outcome:
    """Count the alphas of 40 published models in [2, 4] and [1.5, 5]."""
    del quick
    rows = published("trends_permodel.csv")
    layers = np.array([int(row["n"]) for row in rows])
    found = {
        column: float(np.average([float(row[column]) for row in rows], weights=layers))
        for column in ("frac24", "frac_lt2", "frac_15_5")
    }
    checks = (
        same("models", len(rows), 40),
        same("matrices", int(layers.sum()), 6993),
        near("share of alphas in [2, 4]", found["frac24"], 0.567, 0.001),
        near("share below 2", found["frac_lt2"], 0.191, 0.001),
        near("share in [1.5, 5]", found["frac_15_5"], 0.884, 0.001),
    )
    return Outcome(
        got=f"{found['frac24']:.1%} in [2, 4], {found['frac_lt2']:.1%} below 2, {found['frac_15_5']:.1%} in "
        "[1.5, 5]",
        checks=checks,
        figures=(
            Figure(
                name="shares",
                caption="Share of each published model's alphas in [2, 4] and in [1.5, 5].",
                draw=partial(_draw_shares, rows),
                height=3.0,
            ),
        ),
    )


STRATA = Study(
    id="V10a",
    name="published-strata",
    question="The paper's own 36 models with accuracies (VGG, DenseNet, ResNet, ResNet-1K): do its metrics "
    "order them, pooled and inside each series?",
    expected="alpha-hat: tau -.92 within, -.63 pooled; alpha: +.07 and signs that disagree",
    meaning="Inside one architecture a scale metric (alpha-hat, log norms) orders models by accuracy very "
    "well; across architectures part of that is lost, and mean alpha orders nothing here. That is why "
    "hubspectra ranks inside strata only and `hubspectra correlate` refuses a global order when signs "
    "disagree.",
    run=strata,
    quick=True,
)

AVERAGES = Study(
    id="V10b",
    name="published-averages",
    question="A published summary gives a mean R^2 of 3.9, which no R^2 can be. What are the means, and "
    "where does 3.9 come from?",
    expected="R^2 .663, .594, .680, .681; Kendall .652, .518, .642, .638",
    meaning="The published 3.9 is the mean of a summary table, its count of 27 included. With the true means "
    "alpha-hat is no better than the plain Frobenius norm: expect no more of it in a leaderboard.",
    run=averages,
    quick=True,
)

SHARES = Study(
    id="V10c",
    name="published-shares",
    question="Do 80 to 90 % of the alphas of well-trained models lie in [2, 4], as is said?",
    expected="56.7 % in [2, 4], 19.1 % below 2, 88.4 % in [1.5, 5]",
    meaning="An alpha outside [2, 4] is common in good models, so hubspectra prints `frac_15_5` beside "
    "`frac_2_4` and flags by stricter rules.",
    run=shares,
    quick=True,
)


def _correlated(rows: Rows, metric: str) -> CorrelationReport:
    accuracy = [100 - float(row["top1_err"]) if row["top1_err"] else None for row in rows]
    return correlate([float(row[metric]) for row in rows], accuracy, [row["series"] for row in rows])


def _tau_checks(metric: str, report: CorrelationReport) -> list[Check]:
    taus = {_SERIES[stratum.name]: stratum.tau for stratum in report.strata}
    got = [*(taus[name] for name in _SERIES.values()), *(getattr(report, name) for name in _MEASURES)]
    names = [*(f"tau {name}" for name in _SERIES.values()), *_MEASURES]
    return [
        near(f"{metric}: {name}", value, expected, 0.05 if abs(expected) > 10 else 0.01)
        for name, value, expected in zip(names, got, _TAUS[metric], strict=True)
    ]


def _line_checks(report: CorrelationReport) -> list[Check]:
    checks = []
    for stratum in report.strata:
        name = _SERIES[stratum.name]
        rmse, r2 = _LINES[name]
        source = "recomputed" if name == "ResNet-1K" else "NatCom Table 1"
        checks.append(near(f"alpha_hat: RMSE of the line, {name}", stratum.rmse, rmse, 0.01, source))
        checks.append(near(f"alpha_hat: R^2 of the line, {name}", stratum.r2, r2, 0.01, source))
    return checks


def _tau_table(found: Mapping[str, CorrelationReport]) -> Table:
    head = ("metric", *_SERIES.values(), "pooled", "within", "95 % interval", "one order of all?")
    rows = []
    for metric, report in found.items():
        taus = {_SERIES[s.name]: f"{s.tau:+.2f}" for s in report.strata if s.tau is not None}
        low, high = report.tau_interval or (np.nan, np.nan)
        pooled, within = f"{report.tau_pooled:+.2f}", f"{report.tau_within:+.2f}"
        order = "yes" if report.global_order else "no"
        rows.append(
            (
                metric,
                *(taus[n] for n in _SERIES.values()),
                pooled,
                within,
                f"{low:+.2f} .. {high:+.2f}",
                order,
            )
        )
    return Table(caption="Kendall's tau with accuracy:", head=head, rows=tuple(rows))


def _series(rows: Rows, table: str, metric: str) -> list[float]:
    return [float(r["value"]) for r in rows if (r["table"], r["metric"]) == (table, metric)]


def _mean_checks(rows: Rows, metric: str) -> list[Check]:
    checks = []
    for (table, stat), expected in zip(_TABLES.items(), _MEANS[metric], strict=True):
        values = _series(rows, table, metric)
        checks.append(near(f"{metric}: mean {stat} of {len(values)}", float(np.mean(values)), expected, 0.01))
    return checks


def _mean_of_a_description(values: Sequence[float]) -> float:
    """Mean over count, mean, deviation, minimum, quartiles and maximum, taken as if they were the sample."""
    quartiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    return float(np.mean([len(values), np.mean(values), np.std(values, ddof=1), *quartiles]))


def _draw_strata(rows: Rows, canvas: Canvas) -> None:
    panels = (("alpha_hat", "alpha-hat, mean alpha log10 lambda_max"), ("alpha", "mean alpha"))
    for axes, (metric, label) in zip(canvas.subplots(1, 2, sharey=True), panels, strict=True):
        members: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            if row["top1_err"]:
                members[_SERIES[row["series"]]].append((float(row[metric]), 100 - float(row["top1_err"])))
        for (name, points), colour, mark in zip(
            members.items(), (GREEN, BLUE, RED, GOLD), "^oDs", strict=True
        ):
            axes.plot(*zip(*points, strict=True), mark, color=colour, label=name)
        axes.set_xlabel(label)
    canvas.axes[0].set_ylabel("top-1 accuracy, %")
    canvas.axes[0].legend()


def _draw_averages(rows: Rows, canvas: Canvas) -> None:
    names = ["Frobenius norm", "spectral norm", "alpha-hat", "alpha norm"]
    labels = ("mean R²", "mean tau (sign turned)", "mean RMSE, % accuracy")
    panels = zip(canvas.subplots(1, 3, sharey=True), _TABLES, labels, strict=True)
    for axes, table, label in panels:
        means = [float(np.mean(_series(rows, table, metric))) for metric in _MEANS]
        axes.barh(names[::-1], means[::-1], color=BLUE, height=0.6)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")


def _draw_shares(rows: Rows, canvas: Canvas) -> None:
    axes = canvas.subplots()
    ordered = sorted(rows, key=lambda row: float(row["frac24"]))
    for column, colour, mark, label in (("frac24", RED, "o", "[2, 4]"), ("frac_15_5", BLUE, "s", "[1.5, 5]")):
        axes.plot(
            [100 * float(row[column]) for row in ordered], mark, color=colour, label=f"alpha in {label}"
        )
    axes.axhspan(80, 90, color="#dddddd", label="what is said of [2, 4]")
    axes.set(xlabel="40 published models, by share in [2, 4]", ylabel="share of matrices, %", ylim=(0, 101))
    axes.legend(loc="lower right")
