"""Merged files of a folder: what they hold and how they are written."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.generations import KEY, merged_file

ROW_GROUP = 100_000
"""Rows of a row group; with ten thousand, whole columns take twice as long to read."""
_BATCH = 65_536
"""Values that are encoded at a time."""
FILE_ROWS = 1_000_000
"""Rows of a merged file, about 100 MB of layers."""


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` in its types, NULL where an older part has none; newer ones come after."""
    wanted, held = _wanted(table, schema), set(table.column_names)
    columns = [
        _as(table.column(field.name), field.type)
        if field.name in held
        else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns that hold a value, in the types and the order of `schema`; newer ones come after.

    A table without rows keeps all of its columns.
    """
    rows = max(table.num_rows, 1)
    columns = zip(table.column_names, table.columns, strict=True)
    held = table.select([name for name, column in columns if column.null_count < rows])
    kept = set(held.column_names)
    wanted = [field for field in _wanted(held, schema) if field.name in kept]
    if wanted == list(held.schema):
        return held
    return pa.table([_as(held.column(field.name), field.type) for field in wanted], schema=pa.schema(wanted))


def _wanted(table: pa.Table, schema: pa.Schema) -> pa.Schema:
    """The fields of `schema`, then those of the table that it lacks."""
    known = set(schema.names)
    newer = (field for field in table.schema if field.name not in known)
    return pa.schema([*schema, *newer], schema.metadata)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


class MergedFiles:
    """Writes merged files of a folder one after the other; all are durable at its end.

    The disk is at work beside the encoder: a row group is on its way there while the next one is made.
    """

    def __init__(self, place: Path, number: int = 0) -> None:
        self._place = place
        self._next = number
        self._rows = 0
        self._path = place
        self._sink: Any = None
        self._writer: Any = None
        self._disk = ThreadPoolExecutor(1)
        self._durable: list[Future[None]] = []

    def __enter__(self) -> "MergedFiles":
        return self

    def __exit__(self, *_: object) -> None:
        with self._disk:
            self._close()
        for file in self._durable:
            file.result()

    def write(self, table: pa.Table) -> None:
        """Append rows as row groups; a full file, or one that lacks one of their columns, is closed first."""
        if table.num_rows == 0:
            return
        if self._writer is not None and (self._rows >= FILE_ROWS or not _fits(table, self._writer.schema)):
            self._close()
        if self._writer is None:
            self._open(table.schema)
        rows = conformed(table, self._writer.schema)
        self._writer.write_table(rows, row_group_size=-(-rows.num_rows // max(rows.num_rows // ROW_GROUP, 1)))
        self._rows += table.num_rows
        self._durable.append(self._disk.submit(_sync, self._path))

    def _open(self, schema: pa.Schema) -> None:
        self._path = merged_file(self._place, self._next)
        self._sink = pa.OSFile(str(self._path), "wb")  # unlike Python's, written without its lock
        self._writer = pq.ParquetWriter(self._sink, schema, **_encoding(schema))
        self._next += 1
        self._rows = 0

    def _close(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        self._sink.close()
        self._durable.append(self._disk.submit(_sync, self._path))


def _sync(path: Path) -> None:
    """Wait until the disk has all that was written to a file."""
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _fits(table: pa.Table, schema: pa.Schema) -> bool:
    """Whether rows fit a file of these columns; those they lack are NULL."""
    return all(f.name in schema.names and f.type == schema.field(f.name).type for f in table.schema)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """What is cheap to write: a quarter more than zstd in a second, and a tenth more bytes.

    Floats hardly repeat, and to find that out is a third of the writer's time; integers are as small without.
    Batches of the default 1,024 values are a tenth of it. A question skips row groups by their model and by
    nothing else. A text is a text to readers, whether or not it was a dictionary here.
    """
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return {
        "compression": "lz4",
        "use_dictionary": words + [field.name for field in schema if pa.types.is_string(field.type)],
        "write_batch_size": _BATCH,
        "write_statistics": list(KEY),
        "store_schema": not words,
    }
