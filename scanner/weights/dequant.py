"""Quantised codes and their scales as weights, exact in float64, block by block.

Every scheme here is W[r, c] = (q[r, c] - zero) * scale, where zero and scale belong to the group of rows
and the group of columns that (r, c) lies in. The schemes differ in how codes are packed and groups laid
out. W is [out, in], whichever way the codes are stored. Only the block asked for is unpacked.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scanner.weights import decode
from scanner.weights.packing import E2M1, E2M3, Order, awq_order, dense, fields, high_nibble_first
from schemas.results import FloatArray

Groups = NDArray[np.int64]
"""For each row (or column) of W, the row (or column) of the scales it takes."""


class Codes(Protocol):
    """Unpacked codes as float64, [rows, columns] of W."""

    @property
    def shape(self) -> tuple[int, int]: ...  # noqa: D102

    def block(self, rows: slice, columns: slice) -> FloatArray: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class WholeCodes:
    """Codes that are numbers as they are stored: 8-bit floats and integers."""

    array: NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.array.shape
        return rows, columns

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """Values of [rows, columns]."""
        part = self.array[rows, columns]
        if decode.supported(self.dtype):
            return decode.to_float64(part, self.dtype)
        return part.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCodes:
    """Codes of a few bits in the words of each line; a line is a row of W, or with `across` a column.

    `values` are those of the codes, if they are not the codes themselves less `offset`.
    """

    words: NDArray[Any]
    length: int
    order: Order
    bits: int
    offset: int = 0
    values: FloatArray | None = field(default=None, repr=False)
    across: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        lines = self.words.shape[0]
        return (self.length, lines) if self.across else (lines, self.length)

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """Values of [rows, columns]."""
        lines, along = (columns, rows) if self.across else (rows, columns)
        numbers = np.arange(self.length)[along]
        width = 8 * self.words.dtype.itemsize
        codes = fields(self.words[lines], self.order(numbers), self.bits, width)
        values = codes.astype(np.float64) - self.offset if self.values is None else self.values[codes]
        return values.T if self.across else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Dequantised:
    """Weights behind codes: what eigen.solve reads. `zeros` None means none."""

    codes: Codes
    scales: FloatArray
    row_groups: Groups
    column_groups: Groups
    zeros: FloatArray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.codes.shape

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 copy of [rows, columns]."""
        at = np.ix_(self.row_groups[rows], self.column_groups[columns])
        found = self.codes.block(rows, columns)
        if self.zeros is not None:
            found = found - self.zeros[at]
        with np.errstate(invalid="ignore", over="ignore"):  # a NaN scale makes NaN weights, which are counted
            return np.ascontiguousarray(found * self.scales[at])


def even_groups(length: int, groups: int) -> Groups:
    """Groups of equal length, but for a shorter last one."""
    return np.arange(length) // -(-length // groups)


def scaled(codes: Codes, scales: FloatArray, zeros: FloatArray | None = None) -> Dequantised:
    """One scale for each cell of an even grid over W: whole tensor, rows, column groups or blocks.

    `scales` is () or [1], [out], or a grid [a, b]; cells are ceil(out / a) by ceil(in / b), the last cropped.
    """
    grid = _grid(scales)
    rows, columns = codes.shape
    return Dequantised(
        codes=codes,
        scales=grid,
        zeros=None if zeros is None else _grid(zeros),
        row_groups=even_groups(rows, grid.shape[0]),
        column_groups=even_groups(columns, grid.shape[1]),
    )


def blockwise(codes: Codes, scales: FloatArray, block: tuple[int, int]) -> Dequantised:
    """One scale for each block of `block` rows and columns, ragged at the edges (FP8 of DeepSeek)."""
    rows, columns = codes.shape
    return Dequantised(
        codes=codes,
        scales=scales,
        row_groups=np.arange(rows) // block[0],
        column_groups=np.arange(columns) // block[1],
    )


def gptq(
    qweight: NDArray[np.uint32],
    qzeros: NDArray[np.uint32],
    scales: FloatArray,
    *,
    bits: int,
    groups: Groups,
    plus_one: bool,
) -> Dequantised:
    """GPTQ: codes run down the columns of qweight [in * bits / 32, out], zeros along the rows of qzeros.

    W[c, k] = (q[k, c] - z) * scales[groups[k], c], z = (stored + 1) mod 2^bits, or stored if not `plus_one`.
    """
    rows = scales.shape[1]
    zeros = fields(qzeros, dense(bits)(np.arange(rows)), bits)
    zeros = (zeros + int(plus_one)) % (1 << bits)
    return Dequantised(
        codes=PackedCodes(words=qweight.T, length=len(groups), order=dense(bits), bits=bits),
        scales=scales.T,
        zeros=zeros.T.astype(np.float64),
        row_groups=np.arange(rows),
        column_groups=groups,
    )


