"""Stored bytes to numbers: views in the stored type, and exact widening to float64.

BF16 and the 8-bit floats have no numpy type, so their arrays hold the raw codes (uint16, uint8) and the
safetensors dtype string travels beside the array.
"""

from collections.abc import Mapping, Sequence
from math import inf, nan, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scanner.weights.packing import small_float
from schemas.refs import Buffer
from schemas.results import FloatArray

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
    """Return whether `to_float64` decodes `dtype`."""
    return dtype in _SUPPORTED


def as_array(buffer: Buffer, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
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
    if dtype not in _SUPPORTED:
        raise ValueError(f"dtype {dtype!r} is not decoded, expected one of {', '.join(_SUPPORTED)}")
    if stored.dtype != _STORED[dtype]:
        raise ValueError(f"array of {stored.dtype} is not stored {dtype}, expected {_STORED[dtype]}")
    if dtype in _FLOAT8:
        return np.array(_FLOAT8[dtype][stored], order="C", copy=None)
    values = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32) if dtype == "BF16" else stored
    with np.errstate(invalid="ignore"):  # a signalling NaN is data here, not an accident
        return np.array(values, dtype=np.float64, order="C")


def is_integer(dtype: str) -> bool:
    """Return whether `dtype` stores integers; bytes of booleans or of small floats are none."""
    return dtype in _STORED and dtype[0] in "IU"


def is_number(dtype: str) -> bool:
    """Return whether `scalar` reads `dtype`."""
    return supported(dtype) or is_integer(dtype)


def scalar(buffer: Buffer, dtype: str) -> float:
    """The one number of a tensor of one element, an integer or a float. Raises ValueError for other types."""
    stored = as_array(buffer, dtype, (1,))
    return float(stored[0]) if is_integer(dtype) else float(to_float64(stored, dtype)[0])


def _float8(exponent_bits: int, mantissa_bits: int, bias: int, special: Mapping[int, float]) -> FloatArray:
    """Values of all 256 codes; `special` holds the Inf and NaN among them, without a sign."""
    table = small_float(exponent_bits, mantissa_bits, bias)
    for code, value in special.items():
        table[[code, code + 128]] = value, -value
    return table


_FLOAT8: Final = {
    "F8_E4M3": _float8(4, 3, bias=7, special={0x7F: nan}),
    "F8_E5M2": _float8(5, 2, bias=15, special={0x7C: inf, 0x7D: nan, 0x7E: nan, 0x7F: nan}),
}
