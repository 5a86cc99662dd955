"""Which tables and views a lake has, what each answers and its columns, told without a lake."""

import re

import pyarrow as pa

from jobs.lake.duck import fresh
from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS, definition
from schemas.columns import columns
from schemas.errors import UsageError
from schemas.tables import SCHEMAS, TABLES, reference

_SENTENCE_ENDS = re.compile(r"(?<=\.)\s+(?=[A-Z])")
NAMES = tuple(dict.fromkeys((*TABLES, *SQL_VIEWS)))


def catalogue() -> pa.Table:
    """Every table and view, and in a sentence what it answers."""
    return pa.Table.from_pylist(
        [
            {
                "name": name,
                "kind": "table" if name in TABLE_VIEWS else "view",
                "answers": _SENTENCE_ENDS.split(answers(name))[0],
            }
            for name in NAMES
        ]
    )


def answers(name: str) -> str:
    """What a row of the table or view `name` is, in the words that declare it."""
    if name in TABLES:
        text = (TABLES[name].__doc__ or "").partition("\n\n")[0]
    else:
        lines = definition(name).splitlines()
        comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("--"))]
        text = " ".join(line.removeprefix("--") for line in comment)
    return " ".join(text.split())


def described(name: str) -> pa.Table:
    """Columns of a table (type, unit and range, what NULL means) or of a view (type).

    Raises UsageError for a name that is neither.
    """
    if name in TABLES:
        return reference(name)
    if name not in NAMES:
        raise UsageError(f"no table or view {name!r}; there are {', '.join(NAMES)}")
    return pa.Table.from_pylist(_columns_of_view(name))


def _columns_of_view(name: str) -> list[dict[str, str]]:
    """Columns as DuckDB tells them of a lake without rows, their types named as those of tables are."""
    with fresh() as connection:
        for table in TABLE_VIEWS:
            connection.register(table, SCHEMAS[table].empty_table())
        for view in SQL_VIEWS:
            connection.execute(f"CREATE VIEW {view} AS {definition(view)}")

        def told(of: str) -> dict[str, str]:
            return {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {of}").fetchall()}

        declared = {
            kind: columns(TABLES[table])[column]["arrow"]
            for table in TABLES
            for column, kind in told(table).items()
        }
        return [{"column": column, "type": declared.get(kind, kind)} for column, kind in told(name).items()]
