"""The header of a safetensors file: hostile bytes in, checked places of tensors out; no I/O.

A file is 8 bytes (n, little-endian), n bytes of JSON, then the tensors back to back. The laws, each a guard:

    1. 2 <= n <= limit, and 8 + n bytes fit in the file
    2. the JSON is strict UTF-8, one object, no key twice, whole numbers only, bounded in count and depth
    3. every entry has a printable name, a known dtype, a shape of counts and two offsets
    4. stop - start is exactly what dtype and shape need
    5. in order of offset the tensors start at 0, leave no hole, do not overlap and end where the file ends

Whatever the safetensors reference rejects is rejected here; it is laxer on names, dimensions and duplicates.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

from schemas.errors import FormatError
from schemas.refs import FileRef, TensorRef
from schemas.results import FailureKind

PREFIX = 8
MAX_HEADER = 25_000_000
HARD_MAX_HEADER = 100_000_000
MAX_TENSORS = 250_000
MAX_NAME = 512
MAX_DIMS = 8

DTYPE_BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits an element takes, for every dtype of the format."""

_LFS_POINTER = b"version "
_COUNT_LIMIT = 2**63
_MAX_DIGITS = 20
_MAX_DEPTH = 16
_MAX_NOTES = 20
_MAX_BRACKETS = 4 * MAX_TENSORS
_OBJECT = re.compile(r"[ \t\n\r]*\{")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ENTRY_KEYS = frozenset(("dtype", "shape", "data_offsets"))


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: `tensors` in order of offset, the free-text `metadata`, and what was ignored."""

    tensors: tuple[TensorRef, ...]
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()


def header_length(first8: bytes, file: FileRef, limit: int = MAX_HEADER) -> int:
    """Return the number of header bytes that follow the first 8 bytes of `file`.

    `limit` may be raised to HARD_MAX_HEADER, the reference's own cap. Raises FormatError: LFS_POINTER for
    pointer text committed in place of weights, BAD_HEADER otherwise; a retry never helps.
    """
    if first8.startswith(_LFS_POINTER):
        raise FormatError(
            FailureKind.LFS_POINTER,
            f"{file}: a Git LFS pointer of {file.size} bytes where weights are expected: "
            "fetch the file with `git lfs pull`",
            file=file.path,
        )
    if len(first8) < PREFIX:
        _fail(file, f"file has {file.size} bytes, expected at least {PREFIX + 2}")
    length = int.from_bytes(first8[:PREFIX], "little")
    if length + PREFIX > file.size:
        _fail(
            file,
            f"header says {length} bytes, file has {file.size}: truncated or not a safetensors file",
        )
    if length < 2:
        _fail(file, f"header says {length} bytes, expected at least 2")
    cap = min(limit, HARD_MAX_HEADER)
    if length > cap:
        _fail(file, f"header says {length} bytes, expected at most {cap}")
    return length


def parse_header(raw: bytes, file: FileRef) -> Header:
    """Check the header `raw` (the bytes after the first 8) against `file` and return its tensors.

    Zero-element tensors are legal. Offsets of the result are absolute in the file. Cost: 250,000 tensors,
    the most allowed, in about 2 s. Raises FormatError(BAD_HEADER) with file and tensor; a retry never helps.
    """
    table = _load(raw, file)
    metadata = _metadata(table.pop("__metadata__", None), file)
    if len(table) > MAX_TENSORS:
        _fail(file, f"header lists {len(table)} tensors, expected at most {MAX_TENSORS}")
    base = PREFIX + len(raw)
    tensors = [_tensor(name, entry, base, file) for name, entry in table.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop, tensor.name))
    _check_layout(tensors, base, file)
    return Header(tuple(tensors), metadata, _ignored_keys(table, file))


def _fail(file: FileRef, message: str, tensor: str | None = None) -> NoReturn:
    where = str(file) if tensor is None else f"{file} {tensor!a}"
    raise FormatError(FailureKind.BAD_HEADER, f"{where}: {message}", file=file.path, tensor=tensor)


def _shown(value: Any) -> str:
    """A short, printable picture of an untrusted value."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return "null or missing" if value is None else ascii(value)[:60]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"key {_shown(counts.most_common(1)[0][0])} occurs twice")
    return table


def _whole(text: str) -> int:
    if text == "-0" or len(text) > _MAX_DIGITS:
        _not_whole(text)
    return int(text)


def _not_whole(text: str) -> NoReturn:
    raise ValueError(f"found the number {text[:_MAX_DIGITS]}, expected whole numbers only")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_not_whole, parse_constant=_not_whole
)


