"""The rows of many parts and merged files of `layers` -> merged files sorted by model, as a stream."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from itertools import accumulate, repeat
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.duck import fresh
from jobs.lake.generations import KEY
from jobs.lake.mergedfiles import ROW_GROUP, MergedFiles, filled
from jobs.lake.words import joined, trimmed, worded, worded_schema
from schemas.errors import LakeError
from schemas.tables import SCHEMAS

Key = tuple[str, str, str]
"""repo_id, revision, config_fingerprint."""

_BATCH = 65_536
"""Rows of a merged file that are decoded at a time; a batch costs 5 ms beside its rows."""
_LANES = 2
"""Threads that decode, order and encode, each its own models; more wait for the memory."""
_CHUNKS_A_LANE = 2
"""Chunks from which a second lane is worth a second file."""


class Form(Enum):
    """Where a model lies: in a part of its own, in one with other small models, in a merged file."""

    OWN = auto()
    SHARED = auto()
    MERGED = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one model: `rows` of them from row `start` of a file."""

    key: Key
    path: Path
    rows: int
    start: int = 0
    form: Form = Form.OWN


def read_parts(paths: Sequence[Path], named: str | None = None) -> pa.Table:
    """All rows of small parts in the order given; a column `named` tells the part's name without suffix.

    By DuckDB, whose threads do not wait for each other as pyarrow's do on small files of many columns. Raises
    LakeError for a damaged part.
    """
    half = -(-len(paths) // _LANES)
    with ThreadPoolExecutor(_LANES) as readers:
        tables = readers.map(_read, (paths[i : i + half] for i in range(0, len(paths), half)), repeat(named))
        return pa.concat_tables(tables, promote_options="default")


def _read(paths: Sequence[Path], named: str | None = None) -> pa.Table:
    name = "" if named is None else f", regexp_extract(filename, '([^/]*)\\.parquet$', 1) AS {named}"
    query = f"SELECT * EXCLUDE filename{name} FROM read_parquet(?, union_by_name=true, filename=true)"
    with fresh(threads=1) as connection:
        try:
            return connection.sql(query, params=[[str(path) for path in paths]]).to_arrow_table()
        except duckdb.Error as error:
            raise LakeError(f"cannot read the parts to merge: {error}") from error


def pieces_of(path: Path, form: Form) -> list[Piece]:
    """The models of a file, in its order. Raises LakeError where it is damaged."""
    table = _opened(path).read(columns=list(KEY), use_threads=False).combine_chunks()
    starts = _run_starts(table)
    lengths = np.diff([*starts, table.num_rows]).tolist()
    found = zip(_keys_at(table, starts), lengths, starts.tolist(), strict=True)
    return [Piece(key, path, rows, start, form) for key, rows, start in found]


def merge(pieces: Sequence[Piece], place: Path, number: int = 0) -> int:
    """Write all rows of the pieces, sorted by model, to files of `place` from `number` on; next number free.

    Whole merged files are to be merged, in the order of their keys. Each lane writes its own models to files
    of its own. Memory is what shared parts hold, and a lane's row group and a batch of each merged file.
    """
    chunks = list(_chunks(sorted(pieces, key=lambda piece: piece.key)))
    shared = _Shared(sorted({piece.path for piece in pieces if piece.form is Form.SHARED}))
    half = -(-len(chunks) // _LANES) if len(chunks) >= _LANES * _CHUNKS_A_LANE else max(len(chunks), 1)
    with ThreadPoolExecutor(_LANES) as threads:
        lanes = [
            threads.submit(_write, chunks[first : first + half], shared, MergedFiles(place, number + first))
            for first in range(0, len(chunks), half)
        ]
    for lane in lanes:
        lane.result()
    return number + len(chunks)


def _write(chunks: Sequence[Sequence[Piece]], shared: "_Shared", files: MergedFiles) -> None:
    first: dict[Path, int] = {}
    for piece in (piece for chunk in chunks for piece in chunk if piece.form is Form.MERGED):
        first.setdefault(piece.path, piece.start)
    streams = {path: _Stream(path, start) for path, start in first.items()}
    with files:
        for chunk in chunks:
            files.write(_rows_of(chunk, shared, streams))


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


def _rows_of(chunk: Sequence[Piece], shared: "_Shared", streams: dict[Path, "_Stream"]) -> pa.Table:
    """The rows of a chunk in the order of its pieces."""
    own = [piece.path for piece in chunk if piece.form is Form.OWN]
    beside = [shared.rows_of(piece) for piece in chunk if piece.form is Form.SHARED]
    tables = ([worded(_read(own))] if own else []) + ([pa.concat_tables(beside)] if beside else [])
    stored: dict[Path, int] = {}
    for piece in (piece for piece in chunk if piece.form is Form.MERGED):
        stored[piece.path] = stored.get(piece.path, 0) + piece.rows
    tables += [streams[path].take(rows) for path, rows in stored.items()]
    full = [filled(table, _LAYERS) for table in tables]
    table = joined(full) if len(full) > 1 else full[0]
    return filled(trimmed(_in_order(table, [piece.key for piece in chunk])), _LAYERS)


_LAYERS = worded_schema(SCHEMAS["layers"])


class _Shared:
    """Parts of several models each, decoded whole: their models may be anywhere in the order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        with ThreadPoolExecutor(_LANES) as readers:
            tables = list(readers.map(_decoded, paths))
        together = joined(tables) if tables else _LAYERS.empty_table()
        starts = accumulate((table.num_rows for table in tables), initial=0)
        sizes = (table.num_rows for table in tables)
        places = zip(paths, starts, sizes, strict=False)
        self._tables = {path: together.slice(start, rows) for path, start, rows in places}

    def rows_of(self, piece: Piece) -> pa.Table:
        """The rows of one model; nothing is copied."""
        return self._tables[piece.path].slice(piece.start, piece.rows)


class _Stream:
    """A merged file from row `start` to its last: chunks end anywhere, and no row is decoded twice."""

    def __init__(self, path: Path, start: int) -> None:
        file = _opened(path)
        first = 0
        while start and start >= (size := file.metadata.row_group(first).num_rows):
            first, start = first + 1, start - size
        groups = range(first, file.num_row_groups)
        self._batches = file.iter_batches(_BATCH, row_groups=groups, use_threads=False)
        self._rest: pa.RecordBatch | None = None
        if start:
            self.take(start)

    def take(self, rows: int) -> pa.Table:
        """The next `rows` rows."""
        taken = []
        while rows:
            batch = self._rest or next(self._batches)
            taken.append(batch.slice(0, rows))
            rows -= taken[-1].num_rows
            self._rest = batch.slice(taken[-1].num_rows) if taken[-1].num_rows < batch.num_rows else None
        return pa.Table.from_batches(taken).unify_dictionaries()


def _decoded(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        whole = pa.BufferReader(file.read_buffer())
    return _opened(path, whole).read(use_threads=False)


def _opened(path: Path, source: pa.NativeFile | None = None) -> pq.ParquetFile:
    """A file whose texts are read as the dictionaries that it holds. Raises LakeError where it is damaged."""
    try:
        about = pq.read_metadata(source or path)
        texts = [field.name for field in about.schema.to_arrow_schema() if pa.types.is_string(field.type)]
        return pq.ParquetFile(source or path, metadata=about, read_dictionary=texts)
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"cannot read {path}: {error}") from error


def _in_order(table: pa.Table, keys: Sequence[Key]) -> pa.Table:
    """Runs of rows in the order of their keys, in one piece; inside a run nothing moves."""
    rank = {key: i for i, key in enumerate(keys)}
    starts = _run_starts(table)
    lengths = np.diff([*starts, table.num_rows])
    ranks = np.array([rank[key] for key in _keys_at(table, starts)], int)
    if np.all(ranks[1:] >= ranks[:-1]):
        return table.combine_chunks()
    order = np.argsort(ranks, kind="stable")
    runs = [
        table.slice(start, rows)
        for start, rows in zip(starts[order].tolist(), lengths[order].tolist(), strict=True)
    ]
    return pa.concat_tables(runs or [table]).combine_chunks()


def _run_starts(table: pa.Table) -> np.ndarray:
    """Rows at which a key begins, of a table in one piece."""
    if table.num_rows == 0:
        return np.zeros(0, int)
    changes = np.zeros(table.num_rows, bool)
    changes[0] = True
    for name in KEY:
        words = table.column(name).combine_chunks().indices
        changes[1:] |= pc.not_equal(words[1:], words[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(changes)


def _keys_at(table: pa.Table, rows: np.ndarray) -> list[Key]:
    columns = table.select(KEY).take(rows).to_pydict()
    return list(zip(*columns.values(), strict=True))
