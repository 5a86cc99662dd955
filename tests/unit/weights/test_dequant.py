"""Weights behind codes: each scheme packed here by its own description, then read back whole and in blocks."""

import numpy as np
import pytest

from scanner.weights import dequant
from scanner.weights.packing import dense, within_words

RNG = np.random.default_rng(0)
OUT, IN, GROUP = 48, 96, 32


def pack_along(codes, bits):
    """Rows of codes -> rows of 32-bit words, little-endian, end to end."""
    words = -(-codes.shape[1] * bits // 32)
    numbers = [sum(int(c) << (k * bits) for k, c in enumerate(row)) for row in codes]
    return np.array([[(n >> (32 * w)) & 0xFFFFFFFF for w in range(words)] for n in numbers], np.uint32)


def check(weights, expected):
    """Equal as a whole, and in any block of rows and columns."""
    assert weights.shape == expected.shape
    whole = weights.block(slice(None), slice(None))
    np.testing.assert_allclose(whole, expected, rtol=1e-15, atol=0)
    assert whole.flags.c_contiguous
    for rows, columns in (
        (slice(5, 17), slice(None)),
        (slice(None), slice(31, 70)),
        (slice(40, 200), slice(90, 200)),
    ):
        np.testing.assert_array_equal(weights.block(rows, columns), whole[rows, columns])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("plus_one", [True, False])
def test_gptq(bits, plus_one):
    q = RNG.integers(0, 1 << bits, (IN, OUT))
    zeros = RNG.integers(0, 1 << bits, (IN // GROUP, OUT))
    scales = RNG.random((IN // GROUP, OUT)) + 0.1
    groups = RNG.permutation(np.arange(IN) // GROUP)
    shift = int(plus_one)
    expected = ((q - (zeros + shift)[groups] % (1 << bits)) * scales[groups]).T
    made = dequant.gptq(
        pack_along(q.T, bits).T,
        pack_along(zeros, bits),
        scales,
        bits=bits,
        groups=groups,
        plus_one=plus_one,
    )
    check(made, expected)


def test_awq():
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    q, zeros = RNG.integers(0, 16, (IN, OUT)), RNG.integers(0, 16, (IN // GROUP, OUT))
    scales = RNG.random((IN // GROUP, OUT)) + 0.1

    def words(codes):
        cells = codes.reshape(len(codes), -1, 8).astype(np.uint64)
        return sum(cells[..., t] << np.uint64(4 * order[t]) for t in range(8)).astype(np.uint32)

    groups = np.arange(IN) // GROUP
    check(dequant.awq(words(q), words(zeros), scales), ((q - zeros[groups]) * scales[groups]).T)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_pack_quantized(bits, symmetric):
    q = RNG.integers(-(1 << (bits - 1)), 1 << (bits - 1), (OUT, IN))
    scales = RNG.random((OUT, IN // GROUP)) + 0.1
    zeros = None if symmetric else RNG.integers(-1, 1, scales.shape).astype(float)
    spread = np.repeat(scales, GROUP, axis=1)
    expected = (q - (0 if zeros is None else np.repeat(zeros, GROUP, axis=1))) * spread
    made = dequant.pack_quantized(
        pack_along(q + (1 << (bits - 1)), bits), scales, bits=bits, order=dense(bits), columns=IN, zeros=zeros
    )
    check(made, expected)


def test_pack_quantized_of_old_kept_codes_within_words():
    q = RNG.integers(0, 32, (OUT, IN))
    padded = np.pad(q, ((0, 0), (0, -IN % 6))).reshape(OUT, -1, 6).astype(np.uint64)
    words = sum(padded[..., t] << np.uint64(5 * t) for t in range(6)).astype(np.uint32)
    made = dequant.pack_quantized(words, np.ones((OUT, 1)), bits=5, order=within_words(5), columns=IN)
    check(made, q - 16.0)


def test_pack_quantized_with_columns_in_any_order():
    q, groups = RNG.integers(0, 16, (OUT, IN)), RNG.permutation(np.arange(IN) // GROUP)
    scales = RNG.random((OUT, IN // GROUP)) + 0.1
    made = dequant.pack_quantized(pack_along(q, 4), scales, bits=4, order=dense(4), columns=IN, groups=groups)
    check(made, (q - 8.0) * scales[:, groups])


@pytest.mark.parametrize("shape", [(), (1,), (OUT,), (OUT, 1), (OUT, IN // GROUP), (3, 4)])
def test_scales_of_a_tensor_its_rows_its_groups_and_its_blocks(shape):
    codes = RNG.integers(-128, 128, (OUT, IN)).astype(np.int8)
    scales = RNG.random(shape) + 0.1
    grid = np.atleast_1d(scales).reshape(len(np.atleast_1d(scales)), -1)
    spread = np.kron(grid, np.ones((OUT // grid.shape[0], IN // grid.shape[1])))
    check(dequant.scaled(dequant.WholeCodes(codes, "I8"), np.asarray(scales)), codes * spread)


def test_blocks_with_ragged_edges():
    codes = RNG.integers(0, 255, (OUT, IN)).astype(np.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    made = dequant.blockwise(dequant.WholeCodes(codes, "F8_E4M3"), RNG.random((2, 3)) + 0.1, (32, 40))
    plain = dequant.WholeCodes(codes, "F8_E4M3").block(slice(None), slice(None))
    check(made, plain * np.kron(made.scales, np.ones((32, 40)))[:OUT, :IN])


def test_float4_and_float6():
    four = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    codes, scales = RNG.integers(0, 16, (OUT, IN)), RNG.random((OUT, IN // 32)) + 0.1
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)
    values = np.where(codes < 8, 1, -1) * four[codes % 8]
    check(dequant.float4(packed, scales), values * np.repeat(scales, 32, axis=1))
    six = RNG.integers(0, 64, (OUT, IN))
    exponent, mantissa = six >> 3 & 3, (six & 7) / 8
    values = np.where(six < 32, 1, -1) * np.where(
        exponent == 0, mantissa, (1 + mantissa) * 2.0 ** (exponent - 1)
    )
    whole = pack_along(six, 6).view(np.uint8)
    check(dequant.float6(whole, scales), values * np.repeat(scales, 32, axis=1))


def test_int4_with_two_rows_a_byte():
    q, scales = RNG.integers(-8, 8, (OUT, IN)), RNG.random((OUT, IN // GROUP)) + 0.1
    packed = (q[0::2] & 15 | (q[1::2] & 15) << 4).astype(np.uint8)
    check(dequant.int4_rows(packed, scales), q * np.repeat(scales, GROUP, axis=1))


@pytest.mark.parametrize("blocksize", [64, 40])
def test_flat_blocks_run_over_rows(blocksize):
    codes, values = RNG.integers(0, 16, OUT * IN), RNG.standard_normal(16)
    scales = RNG.random(-(-OUT * IN // blocksize))
    packed = (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)
    expected = values[codes] * np.repeat(scales, blocksize)[: OUT * IN]
    made = dequant.FlatBlocks(
        packed=packed, values=values, scales=scales, blocksize=blocksize, shape=(OUT, IN)
    )
    check(made, expected.reshape(OUT, IN))


def test_scales_that_are_codes_themselves():
    codes, values, scales = RNG.integers(0, 256, 600).astype(np.uint8), RNG.random(256), RNG.random(3)
    expected = [values[c] * scales[j // 256] + 0.25 for j, c in enumerate(codes)]
    np.testing.assert_allclose(dequant.nested_scales(codes, values, scales, 256, 0.25), expected)
