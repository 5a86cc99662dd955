"""`hubspectra correlate`: brings metric, score and stratum of every model together, and tells the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.lake.leaderboard import ask
from jobs.verbs.scores import ScoreTable, card_score, no_such, read_csv
from scanner.diagnosis.correlation import WITHIN_MIN, CorrelationReport, correlate
from scanner.text import printable
from schemas.columns import columns
from schemas.errors import UsageError
from schemas.models import ModelMetrics

DEFAULT_STRATUM = "stratum_key"
CSV_STRATUM = "stratum"

_NUMBERS = ("int32", "int64", "float32", "float64")
_MODELS = columns(ModelMetrics)
_METRICS = [name for name, about in _MODELS.items() if about["arrow"] in _NUMBERS]
_GROUPS = [name for name, about in _MODELS.items() if about["arrow"] in ("string", *_NUMBERS)]

_STATISTICS = ("tau", "tau_p", "rho", "rho_p", "slope", "r2", "rmse")
_FIELDS = [
    pa.field("scope", pa.string()),
    pa.field("stratum", pa.string()),
    pa.field("n", pa.int64()),
    *(pa.field(name, pa.float64()) for name in _STATISTICS),
    pa.field("tau_low", pa.float64()),
    pa.field("tau_high", pa.float64()),
    pa.field("sign_agreement", pa.float64()),
    pa.field("global_order", pa.bool_()),
    pa.field("verdict", pa.string()),
]
_BRIEF = ("stratum", "n", *_STATISTICS)


@dataclass(frozen=True, slots=True)
class Observations:
    """Models as three columns of equal length, and what the score is called."""

    metric: list[float | None]
    score: list[float | None]
    strata: list[str | None]
    score_name: str


def answer(
    metric: str,
    score: str,
    lake: Path,
    csv_file: Path | None,
    by: str | None,
    lower_is_better: bool,
    brief: bool,
) -> tuple[pa.Table, str]:
    """The table and the verdict of one question. Raises UsageError when it cannot be asked."""
    models = observe(metric, score, lake, csv_file, by)
    found = report(models, lower_is_better)
    sentence = verdict(found, metric, models.score_name, lower_is_better)
    return as_table(found, sentence, brief), sentence


def observe(metric: str, score: str, lake: Path, csv: Path | None, by: str | None) -> Observations:
    """Collect the models that have a metric or a score.

    A CSV with both columns needs no lake; one with scores alone is joined to the lake by its column repo_id
    or model; without a CSV the scores are those of the model cards. Of each model in the lake the latest
    scan counts, and none whose repository holds several. Raises UsageError.
    """
    if csv is None:
        return _of_cards(metric, score, lake, by)
    table = read_csv(csv)
    if metric in table.columns:
        return _of_csv(metric, score, table, by)
    return _of_both(metric, score, lake, table, by)


def report(observations: Observations, lower_is_better: bool) -> CorrelationReport:
    """Correlate; a score of which less is better is negated, so that more is always better."""
    sign = -1.0 if lower_is_better else 1.0
    score = [None if value is None else sign * value for value in observations.score]
    return correlate(observations.metric, score, observations.strata)


def as_table(found: CorrelationReport, sentence: str, brief: bool) -> pa.Table:
    """The strata, then all of them within and pooled; `brief` keeps what fits a terminal."""
    low, high = found.tau_interval or (None, None)
    rows: list[dict[str, Any]] = [
        {"scope": "stratum", "stratum": s.name, "n": s.n} | {name: getattr(s, name) for name in _STATISTICS}
        for s in found.strata
    ]
    rows.append(
        {
            "scope": "within",
            "stratum": f"(within strata of {WITHIN_MIN} or more)" if brief else None,
            "n": sum(s.n for s in found.strata if s.n >= WITHIN_MIN and s.tau is not None),
            "tau": found.tau_within,
            "rho": found.rho_within,
            "slope": found.slope,
            "r2": found.r2,
            "tau_low": low,
            "tau_high": high,
            "sign_agreement": found.sign_agreement,
            "global_order": found.global_order,
            "verdict": sentence,
        }
    )
    pooled = {"scope": "pooled", "stratum": "(all together)" if brief else None, "n": found.n}
    rows.append(pooled | {"tau": found.tau_pooled, "rho": found.rho_pooled})
    table = pa.Table.from_pylist(rows, schema=pa.schema(_FIELDS))
    return table.select(_BRIEF) if brief else table


def verdict(found: CorrelationReport, metric: str, score: str, lower_is_better: bool) -> str:
    """What the report allows to be said, in one or two sentences."""
    better = f"{'lower' if lower_is_better else 'higher'} {score}"
    if found.global_order:
        direction = "higher" if (found.tau_within or 0) > 0 else "lower"
        said = f"{direction} {metric} goes with {better}: {found.reason}"
    else:
        said = f"No one order of all models by {metric}: {found.reason}"
    return printable(f"{said}. {_evidence(found)}.")


def _evidence(found: CorrelationReport) -> str:
    left_out = f"{found.num_left_out} left out for want of metric, score or stratum"
    models = f"{found.n} models" + (f", {left_out}" if found.num_left_out else "")
    if found.tau_within is None or found.tau_pooled is None:
        return models
    within = f"tau {found.tau_within:+.2f} within strata"
    if found.tau_interval:
        low, high = found.tau_interval
        zero = ", which includes 0" if low <= 0 <= high else ""
        within += f" (95 % interval {low:+.2f} to {high:+.2f}{zero})"
    return f"{within}, {found.tau_pooled:+.2f} pooled; {models}"


def _of_csv(metric: str, score: str, table: ScoreTable, by: str | None) -> Observations:
    if by is None and CSV_STRATUM not in table.columns:
        raise UsageError(
            f"say with --by which column of {table.path} tells comparable models apart (family, depth, "
            f"data): it has no column {CSV_STRATUM}"
        )
    strata = table.texts(by or CSV_STRATUM)
    return Observations(table.numbers(metric), table.numbers(score), strata, score)


def _of_cards(metric: str, score: str, lake: Path, by: str | None) -> Observations:
    _known_column(metric, by)
    name = card_score(lake, score)
    rows = _models(lake, metric, by or DEFAULT_STRATUM, name)
    return Observations(
        [row["metric"] for row in rows],
        [row["score"] for row in rows],
        [row["stratum"] for row in rows],
        name,
    )


def _of_both(metric: str, score: str, lake: Path, table: ScoreTable, by: str | None) -> Observations:
    own = by if by in table.columns else None
    if by is None and CSV_STRATUM in table.columns:
        own = CSV_STRATUM
    if metric not in _METRICS:
        raise no_such(f"column in {table.path} or metric of models", metric, [*table.columns, *_METRICS])
    _known_column(metric, None if own else by)
    names, scores = table.ids(), table.numbers(score)
    strata = table.texts(own) if own else None
    rows = {row["repo_id"]: row for row in _models(lake, metric, by if by and not own else DEFAULT_STRATUM)}
    if not any(name in rows for name in names):
        example = ascii(next(iter(rows), "nothing"))
        raise UsageError(f"no model of {table.path} is in the lake, which has {example}: name them alike")
    found = [rows.get(name or "", {}) for name in names]
    return Observations(
        [row.get("metric") for row in found],
        scores,
        strata if strata is not None else [row.get("stratum") for row in found],
        score,
    )


def _known_column(metric: str, by: str | None) -> None:
    if metric not in _METRICS:
        raise no_such("metric of models", metric, _METRICS)
    if by is not None and by not in _GROUPS:
        raise no_such("column of models", by, _GROUPS)


def _models(lake: Path, metric: str, by: str, score: str | None = None) -> list[dict[str, Any]]:
    """Latest scans: repo_id, metric, stratum, score; a repository of several models has no metric."""
    value = "NULL" if score is None else "list_extract(map_extract(r.scores, ?), 1)"
    query = (
        f"SELECT m.repo_id, coalesce(m.\"{by}\"::VARCHAR, '?') AS stratum, {value} AS score, "
        f'CASE WHEN count(*) OVER (PARTITION BY m.repo_id) = 1 THEN m."{metric}"::DOUBLE END AS metric '
        "FROM models AS m JOIN repositories AS r "
        "ON r.repo_id = m.repo_id AND r.revision = m.revision "
        "AND r.component IS NOT DISTINCT FROM m.component AND r.config_fingerprint = m.config_fingerprint "
        "WHERE m.stratum_n IS NOT NULL ORDER BY m.repo_id, m.component"
    )
    rows: list[dict[str, Any]] = ask(lake, query, [] if score is None else [score]).to_pylist()
    return rows
