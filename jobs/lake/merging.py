"""The rows of many parts and merged files of `layers` -> merged files sorted by model, as a stream."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.duck import fresh
from jobs.lake.generations import merged_file
from schemas.errors import LakeError
from schemas.tables import SCHEMAS

Key = tuple[str, str, str]
"""repo_id, revision, config_fingerprint."""

KEY = ("repo_id", "revision", "config_fingerprint")
"""Columns whose rows are one run of a merged file, in the order of matrix_index."""
ROW_GROUP = 100_000
"""Rows of a row group; with ten thousand, whole columns take twice as long to read."""
FILE_ROWS = 1_000_000
"""Rows of a merged file, about 100 MB of layers."""
ENCODING: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


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
    name = "" if named is None else f", regexp_extract(filename, '([^/]*)\\.parquet$', 1) AS {named}"
    query = f"SELECT * EXCLUDE filename{name} FROM read_parquet(?, union_by_name=true, filename=true)"
    with fresh() as connection:
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
        """Append rows; a full file, or one of other columns, is closed and the next one begun."""
        if table.num_rows == 0:
            return
        if self._writer is not None and (self._rows >= FILE_ROWS or table.schema != self._writer.schema):
            self._close()
        if self._writer is None:
            self._open(table.schema)
        self._writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)
        self._rows += table.num_rows

    def _open(self, schema: pa.Schema) -> None:
        self._handle = merged_file(self._place, self._first + self.count).open("wb")
        self._writer = pq.ParquetWriter(self._handle, schema, use_dictionary=_repeating(schema), **ENCODING)
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


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns worth a dictionary: floats hardly repeat; to find that out is a third of the writer's time."""
    return [field.name for field in schema if not pa.types.is_floating(field.type)]


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
    table = pa.concat_tables(
        [conformed(table, SCHEMAS["layers"]) for table in tables], promote_options="default"
    )
    return table if len(tables) == 1 else _in_order(table, [piece.key for piece in chunk])


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
    ranks = np.repeat([rank[key] for key in _keys_at(table, starts)], np.diff([*starts, table.num_rows]))
    return table.take(np.argsort(ranks, kind="stable"))


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
