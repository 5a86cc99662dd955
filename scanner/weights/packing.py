"""Codes out of words: where each quantiser keeps code k of a row, and the values of its small floats."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.results import FloatArray

Places: TypeAlias = tuple[NDArray[np.int64], NDArray[np.uint64]]
"""For each code: the word that holds its lowest bit, and that bit's place in the word."""

Order: TypeAlias = Callable[[NDArray[np.int64]], Places]
"""Code numbers along a row -> their places."""

_AWQ_NIBBLES: Final = np.array([0, 4, 1, 5, 2, 6, 3, 7])


def dense(bits: int, width: int = 32) -> Order:
    """Codes end to end in little-endian words of `width` bits, across their borders."""

    def places(k: NDArray[np.int64]) -> Places:
        return k * bits // width, (k * bits % width).astype(np.uint64)

    return places


def within_words(bits: int, width: int = 32) -> Order:
    """As many codes a word as fit whole, lowest bits first; the bits left over are padding."""
    each = width // bits

    def places(k: NDArray[np.int64]) -> Places:
        return k // each, (k % each * bits).astype(np.uint64)

    return places


def high_nibble_first(k: NDArray[np.int64]) -> Places:
    """Two 4-bit codes a byte, the first in the high half (bitsandbytes)."""
    return k // 2, (4 * (1 - k % 2)).astype(np.uint64)


def awq_order(k: NDArray[np.int64]) -> Places:
    """Eight 4-bit codes a word in AutoAWQ's interleaved order (gemm)."""
    return k // 8, (4 * _AWQ_NIBBLES[k % 8]).astype(np.uint64)


def fields(words: NDArray[Any], places: Places, bits: int, width: int = 32) -> NDArray[np.int64]:
    """Codes at `places` along the last axis of unsigned `words`, (..., number of places).

    A field that runs over the end of its word goes on in the next one; after the last word come zeros.
    """
    word, shift = places
    low = words[..., word].astype(np.uint64)
    following = np.minimum(word + 1, words.shape[-1] - 1)
    high = np.where(word + 1 < words.shape[-1], words[..., following], 0).astype(np.uint64)
    whole = low | (high << np.uint64(width))
    return ((whole >> shift) & np.uint64((1 << bits) - 1)).astype(np.int64)


def small_float(exponent_bits: int, mantissa_bits: int, bias: int) -> FloatArray:
    """Values of all codes of a float without Inf and NaN: sign, exponent, mantissa from the highest bit."""
    code = np.arange(1 << (exponent_bits + mantissa_bits))
    exponent, mantissa = code >> mantissa_bits, (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    value = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    return np.concatenate([value, -value])


E2M1: Final = small_float(2, 1, bias=1)
"""The 4-bit float of MXFP4 and NVFP4."""
E2M3: Final = small_float(2, 3, bias=1)
"""The 6-bit float of MXFP6."""


def powers_of_two(codes: NDArray[np.uint8]) -> FloatArray:
    """E8M0 scales: 2^(code - 127); 255 is NaN."""
    return np.where(codes == 255, np.nan, np.exp2(codes.astype(np.float64) - 127.0))
