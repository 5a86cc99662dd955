"""A DuckDB for one question: in memory, in UTC, and silent."""

import duckdb


def fresh() -> duckdb.DuckDBPyConnection:
    """A new connection; its progress bar is off, since it would be written among the answers."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET enable_progress_bar=false")
    return connection
