"""Stored bytes as torch tensors: the device's side of decode.py, without a float64 copy on the host."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Upload: TypeAlias = "Callable[[NDArray[np.uint8]], Tensor]"
"""Moves bytes (n,) to a device, as a uint8 tensor (n,)."""

_TORCH: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def on_device(stored: NDArray[Any], dtype: str, upload: Upload) -> "Tensor":
    """The values of an array in its stored type, as a tensor whose cast to float64 is `decode.to_float64`.

    Only the stored bytes travel; a strided array is made contiguous first. `dtype` is safetensors' name of
    one of the types that decode.py supports.
    """
    import torch

    codes = np.ascontiguousarray(stored)
    raw = upload(codes.reshape(-1).view(np.uint8))
    return raw.view(getattr(torch, _TORCH[dtype])).view(stored.shape)
