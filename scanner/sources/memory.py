"""A model that is already in memory: a state dict of numpy arrays or torch tensors."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from scanner.sources.base import Span
from schemas.refs import Buffer, FileRef, RepoRef, Repository

_FILE = "model.safetensors"

_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bool": "BOOL",
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
}


class MemorySource:
    """Serves a state dict as the safetensors file it would be saved as, without copying the weights."""

    def __init__(self, state_dict: Mapping[str, Any], repo_id: str = "memory/state_dict") -> None:
        stored = {name: as_stored(tensor) for name, tensor in state_dict.items()}
        arrays = [np.ravel(array).view(np.uint8) for _, array in stored.values()]
        self._pieces = [np.frombuffer(_header(stored), dtype=np.uint8), *arrays]
        self._starts = list(accumulate((piece.size for piece in self._pieces), initial=0))
        digest = hashlib.blake2b(digest_size=20)
        for piece in self._pieces:
            digest.update(piece.data)
        ref = RepoRef(repo_id, digest.hexdigest())
        self._file = FileRef(ref, _FILE, self._starts[-1], digest.hexdigest())

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """Return the one repository there is; its revision is the hash of the content."""
        return Repository(ref=self._file.repo, files=(self._file,))

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Return the bytes start..stop of the virtual file."""
        return bytes(self._slice(start, stop))

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield each span: the tensor's own bytes, not a copy of them, where it lies in one tensor."""
        for start, stop in spans:
            yield self._slice(start, stop)

    def waits(self, file: FileRef, spans: Sequence[Span]) -> bool:
        """Nothing waits for what is in memory."""
        return False

    def close(self) -> None:
        """Nothing to release."""

    def _slice(self, start: int, stop: int) -> Buffer:
        at = bisect_right(self._starts, start) - 1
        first = self._pieces[at].data.toreadonly()[start - self._starts[at] : stop - self._starts[at]]
        rest = stop - start - len(first)
        if not rest or at + 1 == len(self._pieces):
            return first
        return b"".join([first, self._slice(stop - rest, stop)])


def as_stored(tensor: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """(safetensors dtype, C-contiguous array) of a numpy array or torch tensor.

    Little-endian, as in a file; bf16 as its 16-bit codes. Raises TypeError for anything else.
    """
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().contiguous()
        if str(tensor.dtype) == "torch.bfloat16":
            import torch

            return "BF16", tensor.view(torch.uint16).numpy()
        tensor = tensor.numpy()
    array = np.asarray(tensor)
    if array.dtype.name not in _DTYPES:
        raise TypeError(
            f"cannot read weights of type {array.dtype}: give float16, bfloat16, float32 or float64"
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return _DTYPES[array.dtype.name], np.ascontiguousarray(little).reshape(array.shape)


def _header(stored: Mapping[str, tuple[str, np.ndarray[Any, Any]]]) -> bytes:
    table, start = {}, 0
    for name, (dtype, array) in stored.items():
        stop = start + array.nbytes
        table[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text