def awq(qweight: NDArray[np.uint32], qzeros: NDArray[np.uint32], scales: FloatArray) -> Dequantised:
    """AutoAWQ (gemm): 4-bit codes interleaved along rows of qweight [in, out / 8]; scales [groups, out]."""
    rows = scales.shape[1]
    zeros = fields(qzeros, awq_order(np.arange(rows)), 4)
    return Dequantised(
        codes=PackedCodes(words=qweight, length=rows, order=awq_order, bits=4, across=True),
        scales=scales.T,
        zeros=zeros.T.astype(np.float64),
        row_groups=np.arange(rows),
        column_groups=even_groups(qweight.shape[0], scales.shape[0]),
    )


def pack_quantized(
    packed: NDArray[np.uint32],
    scales: FloatArray,
    *,
    bits: int,
    order: Order,
    columns: int,
    zeros: FloatArray | None = None,
    groups: Groups | None = None,
) -> Dequantised:
    """compressed-tensors: codes + 2^(bits-1) along the rows of [out, words]; scales [out, groups]."""
    offset = 1 << (bits - 1)
    codes = PackedCodes(words=packed, length=columns, order=order, bits=bits, offset=offset)
    even = scaled(codes, scales, zeros)
    return even if groups is None else replace(even, column_groups=groups)


def float4(packed: NDArray[np.uint8], scales: FloatArray) -> Dequantised:
    """MXFP4 and NVFP4: E2M1 codes, low half of the byte first, [out, in / 2]; scales [out, in / group]."""
    length = 2 * packed.shape[1]
    return scaled(PackedCodes(words=packed, length=length, order=dense(4, 8), bits=4, values=E2M1), scales)


def float6(packed: NDArray[np.uint8], scales: FloatArray) -> Dequantised:
    """MXFP6: E2M3 codes, four in three bytes, [out, in * 3 / 4]; scales [out, in / 32]."""
    length = packed.shape[1] * 4 // 3
    return scaled(PackedCodes(words=packed, length=length, order=dense(6, 8), bits=6, values=E2M3), scales)


def int4_rows(packed: NDArray[np.uint8], scales: FloatArray) -> Dequantised:
    """ModelOpt's int4_awq: two's complement, byte [r, c] holds rows 2r (low) and 2r + 1; scales by groups."""
    signed = np.concatenate([np.arange(8.0), np.arange(-8.0, 0.0)])
    rows = 2 * packed.shape[0]
    codes = PackedCodes(words=packed.T, length=rows, order=dense(4, 8), bits=4, values=signed, across=True)
    return scaled(codes, scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatBlocks:
    """bitsandbytes NF4 and FP4: codes and blocks run through W row by row, whatever its shape.

    W.flat[e] = values[code e] * scales[e // blocksize]; the high half of a byte comes first.
    """

    packed: NDArray[np.uint8]
    values: FloatArray
    scales: FloatArray
    blocksize: int
    shape: tuple[int, int]

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 copy of [rows, columns]."""
        of_row, of_column = np.arange(self.shape[0])[rows], np.arange(self.shape[1])[columns]
        e = of_row[:, None] * self.shape[1] + of_column
        word, shift = high_nibble_first(e)
        codes = (self.packed[word].astype(np.uint64) >> shift) & np.uint64(15)
        with np.errstate(invalid="ignore", over="ignore"):
            return np.ascontiguousarray(self.values[codes] * self.scales[e // self.blocksize])


def nested_scales(
    codes: NDArray[np.uint8], values: FloatArray, scales: FloatArray, blocksize: int, offset: float
) -> FloatArray:
    """Double quantisation of bitsandbytes: scales that are themselves 8-bit codes with a scale a block."""
    return values[codes] * scales[np.arange(codes.size) // blocksize] + offset


def _grid(values: FloatArray) -> FloatArray:
    """() and [1] -> [1, 1]; [out] -> [out, 1]; a grid as it is."""
    return values if values.ndim == 2 else values.reshape(-1, 1)
