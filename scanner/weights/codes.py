"""Buffers of codes and of their companions -> weights; what only their contents can tell is checked here."""

import json
from collections.abc import Callable, Mapping
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.weights import decode, dequant
from scanner.weights.packing import Order, dense, fields, powers_of_two, within_words
from schemas.errors import NumericsError
from schemas.refs import Buffer, MatrixRef
from schemas.results import FailureKind, FloatArray, Scheme

QuantisedWeights = dequant.Dequantised | dequant.FlatBlocks


class _Parts:
    """The codes of a row and its companions, as arrays of their stored type."""

    def __init__(self, ref: MatrixRef, buffers: Mapping[str, Buffer], codes: Buffer) -> None:
        assert ref.packing is not None
        self.ref, self.packing = ref, ref.packing
        self._tensors, self._buffers = dict(ref.packing.companions), buffers
        self._codes = codes

    def __contains__(self, part: str) -> bool:
        return part in self._tensors

    def codes(self, *shape: int) -> NDArray[Any]:
        """The codes as stored."""
        return decode.as_array(self._codes, self.ref.tensor.dtype, shape)

    def words(self, *shape: int) -> NDArray[np.uint32]:
        """Codes in 32-bit words, without a sign."""
        return self.codes(*shape).view(np.uint32)

    def raw(self, part: str) -> NDArray[Any]:
        """A companion as stored."""
        tensor = self._tensors[part]
        return decode.as_array(self._buffers[part], tensor.dtype, tensor.shape)

    def numbers(self, part: str) -> FloatArray:
        """A companion's values; bytes of scales are powers of two."""
        tensor = self._tensors[part]
        if tensor.dtype in ("U8", "F8_E8M0"):
            return powers_of_two(self.raw(part))
        if decode.supported(tensor.dtype):
            return decode.to_float64(self.raw(part), tensor.dtype)
        return self.whole(part).astype(np.float64)

    def floats(self, part: str) -> FloatArray:
        """A companion's values in one row, where only floats have a meaning."""
        dtype = self._tensors[part].dtype
        if not decode.supported(dtype):
            raise _misfit(f"its {part} is stored as {dtype}")
        return decode.to_float64(self.raw(part), dtype).ravel()

    def whole(self, part: str) -> NDArray[np.int64]:
        """A companion of integers."""
        dtype = self._tensors[part].dtype
        if not decode.is_integer(dtype):
            raise _misfit(f"its {part} is stored as {dtype}")
        return self.raw(part).astype(np.int64)


def open_codes(ref: MatrixRef, codes: Buffer, companions: Mapping[str, Buffer]) -> QuantisedWeights:
    """Weights of a row with a `packing`, read block by block from its codes.

    `companions` holds the bytes of each companion by the name of its part. Raises NumericsError
    (quant_layout_unknown) where contents do not fit: an index out of range, a shape that codes do not fill.
    """
    assert ref.packing is not None
    try:
        return _OPENERS[ref.packing.scheme](_Parts(ref, companions, codes))
    except NumericsError:
        raise
    except (ValueError, ArithmeticError, LookupError) as error:
        raise _misfit(f"{type(error).__name__}: {error}") from error


def _gptq(parts: _Parts) -> QuantisedWeights:
    outer, inner = parts.ref.shape
    scales, bits = parts.numbers("scale"), parts.packing.bits
    groups = parts.whole("index") if "index" in parts else dequant.even_groups(inner, len(scales))
    _require_inside(groups, len(scales), "g_idx")
    return dequant.gptq(
        parts.words(ceil(inner * bits / 32), outer),
        parts.raw("zero").view(np.uint32),
        scales,
        bits=bits,
        groups=groups,
        plus_one=parts.packing.plus_one,
    )


