"""Many small parts of a lake into few large files, while readers go on reading.

The rows of finished repositories are written to a new generation (generations.py), sorted so that a model is
one run of rows in a file; what may still be replaced is carried over as it is; then one rename makes the new
generation live. A kill before it leaves the old one, a kill after it the new one; the next writer sweeps.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.lake.decoding import footers, read_parts
from jobs.lake.files import write_table
from jobs.lake.generations import (
    EMPTY,
    KEY,
    PART_KEY,
    TABLES,
    folder,
    loose,
    merged,
    merged_file,
    settle,
    shared,
)
from jobs.lake.mergedfiles import MergedFiles, conformed
from jobs.lake.merging import Footers, Piece, merge, pieces_of
from jobs.lake.runs import Key
from jobs.lake.store import RETRY, Store
from schemas.errors import LakeError
from schemas.refs import RepoRef
from schemas.tables import SCHEMAS

LOOSE_PARTS = 512
"""Parts of a table beyond which a scan compacts: opening them is then most of the time of a question."""

_GROWTH = 2
"""A merged file of layers is written again when it has at most this many times the rows that join it: a row
is written a few times in the life of a lake, and large files are left alone."""

_AT_ONCE = 1_000_000
"""Rows of shared parts that are ordered together, some 500 bytes each in memory."""

_SCHEMAS = {
    **{table: SCHEMAS[table] for table in TABLES},
    "failures": SCHEMAS["failures"].append(pa.field(PART_KEY, pa.string())),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The live parts of one table: those a compaction merges, those it keeps, and files already merged."""

    table: str
    parts: int
    kept: int
    merged_files: int
    mbytes: float


def survey(store: Store) -> tuple[Parts, ...]:
    """Count the live parts of every table."""
    return tuple(_counted(store, table) for table in TABLES)


def is_due(store: Store) -> bool:
    """Whether a table has so many small parts that questions wait for them."""
    return any(_small(store, table) > LOOSE_PARTS for table in TABLES)


def compact(store: Store) -> bool:
    """Merge the parts of finished repositories and make the result the live generation of `store`.

    False if there is nothing to merge. Raises LakeError where the lake cannot be written or a part is
    damaged, and leaves it as it was. Takes about as much room again until the parts it replaced are swept.
    """
    if not any(_small(store, table) for table in TABLES):
        return False
    try:
        places = {table: _fresh(store, table) for table in TABLES}
        new = _parts(store, "repositories")
        with ThreadPoolExecutor(1) as beside:
            rest = beside.submit(_merge_rest, store, places, new)
            _merge_layers(store, places["layers"], _promised(new))
        rest.result()
        for table, place in places.items():
            _seal(store, table, place)
        store.move_on()
    except (OSError, pa.ArrowException) as error:
        raise LakeError(f"cannot compact {store.path}: {error}") from error
    return True


def _counted(store: Store, table: str) -> Parts:
    place = store.folder(table)
    own, together, files = loose(place), shared(place), merged(place)
    mine = (store.part(table, name) for name in own)
    size = sum(path.stat().st_size for path in (*files, *together, *mine))
    finished = len(_finished(store, table))
    return Parts(
        table=table,
        parts=finished + len(together),
        kept=len(own) - finished,
        merged_files=len(files),
        mbytes=round(size / 1e6, 3),
    )


def _small(store: Store, table: str) -> int:
    """Parts that a compaction merges."""
    return len(_finished(store, table)) + len(shared(store.folder(table)))


def _finished(store: Store, table: str) -> list[str]:
    """Loose parts that no scan writes again, or, for failures, whose successor replaces them row by row."""
    names = loose(store.folder(table))
    if table == "repositories":
        return [name for name in names if not name.endswith(RETRY)]
    if table == "layers":
        done = set(_finished(store, "repositories"))
        return [name for name in names if name in done]
    return names


def _fresh(store: Store, table: str) -> Path:
    place = folder(store.path, table, store.generation + 1)
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    return place


