"""Every code of the small floats against torch, and the shape of the views."""

import numpy as np
import pytest
import torch
from stored import TORCH

from scanner.weights.decode import as_array, is_float, supported, to_float64

OTHERS = {
    "BOOL": (np.uint8, 1),
    "U8": (np.uint8, 1),
    "I8": (np.int8, 1),
    "U16": (np.uint16, 2),
    "I16": (np.int16, 2),
    "U32": (np.uint32, 4),
    "I32": (np.int32, 4),
    "U64": (np.uint64, 8),
    "I64": (np.int64, 8),
    "C64": (np.complex64, 8),
    "F8_E8M0": (np.uint8, 1),
    "F8_E4M3FNUZ": (np.uint8, 1),
    "F8_E5M2FNUZ": (np.uint8, 1),
}


def torch_values(codes, dtype):
    raw = torch.frombuffer(bytearray(codes.tobytes()), dtype=torch.uint8)
    return raw.view(TORCH[dtype]).to(torch.float64).numpy()


def assert_same_values(found, expected):
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize(
    ("dtype", "code", "count"),
    [("BF16", "<u2", 65536), ("F16", "<u2", 65536), ("F8_E4M3", "u1", 256), ("F8_E5M2", "u1", 256)],
)
def test_every_code_has_the_value_torch_gives_it(dtype, code, count):
    codes = np.arange(count).astype(code)
    stored = as_array(codes.tobytes(), dtype, (count,))
    expected = torch_values(codes, dtype)
    assert_same_values(to_float64(stored, dtype), expected)


@pytest.mark.parametrize("dtype", ["F64", "F32"])
def test_wide_floats_keep_every_bit_pattern(dtype):
    codes = np.random.default_rng(0).integers(0, 256, 8 * 4096, dtype=np.uint8)
    codes[:16] = np.array([1, 0, 0, 0, 0, 0, 0xF0, 0x7F] * 2, dtype=np.uint8)  # signalling NaN, denormals
    shape = (64, codes.size // (64 * (8 if dtype == "F64" else 4)))
    found = to_float64(as_array(codes.tobytes(), dtype, shape), dtype)
    assert_same_values(found.ravel(), torch_values(codes, dtype))


@pytest.mark.parametrize(
    ("dtype", "code", "value"),
    [
        ("BF16", 0x3F80, 1.0),
        ("BF16", 0x0001, 2.0**-133),
        ("F16", 0x7BFF, 65504.0),
        ("F16", 0x0001, 2.0**-24),
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x01, 2.0**-9),
        ("F8_E4M3", 0x80, -0.0),
        ("F8_E5M2", 0x7B, 57344.0),
        ("F8_E5M2", 0x01, 2.0**-16),
        ("F8_E5M2", 0xFC, -np.inf),
    ],
)
def test_known_codes(dtype, code, value):
    width = 1 if dtype.startswith("F8") else 2
    stored = as_array(code.to_bytes(width, "little"), dtype, ())
    found = to_float64(stored, dtype)
    assert found.shape == ()
    assert_same_values(found.reshape(1), np.array([value]))


@pytest.mark.parametrize("dtype", TORCH)
def test_blocks_of_any_layout_come_out_contiguous_fresh_and_equal(dtype):
    values = torch.from_numpy(np.random.default_rng(1).standard_normal(60)).to(TORCH[dtype])
    stored = as_array(values.view(torch.uint8).numpy().tobytes(), dtype, (6, 10))
    whole = to_float64(stored, dtype)
    cuts = (stored[1:4, 2:9], whole[1:4, 2:9]), (stored.T, whole.T), (stored[::2, ::-3], whole[::2, ::-3])
    for block, expected in cuts:
        found = to_float64(block, dtype)
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert not np.shares_memory(found, stored)
        np.testing.assert_array_equal(found, expected)


def test_the_view_is_no_copy_and_as_writable_as_its_buffer():
    buffer = bytearray(24)
    view = as_array(buffer, "F32", (2, 3))
    buffer[:4] = np.float32(1.5).tobytes()
    assert view[0, 0] == 1.5
    assert view.flags.writeable
    assert not as_array(bytes(buffer), "F32", (2, 3)).flags.writeable


def test_a_view_may_start_at_an_odd_byte():
    buffer = b"x" + np.arange(5, dtype="<f4").tobytes()
    stored = as_array(memoryview(buffer)[1:], "F32", (5,))
    np.testing.assert_array_equal(to_float64(stored, "F32"), np.arange(5.0))


@pytest.mark.parametrize("dtype", [*TORCH, *OTHERS])
def test_empty_tensors(dtype):
    stored = as_array(bytearray(), dtype, (0, 7))
    assert stored.shape == (0, 7)
    if supported(dtype):
        assert to_float64(stored, dtype).shape == (0, 7)


@pytest.mark.parametrize("dtype", OTHERS)
def test_other_dtypes_are_viewed_but_not_decoded(dtype):
    stored_type, width = OTHERS[dtype]
    stored = as_array(bytes(range(8)) * width, dtype, (2, 4))
    assert stored.dtype == stored_type
    assert not supported(dtype)
    with pytest.raises(ValueError, match=f"'{dtype}' is not decoded, expected one of F64"):
        to_float64(stored, dtype)


def test_which_dtypes_are_floats():
    floats = [*TORCH, "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4"]
    assert all(is_float(dtype) for dtype in floats)
    assert not any(is_float(dtype) for dtype in OTHERS if not dtype.startswith("F"))
    assert [dtype for dtype in floats if supported(dtype)] == list(TORCH)
    assert not is_float("F128")


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F128", ""])
def test_dtypes_without_a_view(dtype):
    with pytest.raises(ValueError, match="has no array view"):
        as_array(b"\0" * 8, dtype, (8,))


@pytest.mark.parametrize("length", [0, 23, 25])
def test_a_buffer_of_the_wrong_length(length):
    with pytest.raises(ValueError, match=rf"buffer has {length} bytes, F32 \[2, 3\] needs 24"):
        as_array(bytes(length), "F32", (2, 3))


def test_an_array_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match="array of float16 is not stored BF16, expected uint16"):
        to_float64(np.zeros(3, np.float16), "BF16")
