"""A DuckDB for one question: in memory, in UTC, and silent."""

import duckdb


def fresh(threads: int = 2) -> duckdb.DuckDBPyConnection:
    """A new connection; its progress bar is off, since it would be written among the answers.

    A table it does not have is an error, never a variable of the caller that has the same name.
    """
    connection = duckdb.connect(config={"threads": threads, "python_enable_replacements": False})
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET enable_progress_bar=false")
    return connection
