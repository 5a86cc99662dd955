"""Which parts of a lake are live: a folder for each generation of a table, a file that names the live one.

    layers/KEY.parquet            generation 0: parts as scans leave them
    layers/000001/_00000.parquet  generation 1: parts merged by a compaction
    layers/000001/KEY.parquet     and those that came since, SCAN-00000.shared.parquet among them

`lake.json` names the generation; replacing that file is the one step that makes a compaction seen. A live
folder loses no rows, and one that is no longer live does not change: whoever has read `lake.json` once may go
on with the folder it named, until `sweep` removes it. Each folder holds `_empty.parquet`, which every view
names: it is removed first, so that a reader who comes too late gets an error, never a part of the rows.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from schemas.errors import LakeError
from schemas.tables import SCHEMA_VERSION

TABLES = ("layers", "repositories", "failures", "runs")
"""Tables that have generations."""
MARKER = "lake.json"
EMPTY = "_empty.parquet"
KEY = ("repo_id", "revision", "config_fingerprint")
"""Columns that tell a model: its rows in a merged file are one run, in the order of matrix_index."""
PART_KEY = "part_key"
"""Column of merged failures, unseen by readers: the part a row came from; a part of that name replaces it."""
GRACE = 600.0
"""Seconds that replaced parts stay for readers that know their names but have not opened them yet."""

SHARED = ".shared"
"""Ends the name of a part that holds several small models; a key ends in hexadecimal digits."""

_MERGED = re.compile(r"_\d{5}\.parquet")
_SUFFIX = ".parquet"


def open_lake(path: Path) -> None:
    """Check that `path` is a lake this version can read. Raises LakeError saying what it is instead."""
    if not path.is_dir():
        raise LakeError(f"no lake at {path}: run `hubspectra scan TARGET --lake {path}` first")
    marker = path / MARKER
    if not marker.is_file():
        raise LakeError(f"{path} is not a hubspectra lake: it has no {MARKER}; give another --lake folder")
    found, _ = read_marker(path)
    if found > SCHEMA_VERSION:
        raise LakeError(
            f"lake {path} has schema version {found}, this hubspectra reads up to {SCHEMA_VERSION}: upgrade"
        )


def read_marker(lake: Path) -> tuple[int, int]:
    """Schema version and live generation of a lake. Raises LakeError where the marker is not one."""
    marker = lake / MARKER
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        version, generation = found["schema_version"], found.get("generation", 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeError(f"{marker} is damaged: expected a JSON object with schema_version") from error
    if not isinstance(version, int) or not isinstance(generation, int):
        raise LakeError(f"{marker} is damaged: schema_version and generation are whole numbers")
    return version, generation


def write_marker(lake: Path, generation: int, version: int = SCHEMA_VERSION) -> None:
    """Make a generation the live one, durably and in one step."""
    content: dict[str, str | int] = {"lake": "hubspectra", "schema_version": version}
    if generation:
        content["generation"] = generation
    temporary = lake / f".{MARKER}.tmp"
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(content) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(lake / MARKER)
    settle(lake)


def folder(lake: Path, table: str, generation: int) -> Path:
    """Where the parts of a table lie."""
    return lake / table / f"{generation:06}" if generation else lake / table


def loose(place: Path) -> list[str]:
    """Names, without suffix, of the parts in a folder that no compaction merged and no others share."""
    names = (entry.name for entry in os.scandir(place))
    return [name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX) and not _of_the_house(name)]


def shared(place: Path) -> list[Path]:
    """Parts in a folder that hold several small models, in order; none of them is written again."""
    ends = f"{SHARED}{_SUFFIX}"
    return sorted(place / entry.name for entry in os.scandir(place) if entry.name.endswith(ends))


def shared_part(place: Path, scan_id: str, number: int) -> Path:
    """Name of the part of several small models that a scan writes as its `number`-th."""
    return place / f"{scan_id}-{number:05}{SHARED}{_SUFFIX}"


def merged(place: Path) -> list[Path]:
    """Files in a folder that a compaction wrote, in order."""
    return sorted(place / entry.name for entry in os.scandir(place) if _MERGED.fullmatch(entry.name))


def merged_file(place: Path, number: int) -> Path:
    """Name of a merged file."""
    return place / f"_{number:05}{_SUFFIX}"


def settle(place: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(lake: Path, live: int, grace: float = GRACE) -> int:
    """Remove what a killed compaction left and what was replaced at least `grace` seconds ago; files removed.

    Only the holder of the lake's lock may call it.
    """
    found = sorted({number for table in TABLES for number in _generations(lake / table)} | {0})
    old = [number for number in found if number < live and _age(lake, number) >= grace]
    return sum(_remove(lake, number) for number in (*old, *(n for n in found if n > live)))


def replaced(lake: Path, live: int) -> Iterator[Path]:
    """Parts of earlier generations that are still there."""
    for table in TABLES:
        for number in {*_generations(lake / table), 0}:
            if number < live:
                yield from folder(lake, table, number).glob(f"*{_SUFFIX}")


def _of_the_house(name: str) -> bool:
    ours = name == EMPTY or name.startswith(".") or name.endswith(f"{SHARED}{_SUFFIX}")
    return ours or _MERGED.fullmatch(name) is not None


def _generations(place: Path) -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir(place) if entry.name.isdigit() and entry.is_dir())


def _age(lake: Path, generation: int) -> float:
    """Seconds since the next generation was made ready, which was just before this one was replaced."""
    following = folder(lake, TABLES[0], generation + 1) / EMPTY
    return time.time() - following.stat().st_mtime if following.exists() else float("inf")


def _remove(lake: Path, generation: int) -> int:
    places = [folder(lake, table, generation) for table in TABLES]
    for place in places:
        (place / EMPTY).unlink(missing_ok=True)
    return sum(_remove_folder(place, whole=generation > 0) for place in places if place.is_dir())


def _remove_folder(place: Path, whole: bool) -> int:
    """Remove the parts of a folder; a `whole` one goes too, that of generation 0 holds the others."""
    parts = [entry.path for entry in os.scandir(place) if entry.name.endswith((_SUFFIX, f"{_SUFFIX}.tmp"))]
    for part in parts:
        with suppress(FileNotFoundError):
            os.unlink(part)
    if whole:
        shutil.rmtree(place)
    return len(parts)
