"""Questions to a lake: DuckDB over its Parquet, through the views of schemas/sql."""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from jobs.lake import snapshot
from jobs.lake.duck import fresh
from jobs.lake.generations import EMPTY, PART_KEY, folder, open_lake, read_marker
from schemas.errors import LakeError, UsageError
from schemas.tables import SCHEMAS

if TYPE_CHECKING:
    from jobs.lake.store import Store

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


_VIEWS = (*TABLE_VIEWS, *SQL_VIEWS)

_SOURCE = re.compile(r'\b(?:from|join)\s+[\s(]*(?:main\.)?"?(\w+)', re.IGNORECASE)
_CATALOGUE = re.compile(
    r"^\s*desc\b|\b(show|describe|export|information_schema|pragma|(pragma|duckdb|pg|sqlite)_\w+)\b",
    re.IGNORECASE,
)
"""Words of queries that may ask which views there are."""


def view_sql(lake: Path) -> str:
    """SQL that opens the lake in any DuckDB client: one CREATE VIEW for each view, in order.

    The views read the generation of parts that is live now. After a compaction they answer as of then, and
    once the parts that it replaced are removed, with an error.
    """
    with fresh() as connection:
        return _views(_queries(lake, _VIEWS, connection))


def connect(lake: Path, query: str | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake's views; given a query, with those that it names after FROM or JOIN.

    To define a view is to open what it reads: all of them are most of the time of a small question. Raises
    LakeError when there is no lake or it is damaged.
    """
    open_lake(lake)
    connection = fresh()
    try:
        connection.execute("SET parquet_metadata_cache=true")  # every view looks at the same footers
        wanted = _wanted(query)
        stored = "models" in _closed(wanted) and snapshot.is_current(lake, connection)
        queries = _queries(lake, _closed(wanted, ("models",) if stored else ()), connection)
        if stored:
            queries["models"] = f"SELECT * FROM read_parquet({_quoted(snapshot.place(lake))})"
        connection.execute(_views(queries))
        connection.execute("SET parquet_metadata_cache=false")  # a part may be replaced under its name
    except duckdb.Error as error:
        raise LakeError(f"lake {lake} is damaged: {error}") from error
    return connection


def ask(lake: Path, query: str, parameters: list[Any] | None = None, *, renew: bool = True) -> Any:
    """Arrow table of the answer. Raises UsageError with DuckDB's own words when the query is wrong.

    The first question about models to a large lake whose snapshot is stale renews it, unless told not to.
    """
    try:
        if renew and not _CATALOGUE.search(query) and "models" in _closed(_wanted(query)):
            _renew(lake)
        try:
            return _answer(connect(lake, query), query, parameters)
        except duckdb.CatalogException:  # perhaps a view that is named in another way
            return _answer(connect(lake), query, parameters)
    except duckdb.Error as error:
        raise UsageError(f"SQL: {error}") from error


def save_snapshot(store: "Store") -> None:
    """Bring the snapshot of the models up to what the lake holds now. Only the writer of the lake may."""
    live_set = snapshot.live_set(store.path)
    if snapshot.stamp(store.path) != live_set:
        snapshot.save(store.path, ask(store.path, "SELECT * FROM models", renew=False), live_set)


def _renew(lake: Path) -> None:
    open_lake(lake)
    if snapshot.is_worth_it(lake) and not snapshot.is_current(lake):
        live_set = snapshot.live_set(lake)
        with suppress(LakeError):  # the question is answered all the same
            snapshot.save(lake, ask(lake, "SELECT * FROM models", renew=False), live_set)


def _answer(connection: duckdb.DuckDBPyConnection, query: str, parameters: list[Any] | None) -> Any:
    with connection:
        answer = connection.sql(query, params=parameters or [])
        if answer is None:
            raise UsageError("SQL: the query has no answer; give a SELECT")
        return answer.to_arrow_table()


def _wanted(query: str | None) -> set[str]:
    """The views a query names; all of them where it may ask for their list."""
    if query is None or _CATALOGUE.search(query):
        return set(_VIEWS)
    return {name.lower() for name in _SOURCE.findall(query)} & set(_VIEWS)


def _closed(wanted: Collection[str], stored: Collection[str] = ()) -> list[str]:
    """Views with all that they read, in order; a stored one reads none."""
    needed = set(wanted)
    for place, name in reversed(list(enumerate(_VIEWS))):
        if name in needed and name in SQL_VIEWS and name not in stored:
            needed.update(set(re.findall(r"\w+", definition(name))) & set(_VIEWS[:place]))
    return [name for name in _VIEWS if name in needed]


def _queries(lake: Path, names: Collection[str], connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    _, generation = read_marker(lake)
    return {
        name: _scan(lake, name, generation, connection) if name in TABLE_VIEWS else definition(name)
        for name in names
    }


def _views(queries: dict[str, str]) -> str:
    return "\n\n".join(f"CREATE OR REPLACE VIEW {name} AS\n{sql};" for name, sql in queries.items()) + "\n"


def _scan(lake: Path, table: str, generation: int, connection: duckdb.DuckDBPyConnection) -> str:
    """The live rows of a table. The empty part is named beside all parts since it is removed before them."""
    place = folder(lake.resolve(), table, generation)
    parts = f"[{_quoted(place / EMPTY)}, {_quoted(place / '*.parquet')}]"
    rows = f"SELECT * FROM read_parquet({parts}, union_by_name=true)"
    if table == "failures" and generation:
        rows = _OVERRIDDEN.format(parts=parts, part_key=PART_KEY)
    later = ", ".join(_later(place / EMPTY, table, connection))
    return f"{rows}\nUNION ALL BY NAME SELECT {later} WHERE false" if later else rows


def _later(empty: Path, table: str, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Columns that this version has and the one that made the folder had not: NULL in its rows."""
    try:
        there = set(connection.read_parquet(str(empty)).columns)
    except duckdb.Error:
        return
    if missing := [name for name in SCHEMAS[table].names if name not in there]:
        typed = connection.from_arrow(SCHEMAS[table].empty_table().select(missing))
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


@cache
def definition(name: str) -> str:
    """The query behind one of SQL_VIEWS, with the comment that says what it answers."""
    return (files("schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8").strip()