def _awq(parts: _Parts) -> QuantisedWeights:
    outer, inner = parts.ref.shape
    zeros = parts.raw("zero").view(np.uint32)
    return dequant.awq(parts.words(inner, outer // 8), zeros, parts.numbers("scale"))


def _flat4(parts: _Parts) -> QuantisedWeights:
    state = _state(parts.raw("state").tobytes())
    shape, blocksize = state["shape"], state["blocksize"]
    packed = np.frombuffer(parts.codes(*parts.ref.tensor.shape), np.uint8)
    scales = _nested(parts, state) if "nested_scale" in parts else parts.floats("scale")
    count = prod(shape)
    if packed.size != ceil(count / 2) or scales.size != ceil(count / blocksize):
        raise _misfit(f"{packed.size} bytes and {scales.size} scales for {shape} in blocks of {blocksize}")
    values = parts.floats("value")
    if values.size != 16:
        raise _misfit(f"{values.size} values for codes of 4 bits")
    return dequant.FlatBlocks(packed=packed, values=values, scales=scales, blocksize=blocksize, shape=shape)


def _nested(parts: _Parts, state: Mapping[str, Any]) -> FloatArray:
    codes, values = parts.raw("scale").ravel(), parts.floats("nested_value")
    scales, blocksize = parts.floats("nested_scale"), state["nested_blocksize"]
    if codes.dtype != np.uint8 or values.size != 256 or scales.size != ceil(codes.size / blocksize):
        raise _misfit("its nested scales are of another size")
    return dequant.nested_scales(codes, values, scales, blocksize, state["nested_offset"])


def _state(text: bytes) -> dict[str, Any]:
    """The facts of a bitsandbytes quant_state that the formula needs."""
    try:
        stated = json.loads(text)
        rows, columns = stated["shape"]
        found = {"shape": (rows, columns), "blocksize": stated["blocksize"]}
        found |= {"nested_blocksize": stated.get("nested_blocksize", 1)}
        offset = float(stated.get("nested_offset", 0.0))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _misfit("its quant_state is no JSON with a two-sided shape and a blocksize") from error
    whole = (rows, columns, found["blocksize"], found["nested_blocksize"])
    if not all(type(n) is int and 0 < n < 1 << 31 for n in whole) or not np.isfinite(offset):
        raise _misfit("its quant_state has no usable shape or blocksize")
    return found | {"nested_offset": offset}


def _row8(parts: _Parts) -> QuantisedWeights:
    if "layout" in parts and parts.raw("layout").any():
        raise _misfit("its codes are tiled for one kind of GPU")
    codes = dequant.WholeCodes(parts.codes(*parts.ref.shape), "I8")
    return dequant.scaled(codes, parts.numbers("scale") / 127.0)


def _scaled(parts: _Parts) -> QuantisedWeights:
    codes = dequant.WholeCodes(parts.codes(*parts.ref.shape), parts.ref.tensor.dtype)
    zeros = parts.numbers("zero") if "zero" in parts else None
    return dequant.scaled(codes, parts.numbers("scale"), zeros)


def _blocks(parts: _Parts) -> QuantisedWeights:
    assert parts.packing.block is not None
    codes = dequant.WholeCodes(parts.codes(*parts.ref.shape), parts.ref.tensor.dtype)
    return dequant.blockwise(codes, parts.numbers("scale"), parts.packing.block)


def _packed(parts: _Parts) -> QuantisedWeights:
    rows, width = parts.ref.tensor.shape
    bits, stated = parts.packing.bits, parts.whole("shape").ravel()
    columns = int(stated[1]) if stated.size == 2 and stated[0] == rows and stated[1] > 0 else 0
    order = _order_of(width, columns, bits)
    scales = parts.numbers("scale")
    if not 0 < scales.shape[1] <= columns:
        raise _misfit(f"{scales.shape[1]} groups of scales for {columns} columns")
    groups = parts.whole("index") if "index" in parts else None
    if groups is not None:
        _require_inside(groups, scales.shape[1], "weight_g_idx")
        if groups.size != columns:
            raise _misfit(f"{groups.size} entries of weight_g_idx for {columns} columns")
    zeros = _packed_zeros(parts, rows, scales.shape[1], bits) if "zero" in parts else None
    return dequant.pack_quantized(
        parts.words(rows, width), scales, bits=bits, order=order, columns=columns, zeros=zeros, groups=groups
    )


def _order_of(width: int, columns: int, bits: int) -> Order:
    """End to end since compressed-tensors 0.18; before, whole codes in each word."""
    if columns and width == ceil(columns * bits / 32):
        return dense(bits)
    if columns and width == ceil(columns / (32 // bits)):
        return within_words(bits)
    raise _misfit(f"{width} words for {columns} codes of {bits} bits")


def _packed_zeros(parts: _Parts, rows: int, groups: int, bits: int) -> FloatArray:
    """Zero points packed down the rows as codes are along them."""
    words = parts.raw("zero").view(np.uint32)
    if words.ndim != 2 or words.shape[1] != groups:
        raise _misfit(f"zero points {words.shape} for {groups} groups")
    order = _order_of(words.shape[0], rows, bits)
    codes = fields(words.T, order(np.arange(rows)), bits).T
    return codes.astype(np.float64) - (1 << (bits - 1))


def _float4(parts: _Parts) -> QuantisedWeights:
    rows, columns = parts.ref.shape
    scales = parts.numbers("scale").reshape(rows, -1)
    if "global" in parts:
        overall = float(parts.numbers("global").ravel()[0])
        if not overall:
            raise _misfit("its global scale is zero")
        scales = scales / overall if parts.packing.flip else scales * overall
    return dequant.float4(parts.codes(rows, columns // 2).view(np.uint8), scales)


def _float6(parts: _Parts) -> QuantisedWeights:
    rows, columns = parts.ref.shape
    return dequant.float6(parts.codes(rows, columns * 3 // 4), parts.numbers("scale"))


def _int4_rows(parts: _Parts) -> QuantisedWeights:
    rows, columns = parts.ref.shape
    return dequant.int4_rows(parts.codes(rows // 2, columns), parts.numbers("scale"))


def _require_inside(groups: NDArray[np.int64], count: int, name: str) -> None:
    if groups.size and not 0 <= groups.min() <= groups.max() < count:
        raise _misfit(f"{name} points outside the {count} groups of scales")


def _misfit(what: str) -> NumericsError:
    kind = FailureKind.QUANT_LAYOUT_UNKNOWN
    return NumericsError(kind, f"{kind.sentence}: {what}")


_OPENERS: Mapping[Scheme, Callable[[_Parts], QuantisedWeights]] = {
    Scheme.GPTQ: _gptq,
    Scheme.AWQ: _awq,
    Scheme.FLAT4: _flat4,
    Scheme.ROW8: _row8,
    Scheme.SCALED: _scaled,
    Scheme.BLOCKS: _blocks,
    Scheme.PACKED: _packed,
    Scheme.FLOAT4: _float4,
    Scheme.FLOAT6: _float6,
    Scheme.INT4_ROWS: _int4_rows,
}
