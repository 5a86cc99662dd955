"""The index of a sharded model: which files its tensors are in, as far as the index can be trusted."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from posixpath import dirname, join
from typing import Any, NoReturn

from scanner.weights.selection import WeightGroup
from schemas.errors import FormatError
from schemas.refs import FileRef, is_safe_path
from schemas.results import FailureKind

MAX_INDEX = 64_000_000
MAX_INDEX_ENTRIES = 2_000_000

_INDEXED_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\.safetensors")


@dataclass(frozen=True, slots=True)
class IndexedShards:
    """What an index says: its shards by path, the shard of every tensor name, and what was odd."""

    files: tuple[FileRef, ...]
    weight_map: Mapping[str, FileRef]
    problems: tuple[str, ...] = ()


def shards_of_index(index_json: bytes, group: WeightGroup, files: Iterable[FileRef]) -> IndexedShards:
    """Return exactly the shards that the index of `group` names, all of them present in `files`.

    Raises FormatError: UNSAFE_PATH for a name that is not a plain relative path, INDEX_MISMATCH for a shard
    that is not in the repository or an index that cannot be read, LFS_POINTER; a retry never helps.
    """
    index = group.index
    assert index is not None, "a group without an index has its final files"
    tree = {file.path: file for file in files}
    weight_map = _weight_map(index_json, index)
    shards = {name: _shard(name, index, tree) for name in sorted(set(weight_map.values()))}
    chosen = tuple(shards.values())
    unnamed = sorted(file.path for file in set(group.files) - set(chosen))
    problems = tuple(f"{index} does not name {path!a}" for path in unnamed)
    return IndexedShards(chosen, {tensor: shards[name] for tensor, name in weight_map.items()}, problems)


def _weight_map(index_json: bytes, index: FileRef) -> dict[str, str]:
    if index_json.startswith(b"version "):
        raise FormatError(
            FailureKind.LFS_POINTER,
            f"{index}: a Git LFS pointer where an index is expected: fetch the file with `git lfs pull`",
            file=index.path,
        )
    if len(index_json) > MAX_INDEX:
        _fail_index(index, f"has {len(index_json)} bytes, expected at most {MAX_INDEX}")
    if max(map(index_json.count, (b":", b"[", b"{"))) > MAX_INDEX_ENTRIES:
        _fail_index(index, f"has too many entries, expected at most {MAX_INDEX_ENTRIES}")
    weight_map = _parsed(index_json, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        _fail_index(index, "has no weight_map, expected an object of tensor names and file names")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            _fail_index(index, f"maps {ascii(tensor)[:80]} to a {type(name).__name__}, expected a file name")
    return weight_map


def _parsed(index_json: bytes, index: FileRef) -> dict[str, Any]:
    try:
        table = json.loads(index_json.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        message = str(error)
    else:
        if isinstance(table, dict):
            return table
        message = f"it holds a {type(table).__name__}"
    _fail_index(index, f"is not a JSON object: {message}")


def _fail_index(index: FileRef, message: str) -> NoReturn:
    raise FormatError(FailureKind.INDEX_MISMATCH, f"{index} {message}", file=index.path)


def _shard(name: str, index: FileRef, tree: Mapping[str, FileRef]) -> FileRef:
    """Find the file an index names, relative to the index's folder and never outside the pinned tree."""
    if not _INDEXED_NAME.fullmatch(name) or not is_safe_path(name):
        raise FormatError(
            FailureKind.UNSAFE_PATH,
            f"{index} names the shard {ascii(name)[:80]}, expected a relative path to a *.safetensors",
            file=index.path,
        )
    shard = tree.get(join(dirname(index.path), name))
    if shard is None:
        _fail_index(index, f"names the shard {name[:80]}, which is not in the repository: upload it")
    return shard