def _load(raw: bytes, file: FileRef) -> dict[str, Any]:
    # Empty lists and objects cost 30 times their text in memory: count them before parsing.
    brackets = raw.count(b"[") + raw.count(b"{")
    if brackets > _MAX_BRACKETS:
        _fail(file, f"header has {brackets} lists and objects, expected at most {_MAX_BRACKETS}")
    try:
        text = raw.decode("utf-8")
        if not _OBJECT.match(text):
            raise ValueError(f"it starts with {_shown(text[:1])}, expected '{{'")
        table: dict[str, Any] = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(table, ensure_ascii=False).encode("utf-8")  # raises on a lone surrogate
    except RecursionError:
        _fail(file, f"header is nested too deep, expected at most {_MAX_DEPTH} levels")
    except ValueError as error:
        message = str(error)
    else:
        return table
    _fail(file, f"header is not valid JSON: {message}")


def _metadata(value: Any, file: FileRef) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict:
        _fail(file, f"__metadata__ is {_shown(value)}, expected an object of strings")
    for key, text in value.items():
        if type(text) is not str:
            _fail(file, f"__metadata__ {_shown(key)} is {_shown(text)}, expected a string")
    return value


def _tensor(name: str, entry: Any, base: int, file: FileRef) -> TensorRef:
    if len(name) > MAX_NAME or _CONTROL.search(name):
        problem = f"has {len(name)} characters or a control character"
        _fail(file, f"tensor name {_shown(name)} {problem}, expected printable and at most {MAX_NAME}")
    if type(entry) is not dict:
        _fail(file, f"entry is {_shown(entry)}, expected an object", name)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if type(dtype) is not str or dtype not in DTYPE_BITS:
        _fail(file, f"dtype is {_shown(dtype)}, expected one of {', '.join(DTYPE_BITS)}", name)
    dims = _dims(shape, file, name)
    begin, end = _offsets(offsets, file, name)
    need = prod(dims) * DTYPE_BITS[dtype]
    if (end - begin) * 8 != need:
        size = f"{need // 8} bytes" if need % 8 == 0 else f"{need} bits, which is no whole byte"
        _fail(file, f"offsets span {end - begin} bytes, {dtype} {shape} needs {size}", name)
    return TensorRef(file, name, dtype, dims, base + begin, base + end)


def _dims(shape: Any, file: FileRef, name: str) -> tuple[int, ...]:
    if type(shape) is not list or len(shape) > MAX_DIMS:
        _fail(file, f"shape is {_shown(shape)}, expected a list of at most {MAX_DIMS} dimensions", name)
    count = 1
    for dim in shape:
        if type(dim) is not int or dim < 0:
            _fail(file, f"shape has the dimension {_shown(dim)}, expected a whole number >= 0", name)
        count *= dim
        if count >= _COUNT_LIMIT or dim >= _COUNT_LIMIT:
            _fail(file, f"shape {shape} overflows: expected fewer than 2^63 elements", name)
    return tuple(shape)


def _offsets(offsets: Any, file: FileRef, name: str) -> tuple[int, int]:
    if type(offsets) is not list or len(offsets) != 2:
        _fail(file, f"data_offsets is {_shown(offsets)}, expected a list of 2", name)
    begin, end = offsets
    for offset in offsets:
        if type(offset) is not int or not 0 <= offset < _COUNT_LIMIT:
            _fail(file, f"data_offsets has {_shown(offset)}, expected a whole number in [0, 2^63)", name)
    if begin > end:
        _fail(file, f"data_offsets are [{begin}, {end}], expected begin <= end", name)
    return begin, end


def _check_layout(tensors: Sequence[TensorRef], base: int, file: FileRef) -> None:
    position = base
    for tensor in tensors:
        if tensor.start != position:
            what = "overlaps the tensor before it" if tensor.start < position else "leaves a hole before it"
            found, expected = tensor.start - base, position - base
            _fail(file, f"{what}: it begins at offset {found}, expected {expected}", tensor.name)
        position = tensor.stop
    if position != file.size:
        what = "trailing bytes" if position < file.size else "truncated"
        _fail(file, f"{what}: the tensors end at byte {position}, file has {file.size}")


def _ignored_keys(table: Mapping[str, dict[str, Any]], file: FileRef) -> tuple[str, ...]:
    extras: dict[str, int] = {}
    for name, entry in table.items():
        if len(entry) == len(_ENTRY_KEYS):
            continue
        for key in entry.keys() - _ENTRY_KEYS:
            if _too_deep(entry[key]):
                _fail(file, f"key {_shown(key)} is nested too deep, expected {_MAX_DEPTH} levels", name)
            extras[key] = extras.get(key, 0) + 1
    return tuple(f"key {_shown(key)} ignored in {extras[key]} entries" for key in sorted(extras)[:_MAX_NOTES])


def _too_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(_MAX_DEPTH):
        nodes = [node for node in layer if isinstance(node, list | dict)]
        layer = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
    return bool(layer)
