"""Whether the snapshot of the models view is current: its stamp says from which parts it was derived."""

import hashlib
import os
import time
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb

from jobs.lake.duck import fresh
from jobs.lake.generations import folder, read_marker
from schemas.tables import SCHEMAS

LIVE_SET = b"hubspectra.live_set"
"""Key in the metadata of the snapshot: what it was derived from."""

LARGE = 50_000_000
"""Bytes of live parts, half a million layers, from which the models take about a second to derive."""
AT_REST = 60.0
"""Seconds without a new part after which no scan is thought to run: it would make the next snapshot stale."""

_READ = ("layers", "repositories", "runs")
"""Tables that the models view reads."""


def place(lake: Path) -> Path:
    """Where the snapshot lies."""
    return lake / "models" / "models.parquet"


def is_current(lake: Path, connection: duckdb.DuckDBPyConnection | None = None) -> bool:
    """Whether the snapshot holds what the models view would say now."""
    stamped = stamp(lake, connection)
    return stamped is not None and stamped == live_set(lake)


def stamp(lake: Path, connection: duckdb.DuckDBPyConnection | None = None) -> str | None:
    """The live set a snapshot was derived from; None where there is no snapshot, or one without a stamp."""
    if not place(lake).is_file():
        return None
    query = "SELECT value FROM parquet_kv_metadata(?) WHERE key = ?"
    with nullcontext(connection) if connection else fresh() as asked:
        found = asked.execute(query, [str(place(lake)), LIVE_SET]).fetchone()
    return found[0].decode() if found else None


def save(lake: Path, table: Any, live_set: str) -> None:
    """Replace the snapshot by an Arrow table of its schema made from `live_set`.

    Whoever can write may call it at any time: one that is out of date is not shown. Raises LakeError.
    """
    from jobs.lake.files import write_table  # most questions do without pyarrow's Parquet

    schema = SCHEMAS["models"]
    stamped = schema.with_metadata({**schema.metadata, LIVE_SET: live_set})
    write_table(table.cast(stamped), place(lake), mark=f"{os.getpid()}.")


def is_worth_it(lake: Path) -> bool:
    """Whether a question had better renew a stale snapshot: a large lake, at rest, that may be written."""
    _, generation = read_marker(lake)
    parts = [part for table in _READ for part in _parts(folder(lake, table, generation))]
    newest = max((changed for _, _, changed in parts), default=0)
    large = sum(size for _, size, _ in parts) >= LARGE
    return large and time.time() - newest / 1e9 >= AT_REST and os.access(place(lake).parent, os.W_OK)


def live_set(lake: Path) -> str:
    """32 hex digits of name, size and time of change of every live part, and of the SQL of the views.

    Any commit, retry, compaction or upgrade changes it, and so does whoever adds, removes or edits a part by
    hand. A copy of a lake that does not keep times is only slower: its snapshot does not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted((files("schemas") / "sql").iterdir(), key=lambda path: path.name):
        digest.update(f"{path.name}\0{path.read_text(encoding='utf-8')}\0".encode())
    _, generation = read_marker(lake)
    for table in _READ:
        for name, size, changed in sorted(_parts(folder(lake, table, generation))):
            digest.update(f"{table}/{name}\0{size}\0{changed}\0".encode())
    return digest.hexdigest()


def _parts(place: Path) -> list[tuple[str, int, int]]:
    found = [(e.name, e.stat()) for e in os.scandir(place) if e.name.endswith(".parquet")]
    return [(name, about.st_size, about.st_mtime_ns) for name, about in found]
