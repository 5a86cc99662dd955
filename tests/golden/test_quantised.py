"""Codes as real quantisers write them are read as the weights that the quantisers' own code reads."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from scanner.planning import read_header
from scanner.sources.local import LocalSource
from scanner.weights.codes import open_codes
from scanner.weights.schemes import quantised
from schemas.refs import MatrixRef
from schemas.results import SkipReason

FILE = Path(__file__).parent / "quantised.safetensors"
METHODS = {
    "packed3": "compressed-tensors",
    "packed4": "compressed-tensors",
    "packed8": "compressed-tensors",
    "packed4_asymmetric": "compressed-tensors",
    "int8_channel": "compressed-tensors",
    "int8_tensor": "compressed-tensors",
    "fp8_channel": "fp8",
    "fp8_tensor": "fp8",
    "mxfp4": "mxfp4",
    "mxfp6": "mxfp6",
    "mxfp8": "fp8",
    "nvfp4": "nvfp4",
    "nf4": "bitsandbytes",
    "nf4_nested": "bitsandbytes",
    "fp4_nested": "bitsandbytes",
    "int8_rows": "bitsandbytes",
}
ROUNDED = {"nvfp4": 4e-3, "int8_rows": 1e-3}
"""What the reference itself rounds: to bfloat16, to float16."""


@pytest.fixture(scope="module")
def source():
    source = LocalSource(FILE)
    return source, source.repository("made/quantised")


def tensors_of(source, name):
    held, repository = source
    (file,) = repository.files
    stem = f"{name}."
    found = [t for t in read_header(held, file) if t.name.startswith(stem)]
    renamed = [replace(t, name=f"layer.{t.name.removeprefix(stem)}") for t in found]
    return {t.name: t for t in renamed}


def settings(name):
    with safe_open(FILE, "numpy") as handle:
        bits = json.loads(handle.metadata()["bits"]).get(name)
    return {"quantization_config": {"config_groups": {"group_0": {"weights": {"num_bits": bits}}}}}


def row_of(tensor, found):
    return MatrixRef(
        tensor=tensor,
        index=0,
        shape=found.shape,
        start=tensor.start,
        stop=tensor.stop,
        packing=found.packing,
    )


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_those_of_the_reference(source, name):
    named = tensors_of(source, name)
    codes = named.get("layer.weight_packed") or named["layer.weight"]
    found = quantised(codes, named, settings(name))
    assert found.method == METHODS[name]
    row = row_of(codes, found)
    held = source[0]
    buffers = {part: held.read(t.file, t.start, t.stop) for part, t in found.packing.companions}
    weights = open_codes(row, held.read(codes.file, codes.start, codes.stop), buffers)
    with safe_open(FILE, "numpy") as handle:
        expected = handle.get_tensor(f"expected.{name}")
    got = weights.block(slice(None), slice(None))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=ROUNDED.get(name, 3e-7), atol=1e-9 * scale)


@pytest.mark.parametrize("name", METHODS)
def test_every_other_tensor_is_a_companion(source, name):
    named = tensors_of(source, name)
    rest = [t for part, t in named.items() if part not in ("layer.weight", "layer.weight_packed")]
    assert rest
    assert {quantised(t, named, settings(name)) for t in rest} == {SkipReason.QUANT_COMPANION}
