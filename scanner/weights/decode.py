"""Stored bytes to numbers: views in the stored type, and exact widening to float64.

BF16 and the 8-bit floats have no numpy type, so their arrays hold the raw codes (uint16, uint8) and the
safetensors dtype string travels beside the array.
"""

from collections.abc import Mapping, Sequence
from math import inf, nan, prod
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.results import FloatArray

_Float = TypeVar("_Float", np.float32, np.float64)

_STORED: Final[Mapping[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
    "F8_E4M3FNUZ": np.dtype("u1"),
    "F8_E5M2FNUZ": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "C64": np.dtype("<c8"),
}
_SUPPORTED: Final = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_OTHER_FLOATS: Final = ("F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4")


def is_float(dtype: str) -> bool:
    """Return whether `dtype` stores real floating-point numbers, decodable here or not."""
    return dtype in _SUPPORTED or dtype in _OTHER_FLOATS


def supported(dtype: str) -> bool:
    """Return whether `to_float64` and `to_float32` decode `dtype`."""
    return dtype in _SUPPORTED


def as_array(buffer: bytes | bytearray | memoryview, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """View the bytes of a tensor in their stored type, without a copy.

    BF16 comes back as uint16 codes, F8_* and BOOL as uint8 (a hostile BOOL byte may be neither 0 nor 1). The
    view is writable where `buffer` is. Raises ValueError for a sub-byte or unknown dtype, or a wrong length.
    """
    stored = _STORED.get(dtype)
    if stored is None:
        raise ValueError(f"dtype {dtype!r} has no array view, expected one of {', '.join(_STORED)}")
    found, need = memoryview(buffer).nbytes, prod(shape) * stored.itemsize
    if found != need:
        raise ValueError(f"buffer has {found} bytes, {dtype} {list(shape)} needs {need}")
    return np.frombuffer(buffer, dtype=stored).reshape(shape)


def to_float64(stored: NDArray[Any], dtype: str) -> FloatArray:
    """Decode a block of stored values to a fresh C-contiguous float64 array of the same shape, exactly.

    `stored` is (a slice of) what `as_array` returned for `dtype`. Inf and NaN are kept. Cost: 1 to 2 ns an
    element and one temporary of the block; call it block by block. Raises ValueError if `dtype` is not
    supported or not that of the array.
    """
    return _decode(stored, dtype, np.float64)


def to_float32(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Decode as `to_float64` does, to float32: exact except F64, which is rounded (inf beyond the range)."""
    return _decode(stored, dtype, np.float32)


def is_number(dtype: str) -> bool:
    """Return whether `scalar` reads `dtype`."""
    return dtype in _SUPPORTED or (dtype in _STORED and _STORED[dtype].kind in "iu" and dtype[0] in "IU")


def scalar(buffer: bytes | bytearray | memoryview, dtype: str) -> float:
    """The one number of a tensor of one element, an integer or a float. Raises ValueError for other types."""
    stored = as_array(buffer, dtype, (1,))
    return float(stored[0]) if dtype[0] in "IU" else float(to_float64(stored, dtype)[0])


def _float8_table(bits: int, bias: int, special: Mapping[int, float]) -> FloatArray:
    """Values of all 256 codes of a float with `bits` mantissa bits; `special` holds its Inf and NaN codes."""
    code = np.arange(128)
    exponent, mantissa = code >> bits, (code & (2**bits - 1)) / 2**bits
    table = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    for index, value in special.items():
        table[index] = value
    return np.concatenate([table, -table])


_FLOAT8: Final = {
    "F8_E4M3": _float8_table(bits=3, bias=7, special={0x7F: nan}),
    "F8_E5M2": _float8_table(bits=2, bias=15, special={0x7C: inf, 0x7D: nan, 0x7E: nan, 0x7F: nan}),
}


def _decode(stored: NDArray[Any], dtype: str, target: type[_Float]) -> NDArray[_Float]:
    if dtype not in _SUPPORTED:
        raise ValueError(f"dtype {dtype!r} is not decoded, expected one of {', '.join(_SUPPORTED)}")
    if stored.dtype != _STORED[dtype]:
        raise ValueError(f"array of {stored.dtype} is not stored {dtype}, expected {_STORED[dtype]}")
    values = stored
    if dtype == "BF16":
        values = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    elif dtype in _FLOAT8:
        values = _FLOAT8[dtype].astype(target)[stored]
    with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN is data here, not an accident
        return np.array(values, dtype=target, order="C", copy=None if dtype in _FLOAT8 else True)
