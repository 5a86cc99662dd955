"""The plan verb: the layers of a scanned model -> an allocation plan as YAML or JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from jobs.lake.leaderboard import ask
from jobs.lake.questions import model
from jobs.verbs.output import as_json, emit_text
from scanner.diagnosis.plans import Plan, PlanKind, make_plan
from schemas.errors import UsageError
from schemas.rows import LayerMetrics
from schemas.tables import SCHEMAS, from_table

_SHORT = {"lr": PlanKind.LEARNING_RATE, "wd": PlanKind.WEIGHT_DECAY, "prune": PlanKind.PRUNING}


def plan(
    repo_id: str,
    lake: Path,
    kind: str,
    component: str | None,
    form: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Make the plan and write it to `output` or standard output; a uniform one says why on standard error.

    Raises UsageError when the model, its component or the alpha column is not in the lake.
    """
    rows = layer_rows(lake, repo_id, component)
    made = make_plan(rows, _SHORT.get(kind) or PlanKind(kind), **options)
    form = form or ("json" if output is not None and output.suffix == ".json" else "yaml")
    emit_text(render(document(made, rows), form), output)
    if made.reason:
        click.echo(f"uniform plan: {made.reason}", err=True)


def layer_rows(lake: Path, repo_id: str, component: str | None = None) -> list[LayerMetrics]:
    """Rows of the latest scan of a repository, of one sub-model where it has several.

    Raises UsageError if the repository or the component is not there, or a component must be named.
    """
    latest = model(lake, repo_id)
    query = "SELECT * FROM layers WHERE repo_id = ? AND revision = ? AND config_fingerprint = ?"
    table = ask(lake, query, [repo_id, latest["revision"], latest["config_fingerprint"]])
    known = [name for name in SCHEMAS["layers"].names if name in table.column_names]
    rows: list[LayerMetrics] = list(from_table("layers", table.select(known)))
    present = sorted({row.component for row in rows if row.component is not None})
    if component is not None and component not in present:
        raise UsageError(f"{repo_id} has no component {component}; it has {', '.join(present) or 'none'}")
    if component is None and len({row.component for row in rows}) > 1:
        raise UsageError(f"{repo_id} has several sub-models: choose one with --component {'|'.join(present)}")
    return [row for row in rows if component is None or row.component == component]


def document(made: Plan, rows: list[LayerMetrics]) -> dict[str, Any]:
    """A plan as plain values, with the repository and commit it is of."""
    of = {"repo_id": rows[0].repo_id, "revision": rows[0].revision} if rows else {}
    return {key: _plain(value) for key, value in {**of, **asdict(made)}.items()}


def render(content: dict[str, Any], form: str) -> str:
    """Text of a document as yaml or json, keys in their order."""
    if form == "json":
        return as_json(content)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def _plain(value: Any) -> Any:
    """Lists for tuples and text for enumerations, which YAML does not write safely otherwise."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
