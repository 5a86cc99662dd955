"""A state dict reads as the file it would be saved as."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from scanner.planning import read_header
from scanner.sources.memory import MemorySource, as_stored

STATE = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.arange(6, dtype=np.float16),
    "empty": np.zeros((0, 3), dtype=np.float64),
    "double": np.arange(8, dtype=np.float64).reshape(2, 2, 2),
    "scalar": np.array(7, dtype=np.int64),
    "flag": np.array([True, False]),
}


def opened(state):
    source = MemorySource(state)
    (file,) = source.repository("x").files
    return source, file


def test_the_virtual_file_is_a_safetensors_file():
    source, file = opened(STATE)
    found = load(source.read(file, 0, file.size))
    assert found.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_any_span_is_that_part_of_the_file():
    source, file = opened(STATE)
    whole = source.read(file, 0, file.size)
    rng = np.random.default_rng(0)
    spans = [tuple(sorted(rng.integers(0, file.size + 1, 2).tolist())) for _ in range(200)]
    for span, found in zip(spans, source.stream(file, spans), strict=True):
        assert found == whole[slice(*span)]


def test_tensors_are_where_the_header_says():
    source, file = opened(STATE)
    for tensor in read_header(source, file):
        expected = STATE[tensor.name].tobytes()
        assert source.read(file, tensor.start, tensor.stop) == expected


def test_the_revision_is_the_content():
    same = {name: array.copy() for name, array in STATE.items()}
    changed = same | {"a": same["a"] + 1}
    revisions = [MemorySource(state).repository("x").ref.revision for state in (STATE, same, changed)]
    assert revisions[0] == revisions[1] != revisions[2]
    assert len(revisions[0]) == 40


@pytest.mark.parametrize("order", ["transposed", "strided", "big-endian"])
def test_arrays_of_any_layout_are_stored_alike(order):
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    other = {
        "transposed": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "big-endian": plain.astype(">f4"),
    }[order]
    dtype, stored = as_stored(other)
    assert (dtype, stored.tobytes(), stored.shape) == ("F32", plain.tobytes(), (3, 4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensors_are_stored_bit_for_bit(dtype):
    tensor = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    transposed = tensor.T.requires_grad_()
    name, stored = as_stored(transposed)
    assert name == {8: "F64", 4: "F32"}.get(
        tensor.element_size(), "BF16" if dtype == torch.bfloat16 else "F16"
    )
    assert stored.tobytes() == tensor.T.contiguous().view(torch.uint8).numpy().tobytes()
    assert stored.shape == (4, 5)


@pytest.mark.parametrize("value", ["text", [object()], np.zeros(2, dtype=complex), {"a": 1}])
def test_anything_else_is_refused(value):
    with pytest.raises(TypeError, match=r"cannot read weights of type .*: give float16"):
        as_stored(value)
