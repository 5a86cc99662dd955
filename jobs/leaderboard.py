"""Questions to a lake: DuckDB over its Parquet, through the views of schemas/sql."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from jobs.store import open_lake
from schemas.errors import LakeError, UsageError

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
    """SQL that opens the lake in any DuckDB client: one CREATE VIEW for each view, in order."""
    root = str(lake.resolve()).replace("'", "''")
    scans = [
        f"CREATE OR REPLACE VIEW {name} AS\n"
        f"SELECT * FROM read_parquet('{root}/{name}/*.parquet', union_by_name=true);"
        for name in TABLE_VIEWS
    ]
    derived = [f"CREATE OR REPLACE VIEW {name} AS\n{_definition(name)};" for name in SQL_VIEWS]
    return "\n\n".join([*scans, *derived]) + "\n"


def connect(lake: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake's views. Raises LakeError when there is no lake or it is damaged."""
    open_lake(lake)
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone='UTC'")
    try:
        connection.execute(view_sql(lake))
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


def _definition(name: str) -> str:
    return (files("schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8").strip()
