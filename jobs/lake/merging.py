"""The rows of many parts and merged files of `layers` -> merged files sorted by model, as a stream."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.duck import fresh
from jobs.lake.generations import KEY, merged_file
from schemas.errors import LakeError
from schemas.tables import SCHEMAS

Key = tuple[str, str, str]
"""repo_id, revision, config_fingerprint."""

ROW_GROUP = 100_000
"""Rows of a row group; with ten thousand, whole columns take twice as long to read."""
FILE_ROWS = 1_000_000
"""Rows of a merged file, about 100 MB of layers."""
_BATCH = 32_768
"""Rows of a merged file that are decoded at a time; smaller and larger ones cost as much."""
_READERS = 2
"""Threads that decode small parts; each has a DuckDB of one thread, since more in one wait for each other."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one model: `rows` of them in a part of its own, or in turn in a merged file."""

    key: Key
    path: Path
    rows: int
    merged: bool = False


def read_parts(paths: Sequence[Path], named: str | None = None) -> pa.Table:
    """All rows of small parts in the order given; a column `named` tells the part's name without suffix.

    By DuckDB, whose threads do not wait for each other as pyarrow's do on small files of many columns. Raises
    LakeError for a damaged part.
    """
    half = -(-len(paths) // _READERS)
    with ThreadPoolExecutor(_READERS) as readers:
        tables = readers.map(_read, (paths[i : i + half] for i in range(0, len(paths), half)), repeat(named))
        return pa.concat_tables(tables, promote_options="default")


def _read(paths: Sequence[Path], named: str | None) -> pa.Table:
    name = "" if named is None else f", regexp_extract(filename, '([^/]*)\\.parquet$', 1) AS {named}"
    query = f"SELECT * EXCLUDE filename{name} FROM read_parquet(?, union_by_name=true, filename=true)"
    with fresh(threads=1) as connection:
        try:
            return connection.sql(query, params=[[str(path) for path in paths]]).to_arrow_table()
        except duckdb.Error as error:
            raise LakeError(f"cannot read the parts to merge: {error}") from error


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` in its types, NULL where an older part has none; newer ones come after."""
    newer = [field for field in table.schema if field.name not in schema.names]
    wanted = pa.schema([*schema, *newer], metadata=schema.metadata)
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns that hold a value, in the types and the order of `schema`; newer ones come after.

    A table without rows keeps all of its columns.
    """
    rows = max(table.num_rows, 1)
    held = {name for name in table.column_names if table.column(name).null_count < rows}
    newer = (field for field in table.schema if field.name not in schema.names)
    kept = pa.schema([field for field in (*schema, *newer) if field.name in held], metadata=schema.metadata)
    return pa.table([table.column(field.name).cast(field.type) for field in kept], schema=kept)


def pieces_of(path: Path) -> list[Piece]:
    """The models of a merged file, in its order."""
    table = pq.read_table(path, columns=list(KEY))
    starts = _run_starts(table)
    lengths = np.diff([*starts, table.num_rows]).tolist()
    return [Piece(key, path, n, merged=True) for key, n in zip(_keys_at(table, starts), lengths, strict=True)]


def merge(pieces: Sequence[Piece], place: Path, number: int) -> int:
    """Write all rows of the pieces, sorted by model, to files of `place` from `number` on; how many files.

    Whole merged files are to be merged, in the order of their keys. One thread reads the next row group
    while this one encodes; memory is two row groups, and the open one of every file, still encoded.
    """
    streams = {path: _Stream(path) for path in {piece.path for piece in pieces if piece.merged}}
    with ThreadPoolExecutor(1) as ahead, MergedFiles(place, number) as files:
        reading = None
        for chunk in _chunks(sorted(pieces, key=lambda piece: piece.key)):
            following = ahead.submit(_gathered, chunk, streams)
            if reading is not None:
                files.write(reading.result())
            reading = following
        if reading is not None:
            files.write(reading.result())
    return files.count


class MergedFiles:
    """Writes merged files of a folder one after the other; each is durable once it is closed."""

    def __init__(self, place: Path, number: int = 0) -> None:
        self.count = 0
        self._place = place
        self._first = number
        self._rows = 0
        self._handle: Any = None
        self._writer: Any = None

    def __enter__(self) -> "MergedFiles":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        """Append rows; a full file, or one that lacks one of their columns, is closed, the next begun."""
        if table.num_rows == 0:
            return
        if self._writer is not None and (self._rows >= FILE_ROWS or not _fits(table, self._writer.schema)):
            self._close()
        if self._writer is None:
            self._open(table.schema)
        rows = conformed(table, self._writer.schema).combine_chunks()
        self._writer.write_table(rows, row_group_size=ROW_GROUP)
        self._rows += table.num_rows

    def _open(self, schema: pa.Schema) -> None:
        self._handle = merged_file(self._place, self._first + self.count).open("wb")
        self._writer = pq.ParquetWriter(self._handle, schema, **_encoding(schema))
        self.count += 1
        self._rows = 0

    def _close(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()


def _fits(table: pa.Table, schema: pa.Schema) -> bool:
    """Whether rows fit a file of these columns; those they lack are NULL."""
    return all(f.name in schema.names and f.type == schema.field(f.name).type for f in table.schema)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """What is cheap to write: a quarter more than zstd in a second, and a tenth more bytes.

    Floats hardly repeat, and to find that out is a third of the writer's time. A question skips row groups by
    their model and by nothing else.
    """
    return {
        "compression": "lz4",
        "use_dictionary": [field.name for field in schema if not pa.types.is_floating(field.type)],
        "write_statistics": list(KEY),
    }


def _chunks(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Neighbours of about ROW_GROUP rows together."""
    chunk: list[Piece] = []
    rows = 0
    for piece in pieces:
        chunk.append(piece)
        rows += piece.rows
        if rows >= ROW_GROUP:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _gathered(chunk: Sequence[Piece], streams: Mapping[Path, "_Stream"]) -> pa.Table:
    """The rows of a chunk in the order of its pieces."""
    parts = [piece.path for piece in chunk if not piece.merged]
    tables = [read_parts(parts)] if parts else []
    stored: dict[Path, int] = {}
    for piece in chunk:
        if piece.merged:
            stored[piece.path] = stored.get(piece.path, 0) + piece.rows
    tables += [streams[path].take(rows) for path, rows in stored.items()]
    schema = SCHEMAS["layers"]
    table = pa.concat_tables([filled(table, schema) for table in tables], promote_options="default")
    return filled(_in_order(table, [piece.key for piece in chunk]), schema)


class _Stream:
    """A merged file from its first row to its last: chunks end anywhere, and no row is decoded twice."""

    def __init__(self, path: Path) -> None:
        self._batches = pq.ParquetFile(path).iter_batches(_BATCH, use_threads=False)
        self._rest: pa.RecordBatch | None = None

    def take(self, rows: int) -> pa.Table:
        """The next `rows` rows."""
        taken = []
        while rows:
            batch = self._rest or next(self._batches)
            taken.append(batch.slice(0, rows))
            rows -= taken[-1].num_rows
            self._rest = batch.slice(taken[-1].num_rows) if taken[-1].num_rows < batch.num_rows else None
        return pa.Table.from_batches(taken)


def _in_order(table: pa.Table, keys: Sequence[Key]) -> pa.Table:
    """Runs of rows in the order of their keys; inside a run nothing moves."""
    rank = {key: i for i, key in enumerate(keys)}
    starts = _run_starts(table)
    ranks = np.array([rank[key] for key in _keys_at(table, starts)])
    if np.all(ranks[1:] >= ranks[:-1]):
        return table
    each = np.repeat(ranks, np.diff([*starts, table.num_rows]))
    return table.take(np.argsort(each, kind="stable"))


def _run_starts(table: pa.Table) -> np.ndarray:
    """Rows at which a key begins."""
    if table.num_rows == 0:
        return np.zeros(0, int)
    changes = np.zeros(table.num_rows, bool)
    changes[0] = True
    for name in KEY:
        column = table.column(name).combine_chunks()
        changes[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(changes)


def _keys_at(table: pa.Table, rows: np.ndarray) -> list[Key]:
    columns = table.select(KEY).take(rows).to_pydict()
    return list(zip(*columns.values(), strict=True))
