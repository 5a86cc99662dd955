"""Decoding on a device against decoding on the host, every code of every small type, bit for bit."""

import numpy as np
import pytest
import torch

from scanner.spectra.staging import Staging
from scanner.weights import decode
from scanner.weights.tensors import on_device

CPU = torch.device("cpu:0")
BITS = {"F8_E4M3": 8, "F8_E5M2": 8, "BF16": 16, "F16": 16, "F32": 32, "F64": 64}


def codes(dtype):
    """Every code of the narrow types, random bits of the wide ones."""
    bits = BITS[dtype]
    if bits > 16:
        return np.random.default_rng(0).bytes(8192)
    return np.arange(2**bits).astype(f"<u{bits // 8}").tobytes()


@pytest.mark.parametrize("dtype", BITS)
def test_a_device_decodes_as_the_host_does(dtype):
    raw = codes(dtype)
    stored = decode.as_array(raw, dtype, (16, len(raw) * 8 // BITS[dtype] // 16))
    found = on_device(stored, dtype, Staging(CPU).send).to(torch.float64).numpy()
    expected = decode.to_float64(stored, dtype)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(found[number].view(np.int64), expected[number].view(np.int64))


def test_a_strided_array_arrives_whole():
    stored = np.arange(24, dtype="<f4").reshape(4, 6)[:, ::2]
    np.testing.assert_array_equal(on_device(stored, "F32", Staging(CPU).send).numpy(), stored)


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 14, 100])
def test_bytes_travel_in_chunks_without_a_seam(size):
    raw = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    raw.flags.writeable = False
    staging = Staging(CPU, chunk=7)
    first, again = staging.send(raw), staging.send(raw[::-1])
    np.testing.assert_array_equal(first.numpy(), raw)
    np.testing.assert_array_equal(again.numpy(), raw[::-1])
