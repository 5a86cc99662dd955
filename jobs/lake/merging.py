"""The rows of many parts and merged files of `layers` -> merged files sorted by model, as a stream."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, repeat
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
_READERS = 2
"""Threads that decode small parts; each has a DuckDB of one thread, since more in one wait for each other."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one model: `rows` of them in a part of its own, or from `start` on in a merged file."""

    key: Key
    path: Path
    rows: int
    start: int | None = None


def read_parts(paths: Sequence[Path], named: str | None = None) -> pa.Table:
    """All rows of small parts in the order given; a column `named` tells the part's name without suffix.

    By DuckDB, which opens and decodes a small file of many columns in a third of pyarrow's time. Raises
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
    """The columns that hold a value, in the types and the order of `schema`; newer ones come after."""
    held = {name for name in table.column_names if table.column(name).null_count < table.num_rows}
    newer = (field for field in table.schema if field.name not in schema.names)
    kept = pa.schema([field for field in (*schema, *newer) if field.name in held], metadata=schema.metadata)
    return pa.table([table.column(field.name).cast(field.type) for field in kept], schema=kept)


def pieces_of(path: Path) -> list[Piece]:
    """The models of a merged file."""
    table = pq.read_table(path, columns=list(KEY))
    starts = _run_starts(table)
    lengths = np.diff([*starts, table.num_rows]).tolist()
    keys = _keys_at(table, starts)
    return [Piece(key, path, n, int(k)) for key, n, k in zip(keys, lengths, starts, strict=True)]


def merge(pieces: Sequence[Piece], place: Path, number: int) -> int:
    """Write all rows of the pieces, sorted by model, to files of `place` from `number` on; how many files.

    One thread reads the next row group while this one encodes; memory is two row groups.
    """
    with ThreadPoolExecutor(1) as ahead, MergedFiles(place, number) as files:
        reading = None
        for chunk in _chunks(sorted(pieces, key=lambda piece: piece.key)):
            following = ahead.submit(_gathered, chunk)
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


def _gathered(chunk: Sequence[Piece]) -> pa.Table:
    """The rows of a chunk in the order of its pieces."""
    parts = [piece.path for piece in chunk if piece.start is None]
    tables = [read_parts(parts)] if parts else []
    stored = sorted((piece for piece in chunk if piece.start is not None), key=lambda piece: piece.path)
    tables += [_rows(path, list(of)) for path, of in groupby(stored, key=lambda piece: piece.path)]
    schema = SCHEMAS["layers"]
    table = pa.concat_tables([filled(table, schema) for table in tables], promote_options="default")
    return filled(_in_order(table, [piece.key for piece in chunk]), schema)


def _rows(path: Path, pieces: Sequence[Piece]) -> pa.Table:
    """The rows of neighbours in one merged file."""
    start, stop = pieces[0].start or 0, (pieces[-1].start or 0) + pieces[-1].rows
    file = pq.ParquetFile(path)
    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    first, last = (int(np.searchsorted(ends, row, side="right")) for row in (start, stop - 1))
    before = int(ends[first - 1]) if first else 0
    return file.read_row_groups(range(first, last + 1)).slice(start - before, stop - start)


def _in_order(table: pa.Table, keys: Sequence[Key]) -> pa.Table:
    """Runs of rows in the order of their keys; inside a run nothing moves."""
    rank = {key: i for i, key in enumerate(keys)}
    starts = _run_starts(table)
    lengths = np.diff([*starts, table.num_rows])
    ranks = np.array([rank[key] for key in _keys_at(table, starts)])
    if np.all(ranks[1:] >= ranks[:-1]):
        return table
    order = np.argsort(ranks, kind="stable")
    return pa.concat_tables([table.slice(starts[i], lengths[i]) for i in order])


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
