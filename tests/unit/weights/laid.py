"""Tensors without weights, as a header would list them."""

from math import prod

from scanner.weights.header import DTYPE_BITS
from schemas.refs import FileRef, RepoRef, TensorRef

FILE = FileRef(RepoRef("owner/name", "0" * 40), "model.safetensors", 1 << 40, "content")


def laid(shapes, file=FILE):
    """Tensors of one file, end to end, from name: (dtype, *shape)."""
    tensors, start = [], 0
    for name, (dtype, *shape) in shapes.items():
        stop = start + prod(shape) * DTYPE_BITS[dtype] // 8
        tensors.append(TensorRef(file, name, dtype, tuple(shape), start, stop))
        start = stop
    return tensors
