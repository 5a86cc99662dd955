"""Bit fields against words packed one code at a time with plain integers."""

import numpy as np
import pytest

from scanner.weights.packing import (
    E2M1,
    E2M3,
    awq_order,
    dense,
    fields,
    high_nibble_first,
    powers_of_two,
    within_words,
)


def packed(codes, bits, width=32):
    """Codes end to end, by arithmetic on one large integer."""
    number = sum(int(code) << (k * bits) for k, code in enumerate(codes))
    words = -(-len(codes) * bits // width)
    return np.array([(number >> (w * width)) & ((1 << width) - 1) for w in range(words)], f"u{width // 8}")


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("width", [8, 32])
def test_dense_fields_cross_words(bits, width):
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 77)
    words = packed(codes, bits, width)
    assert fields(words, dense(bits, width)(np.arange(77)), bits, width).tolist() == codes.tolist()
    some = np.array([70, 3, 3, 41])
    assert fields(words, dense(bits, width)(some), bits, width).tolist() == codes[some].tolist()


def test_words_of_the_field_s_own_example():
    """Codes 0..7 over and over in 3 bits."""
    words = np.array([0x88FAC688, 0xC688FAC6, 0xFAC688FA], np.uint32)
    assert fields(words, dense(3)(np.arange(32)), 3).tolist() == [k % 8 for k in range(32)]


def test_codes_that_stay_within_their_words():
    words = np.array([0b0_10101_01010_00001_11111_00000_00011, 0b11111], np.uint32)
    assert fields(words, within_words(5)(np.arange(7)), 5).tolist() == [3, 0, 31, 1, 10, 21, 31]


def test_awq_s_order():
    assert fields(np.array([0x76543210], np.uint32), awq_order(np.arange(8)), 4).tolist() == [
        0,
        4,
        1,
        5,
        2,
        6,
        3,
        7,
    ]


def test_halves_of_a_byte():
    byte = np.array([0x1F], np.uint8)
    assert fields(byte, high_nibble_first(np.arange(2)), 4, 8).tolist() == [1, 15]
    assert E2M1[fields(byte, dense(4, 8)(np.arange(2)), 4, 8)].tolist() == [-6, 0.5]


def test_small_floats():
    assert E2M1[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert (E2M1[8:] == -E2M1[:8]).all()
    assert E2M3[[1, 7, 8, 9, 31, 63]].tolist() == [0.125, 0.875, 1, 1.125, 7.5, -7.5]


def test_powers_of_two():
    assert powers_of_two(np.array([127, 128, 0, 254], np.uint8)).tolist() == [1, 2, 2.0**-127, 2.0**127]
    assert np.isnan(powers_of_two(np.array([255], np.uint8)))
