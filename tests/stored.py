"""Weights as a file stores them, made by torch."""

import numpy as np
import torch

from scanner.weights.matrices import StoredWeights
from schemas.refs import FileRef, MatrixRef, RepoRef, TensorRef

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def stored(array: np.ndarray, dtype: str = "F64", slice_id: int | None = None) -> StoredWeights:
    """`array` rounded to `dtype`, as the bytes of a tensor."""
    raw = torch.from_numpy(array).to(TORCH[dtype]).contiguous().view(torch.uint8).numpy().tobytes()
    file = FileRef(RepoRef("owner/name", "0" * 40), "m.safetensors", len(raw), "x")
    tensor = TensorRef(file, "w", dtype, array.shape, 0, len(raw))
    ref = MatrixRef(tensor=tensor, index=0, shape=array.shape, start=0, stop=len(raw), slice_id=slice_id)
    return StoredWeights(ref, raw)
