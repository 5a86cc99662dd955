"""Bytes to a device through two pinned host buffers that take turns, so that copying and sending overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 32 << 20
"""Size of one buffer: long enough for a full-rate transfer, short enough to overlap with the next copy."""


class Staging:
    """Sends byte arrays to one device; for one thread. On torch's CPU device the buffers are plain memory."""

    def __init__(self, device: torch.device, chunk: int = CHUNK_BYTES) -> None:
        import torch

        self._device, self._chunk = device, chunk
        self._cuda = device.type == "cuda"
        self._buffers = tuple(torch.empty(chunk, dtype=torch.uint8, pin_memory=self._cuda) for _ in range(2))
        self._sent = tuple(torch.cuda.Event() for _ in range(2)) if self._cuda else ()  # type: ignore[no-untyped-call]

    def send(self, raw: NDArray[np.uint8]) -> torch.Tensor:
        """Copy bytes (n,) to a fresh uint8 tensor (n,) on the current stream; `raw` may change afterwards."""
        import torch

        there = torch.empty(raw.size, dtype=torch.uint8, device=self._device)
        for turn, start in enumerate(range(0, raw.size, self._chunk)):
            self._send(raw[start : start + self._chunk], there[start : start + self._chunk], turn % 2)
        return there

    def _send(self, piece: NDArray[np.uint8], there: torch.Tensor, turn: int) -> None:
        """Wait until the buffer is free, fill it, and let it travel."""
        if self._cuda:
            self._sent[turn].synchronize()
        buffer = self._buffers[turn][: piece.size]
        np.copyto(buffer.numpy(), piece)
        there.copy_(buffer, non_blocking=True)
        if self._cuda:
            self._sent[turn].record()