def _promised(repositories: pa.Table) -> dict[str, tuple[Key, int]]:
    """Key and promised rows of layers of every part that is merged."""
    promised: dict[Key, int] = {}
    for *key, rows in zip(*repositories.select([*KEY, "num_planned"]).to_pydict().values(), strict=True):
        promised[*key,] = promised.get((*key,), 0) + rows
    return {RepoRef(*key[:2]).part_key(key[2]): (key, rows) for key, rows in promised.items()}


def _merge_rest(store: Store, places: Mapping[str, Path], new: pa.Table) -> None:
    """All tables but layers; `new` repositories are in memory."""
    repositories = pa.concat_tables([new, _stored(store, "repositories")])
    _write_sorted(repositories, [*KEY, "component"], places["repositories"])
    _merge_failures(store, places["failures"])
    _merge_runs(store, places["runs"])


def _merge_layers(store: Store, place: Path, promised: dict[str, tuple[Key, int]]) -> None:
    own = [
        Piece(*promised[name][:1], store.part("layers", name), promised[name][1])
        for name in _finished(store, "layers")
    ]
    together = footers(shared(store.folder("layers")))
    rows = sum(piece.rows for piece in own) + sum(footer.num_rows for footer in together.values())
    left, again = _by_size(merged(store.folder("layers")), rows)
    for number, path in enumerate(left):
        _carry(path, merged_file(place, number))
    stored = chain.from_iterable(pieces_of(path) for path in again)
    first, *others = _bounded(together)
    number = merge([*own, *stored], place, len(left), first)
    for parts in others:
        number = merge([], place, number, parts)


def _bounded(parts: Footers) -> list[Footers]:
    """Shared parts in as few lists as keep their rows, which are held in memory, below _AT_ONCE."""
    lists: list[Footers] = [{}]
    rows = 0
    for path, footer in parts.items():
        if lists[-1] and rows + footer.num_rows > _AT_ONCE:
            lists.append({})
            rows = 0
        lists[-1][path] = footer
        rows += footer.num_rows
    return lists


def _by_size(files: Sequence[Path], rows: int) -> tuple[list[Path], list[Path]]:
    """Merged files to leave alone and to write again when so many rows are new."""
    left, again = [], []
    for size, path in sorted((pq.read_metadata(path).num_rows, path) for path in files):
        if size <= _GROWTH * rows:
            again.append(path)
            rows += size
        else:
            left.append(path)
    return left, again


def _merge_failures(store: Store, place: Path) -> None:
    """A merged row of a part that was written again gives way to it."""
    stored, names = _stored(store, "failures"), pa.array(loose(store.folder("failures")), pa.string())
    stored = stored.filter(pc.invert(pc.is_in(stored[PART_KEY], names)))
    _write_sorted(pa.concat_tables([_parts(store, "failures"), stored]), [PART_KEY, "failure_id"], place)


def _merge_runs(store: Store, place: Path) -> None:
    _write_sorted(pa.concat_tables([_parts(store, "runs"), _stored(store, "runs")]), ["scan_id"], place)


def _parts(store: Store, table: str) -> pa.Table:
    paths = [store.part(table, name) for name in _finished(store, table)]
    if not paths:
        return _SCHEMAS[table].empty_table()
    return conformed(read_parts(paths, PART_KEY if table == "failures" else None), _SCHEMAS[table])


def _stored(store: Store, table: str) -> pa.Table:
    paths = [*shared(store.folder(table)), *merged(store.folder(table))]
    return conformed(read_parts(paths), _SCHEMAS[table]) if paths else _SCHEMAS[table].empty_table()


def _write_sorted(table: pa.Table, by: Sequence[str], place: Path) -> None:
    with MergedFiles(place) as files:
        files.write(table.sort_by([(name, "ascending") for name in by]))


def _seal(store: Store, table: str, place: Path) -> None:
    """Carry over what may still be replaced, name the columns, and make all of it durable."""
    merged_now = set(_finished(store, table))
    for name in loose(store.folder(table)):
        if name not in merged_now:
            _carry(store.part(table, name), place / f"{name}.parquet")
    write_table(_SCHEMAS[table].empty_table(), place / EMPTY)
    settle(place)
    settle(place.parent)


def _carry(path: Path, to: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
        with to.open("rb+") as handle:
            os.fsync(handle.fileno())
