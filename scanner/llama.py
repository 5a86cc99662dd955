"""The workload by which a GPU is judged: all matrices of Llama-2-7B, random, from Gram matrices to fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.lanes import Limits, Task, solved
from scanner.ondevice import LANES, STACK, WINDOW_BYTES
from scanner.spectra.device import Answer, card, device_bytes
from scanner.spectra.tailfit import fit_tail
from schemas.errors import NumericsError
from schemas.results import FloatArray

if TYPE_CHECKING:
    import torch

HIDDEN, INNER, VOCABULARY, BLOCKS = 4096, 11008, 32000, 32

_SIGMA = 0.02


def shapes(shrink: int = 1) -> list[tuple[int, int]]:
    """The 226 matrices in the order of the files, every side divided by `shrink`."""
    hidden, inner, words = HIDDEN // shrink, INNER // shrink, VOCABULARY // shrink
    block = [(hidden, hidden)] * 4 + [(inner, hidden)] * 2 + [(hidden, inner)]
    return [(words, hidden), *block * BLOCKS, (words, hidden)]


def llama_7b(device: str = "cuda", shrink: int = 1) -> float:
    """Wall seconds from random bf16 weights on `device` to eigenvalues and tail fits of all 226 matrices.

    Float64; no download and no upload, for the weights are drawn on the device (which is timed too: 0.03 s
    of memory traffic on an H200, estimate). One matrix and one fit warm up first. The targets on one H200
    are 30 s, then 12 s. Raises NumericsError when a matrix fails or does not fit.
    """
    work = [_Random(shape, device, seed) for seed, shape in enumerate(shapes(shrink))]
    for weights in work[:2]:
        _fitted(card(device).solve([weights])[0])
    started = perf_counter()
    limits = Limits(lanes=LANES, stack=STACK, budget=card(device).free_bytes(), window=WINDOW_BYTES)
    tasks = (_task(weights) for weights in work)
    for _, answer in solved(tasks, card(device).solve, limits):
        _fitted(answer)
    return perf_counter() - started


@dataclass(frozen=True, slots=True)
class _Random:
    """Gaussian bf16 weights that come into being on their device, the same each time."""

    shape: tuple[int, int]
    device: str
    seed: int

    def block(self, rows: slice, columns: slice) -> FloatArray:
        return np.ascontiguousarray(self.on_device(None)[rows, columns].double().cpu().numpy())

    def on_device(self, upload: Callable[[Any], Any] | None) -> torch.Tensor:
        import torch

        dice = torch.Generator(self.device).manual_seed(self.seed)
        drawn = torch.randn(self.shape, generator=dice, device=self.device, dtype=torch.bfloat16)
        return drawn.mul_(_SIGMA)


def _task(weights: _Random) -> Task[_Random, Answer]:
    stored = 2 * weights.shape[0] * weights.shape[1]
    return Task(item=weights, need=device_bytes(weights.shape, stored), held=stored)


def _fitted(answer: Answer) -> None:
    if isinstance(answer, NumericsError):
        raise answer
    fit_tail(answer.spectrum)
