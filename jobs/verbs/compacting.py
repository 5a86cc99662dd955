"""The compact verb: the small parts of a lake merged, what was replaced removed, and what to say of it."""

import time
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from jobs.lake.compaction import Parts, compact, survey
from jobs.lake.generations import open_lake, replaced, sweep
from jobs.lake.leaderboard import save_snapshot
from jobs.lake.store import Store


def tidy(lake: Path, grace: float, dry_run: bool) -> tuple[pa.Table, str]:
    """Compact a lake, or survey it; the live parts afterwards and a sentence.

    Raises LakeError where there is no lake, or a scan is writing to it.
    """
    open_lake(lake)
    if dry_run:
        found = survey(Store(lake))
        return _table(found), f"{_loose(found)} parts to merge; nothing was changed"
    with Store.writing(lake) as store:
        return _tidied(store, grace)


def _tidied(store: Store, grace: float) -> tuple[pa.Table, str]:
    before, start = survey(store), time.monotonic()
    compact(store)
    save_snapshot(store)
    took = time.monotonic() - start
    sweep(store.path, store.generation, grace)
    waiting = sum(1 for _ in replaced(store.path, store.generation))
    said = f"{_loose(before)} parts merged in {took:.1f} s"
    if waiting:
        said += f"; the next scan or compact after {grace:.0f} s removes the {waiting} files they replace"
    return _table(survey(store)), said


def _loose(parts: tuple[Parts, ...]) -> int:
    return sum(table.parts for table in parts)


def _table(parts: tuple[Parts, ...]) -> pa.Table:
    return pa.Table.from_pylist([asdict(table) for table in parts])
