"""The rows of many parts and merged files of `layers` -> merged files sorted by model, as a stream.

Measured rows and the others go to files of their own (halves.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.lake.decoding import LANES, Stream, Wide, read_columns, read_words
from jobs.lake.generations import KEY
from jobs.lake.halves import HALVES, halves
from jobs.lake.mergedfiles import MergedFiles, filled
from jobs.lake.runs import Key, in_order, picked, runs
from jobs.lake.words import joined, trimmed, worded, worded_schema
from schemas.tables import SCHEMAS

Footers = dict[Path, pq.FileMetaData]

CHUNK = 250_000
"""Rows that are ordered and written together; two fifths of them are measured, in most models."""
_GROUPS = 16
"""Pieces in which the rows of shared parts are held."""
_LAYERS = worded_schema(SCHEMAS["layers"])


class Form(Enum):
    """Where a model lies: in a part of its own, in one with other small models, in a merged file."""

    OWN = auto()
    SHARED = auto()
    MERGED = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one model: `rows` of them from row `start` of a file, or of one half of all shared parts."""

    key: Key
    path: Path
    rows: int
    start: int = 0
    form: Form = Form.OWN
    half: int = 0


def pieces_of(path: Path) -> list[Piece]:
    """The models of a merged file, in its order. Raises LakeError where it is damaged."""
    return _pieces(path, read_columns(path, KEY), Form.MERGED)


def merge(pieces: Iterable[Piece], place: Path, number: int = 0, shared: Footers | None = None) -> int:
    """Write all rows, sorted by model, to files of `place` from `number` on; returns the next number free.

    They are those of the pieces and of the parts that several models share. Whole merged files are to be
    merged, in the order of their keys. Each lane writes its own models to files of its own. Memory is what
    shared parts hold, and a lane's row group and a batch of each merged file. Raises LakeError for a damaged
    file.
    """
    together = _Together(shared or {})
    chunks = list(_chunks(sorted([*pieces, *together.pieces], key=lambda piece: piece.key)))
    share = max(-(-len(chunks) // LANES), 1)
    with ThreadPoolExecutor(LANES) as threads:
        lanes = [
            threads.submit(_write, chunks[first : first + share], together, place, number + HALVES * first)
            for first in range(0, len(chunks), share)
        ]
    for lane in lanes:
        lane.result()
    return number + HALVES * len(chunks)


def _write(chunks: Sequence[Sequence[Piece]], together: "_Together", place: Path, number: int) -> None:
    """Each half of the rows to its own files; a chunk fills at most one file of each."""
    first: dict[Path, int] = {}
    for piece in (piece for chunk in chunks for piece in chunk if piece.form is Form.MERGED):
        first.setdefault(piece.path, piece.start)
    streams = {path: Stream(path, start) for path, start in first.items()}
    wide = Wide()
    with ExitStack() as opened:
        files = [
            opened.enter_context(MergedFiles(place, number + half * len(chunks))) for half in range(HALVES)
        ]
        for chunk in chunks:
            for file, rows in zip(files, _rows_of(chunk, together, streams, wide), strict=True):
                file.write(trimmed(filled(rows, _LAYERS)))


def _chunks(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Neighbours of about CHUNK rows together."""
    chunk: list[Piece] = []
    rows = 0
    for piece in pieces:
        chunk.append(piece)
        rows += piece.rows
        if rows >= CHUNK:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _rows_of(
    chunk: Sequence[Piece], together: "_Together", streams: dict[Path, Stream], wide: Wide
) -> list[pa.Table]:
    """The halves of a chunk's rows, each in the order of its pieces."""
    keys = [piece.key for piece in chunk]
    return [in_order(table, keys) for table in _halved(_tables(chunk, together, streams, wide))]


def _tables(
    chunk: Sequence[Piece], together: "_Together", streams: dict[Path, Stream], wide: Wide
) -> Iterator[pa.Table]:
    of = {form: [piece for piece in chunk if piece.form is form] for form in Form}
    for table in wide.read([piece.path for piece in of[Form.OWN]]):
        yield filled(worded(table), _LAYERS)
    yield from together.rows_of(of[Form.SHARED])
    stored: dict[Path, int] = {}
    for piece in of[Form.MERGED]:
        stored[piece.path] = stored.get(piece.path, 0) + piece.rows
    for path, rows in stored.items():
        yield filled(streams[path].take(rows), _LAYERS)


def _halved(tables: Iterable[pa.Table]) -> list[pa.Table]:
    """The rows of all tables by halves, with the columns in which these hold a value."""
    by_half = zip(*map(halves, tables), strict=True)
    return [filled(joined(half), _LAYERS) for half in by_half]


class _Together:
    """Parts of several models each, decoded whole: their models may be anywhere in the order."""

    def __init__(self, parts: Footers) -> None:
        self._halves = _decoded(parts) if parts else [_LAYERS.empty_table()] * HALVES
        self.pieces = [
            piece
            for half, rows in enumerate(self._halves)
            for piece in _pieces(Path(), rows, Form.SHARED, half)
        ]

    def rows_of(self, pieces: Sequence[Piece]) -> Iterator[pa.Table]:
        """The rows of some models by halves, in their order."""
        for half, rows in enumerate(self._halves):
            places = [(piece.start, piece.rows) for piece in pieces if piece.half == half]
            if places:
                yield picked(rows, *np.array(places).T)


def _decoded(parts: Footers) -> list[pa.Table]:
    """The halves of all rows in a few pieces: memory of parts that are copied together serves the next ones.

    Lists are in one piece: rows picked from several would make one of them each time.
    """
    files, size = list(parts.items()), -(-len(parts) // _GROUPS)
    with ThreadPoolExecutor(LANES) as threads:
        groups = (files[first : first + size] for first in range(0, len(files), size))
        pieces = list(threads.map(_group, groups))
    return [_lists_in_one(joined(half)) for half in zip(*pieces, strict=True)]


def _group(parts: Sequence[tuple[Path, pq.FileMetaData]]) -> list[pa.Table]:
    decoded = [read_words(path, footer) for path, footer in parts]
    return [table.combine_chunks() for table in _halved(decoded)]


def _lists_in_one(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            table = table.set_column(place, field, table.column(place).combine_chunks())
    return table


def _pieces(path: Path, table: pa.Table, form: Form, half: int = 0) -> list[Piece]:
    found = zip(*runs(table), strict=True)
    return [Piece(key, path, int(rows), int(start), form, half) for key, start, rows in found]
