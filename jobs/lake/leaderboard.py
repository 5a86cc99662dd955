"""Questions to a lake: DuckDB over its Parquet, through the views of schemas/sql."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake import snapshot
from jobs.lake.duck import fresh
from jobs.lake.generations import EMPTY, folder, read_marker
from jobs.lake.store import PART_KEY, Store, open_lake
from schemas.errors import LakeError, UsageError
from schemas.tables import SCHEMAS

TABLE_VIEWS = ("layers", "repositories", "failures", "runs")
SQL_VIEWS = (
    "configs",
    "strata",
    "anomalies",
    "models",
    "leaderboard",
    "flags",
    "fine_tunes",
    "history",
    "universality",
    "load_temperature",
    "correlation_flow",
    "weightwatcher",
    "nlp_metrics",
)
"""In the order of their definition: a view may read those before it."""


def view_sql(lake: Path) -> str:
    """SQL that opens the lake in any DuckDB client: one CREATE VIEW for each view, in order.

    The views read the generation of parts that is live now. After a compaction they answer as of then, and
    once the parts that it replaced are removed, with an error.
    """
    _, generation = read_marker(lake)
    scans = {name: _scan(lake, name, generation) for name in TABLE_VIEWS}
    return _views(scans | {name: definition(name) for name in SQL_VIEWS})


def connect(lake: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake's views. Raises LakeError when there is no lake or it is damaged."""
    open_lake(lake)
    connection = fresh()
    try:
        connection.execute("SET parquet_metadata_cache=true")  # every view looks at the same footers
        connection.execute(view_sql(lake))
        if snapshot.is_current(lake):
            stored = f"SELECT * FROM read_parquet({_quoted(snapshot.place(lake))})"
            connection.execute(_views({"models": stored}))
        connection.execute("SET parquet_metadata_cache=false")  # a part may be replaced under its name
    except duckdb.Error as error:
        raise LakeError(f"lake {lake} is damaged: {error}") from error
    return connection


def ask(lake: Path, query: str, parameters: list[Any] | None = None) -> Any:
    """Arrow table of the answer. Raises UsageError with DuckDB's own words when the query is wrong."""
    with connect(lake) as connection:
        try:
            answer = connection.sql(query, params=parameters or [])
            if answer is None:
                raise UsageError("SQL: the query has no answer; give a SELECT")
            return answer.to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(f"SQL: {error}") from error


def save_snapshot(store: Store) -> None:
    """Bring the snapshot of the models up to what the lake holds now. Only the writer of the lake may."""
    live_set = snapshot.live_set(store.path)
    if snapshot.stamp(store.path) != live_set:
        store.save_models(ask(store.path, "SELECT * FROM models"), live_set)


def _views(queries: dict[str, str]) -> str:
    return "\n\n".join(f"CREATE OR REPLACE VIEW {name} AS\n{sql};" for name, sql in queries.items()) + "\n"


def _scan(lake: Path, table: str, generation: int) -> str:
    """The live rows of a table. The empty part is named beside all parts since it is removed before them."""
    place = folder(lake.resolve(), table, generation)
    parts = f"[{_quoted(place / EMPTY)}, {_quoted(place / '*.parquet')}]"
    rows = f"SELECT * FROM read_parquet({parts}, union_by_name=true)"
    if table == "failures" and generation:
        rows = _OVERRIDDEN.format(parts=parts, part_key=PART_KEY)
    later = ", ".join(_later(place / EMPTY, table))
    return f"{rows}\nUNION ALL BY NAME SELECT {later} WHERE false" if later else rows


def _later(empty: Path, table: str) -> Iterator[str]:
    """Columns that this version has and the one that made the folder had not: NULL in its rows."""
    try:
        there = set(pq.read_schema(empty).names)
    except (OSError, pa.ArrowException):
        return
    if missing := [name for name in SCHEMAS[table].names if name not in there]:
        typed = duckdb.from_arrow(SCHEMAS[table].empty_table().select(missing))
        yield from (f"NULL::{kind} AS {name}" for name, kind in zip(typed.columns, typed.types, strict=True))


_OVERRIDDEN = """WITH parts AS MATERIALIZED (
    SELECT *, regexp_extract(filename, '([^/]*)\\.parquet$', 1) AS part
    FROM read_parquet({parts}, union_by_name=true, filename=true)
)
SELECT * EXCLUDE (filename, part, {part_key}) FROM parts
WHERE {part_key} IS NULL OR {part_key} NOT IN (SELECT part FROM parts WHERE {part_key} IS NULL)"""
"""Merged failures but those of a part written again since; one listing of the folder tells both."""


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def definition(name: str) -> str:
    """The query behind one of SQL_VIEWS, with the comment that says what it answers."""
    return (files("schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8").strip()
