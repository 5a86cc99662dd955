"""Spectra on a torch device: weights go there as stored; Gram matrix, moments and eigenvalues are made there.

Several threads may use one Card, each on a stream of its own. The same code runs on torch's CPU tensors
(device "cpu:0"), where it is tested against the numpy path; it has not been timed on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scanner.spectra.eigen import Weights, spectrum_of
from scanner.spectra.guards import lost_memory
from scanner.spectra.moments import Moments, MomentsAccumulator
from scanner.spectra.precision import adds_up, has_strong_float64
from scanner.spectra.staging import Staging
from schemas.errors import NumericsError
from schemas.records import record
from schemas.results import FailureKind, FloatArray, Spectrum

if TYPE_CHECKING:
    import torch

PIECE_BYTES = 128 << 20
"""Float64 bytes of one piece of W on the device; each is one matrix product."""

_PIECES_AT_ONCE = 4
"""A piece, its difference from the pivot and two powers of that."""
_SOLVER_COPIES = 3
"""Device memory of a solve in Gram matrices: itself, torch's copy, the solver's workspace (estimate)."""
_USABLE = 0.9
_HOST_BUDGET = 1 << 30
_TRACE_ERROR = 1e-10
_CORNER = 64


@runtime_checkable
class Movable(Protocol):
    """Weights that can be decoded on a device."""

    def on_device(self, upload: Callable[[NDArray[np.uint8]], torch.Tensor]) -> torch.Tensor:
        """The values, in the weights' shape, in any type that casts to float64 exactly."""


@record()
class Solved:
    """Moments and spectrum of one matrix, and its share of the seconds of the call."""

    moments: Moments
    spectrum: Spectrum
    secs: float


Answer: TypeAlias = Solved | NumericsError


@cache
def card(device: str) -> Card:
    """The Card of a torch device such as "cuda", one a process."""
    return Card(device)


def device_bytes(shape: Sequence[int], stored: int) -> int:
    """Bytes on the device to solve weights of `shape` in float64; they take `stored` bytes as stored."""
    longer, side = max(shape[:2]), min(shape[:2])
    slices = prod(shape[2:])
    piece = min(PIECE_BYTES, 8 * longer * side * slices)
    return stored + 8 * slices * side**2 * _SOLVER_COPIES + _PIECES_AT_ONCE * piece


class Card:
    """One torch device: solves groups of equal problems, from several threads at once."""

    def __init__(self, device: str, piece_bytes: int = PIECE_BYTES) -> None:
        import torch

        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._piece_bytes = piece_bytes
        self._own = threading.local()
        self.kind = self._device.type
        self.strong_float64 = not self._cuda or has_strong_float64(
            torch.cuda.get_device_name(self._device), torch.cuda.get_device_capability(self._device)
        )
        if self._cuda:
            # torch loads its solvers at their first use, which two threads at once break (pytorch#90613).
            torch.linalg.eigvalsh(torch.zeros((1, 1), device=self._device))

    @property
    def whole_float32(self) -> bool:
        """Whether a float32 product is one; a caller may have told torch to take TF32 for it."""
        import torch

        return torch.get_float32_matmul_precision() == "highest"

    def multiprocessors(self) -> int:
        """Multiprocessors of a GPU, 1 for anything else."""
        import torch

        if not self._cuda:
            return 1
        return int(torch.cuda.get_device_properties(self._device).multi_processor_count)

    def free_bytes(self) -> int:
        """Bytes to plan with: nine tenths of what is free on the device or idle in torch's cache."""
        import torch

        if not self._cuda:
            return _HOST_BUDGET
        idle = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(_USABLE * (torch.cuda.mem_get_info(self._device)[0] + idle))

    def solve(self, group: Sequence[Weights], *, single: bool = False) -> list[Answer]:
        """Moments and eigenvalues of weights that agree in their number of slices and in their short side M.

        Float64 throughout; with `single` a float32 Gram matrix and solver (method gram_f32, to be certified;
        the moments stay float64). One batched eigenvalue call for the group. A matrix that this can't solve
        is a NumericsError in its place. Raises NumericsError (out_of_memory) when the group does not fit.
        Cost: 2 N M^2 + 4/3 M^3 flops a slice; see `device_bytes`.
        """
        import torch

        started = perf_counter()
        found = self._tried(group, torch.float32 if single else torch.float64)
        if isinstance(found, NumericsError):
            if found.kind is FailureKind.OUT_OF_MEMORY:
                raise found
            if len(group) == 1:
                return [found]
            return [answer for weights in group for answer in self.solve([weights], single=single)]
        secs = (perf_counter() - started) / len(group)
        method = "gram_f32" if single else "gram_f64"
        return [self._answer(w, *parts, method, secs) for w, parts in zip(group, found, strict=True)]

    def _tried(
        self, group: Sequence[Weights], dtype: torch.dtype
    ) -> list[tuple[Moments, FloatArray | None]] | NumericsError:
        """`_solve`, or why not: an error that holds no tensor, while the frames of torch's own do."""
        import torch

        try:
            with self._stream(), torch.no_grad():
                return self._solve(group, dtype)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            return NumericsError(FailureKind.EIGENSOLVER_ERROR, f"eigenvalues on {self.kind}: {error}")
        except MemoryError:
            pass  # the host's, for a block of W: to be tried with less at once, like the device's
        except RuntimeError as error:
            if not (isinstance(error, torch.cuda.OutOfMemoryError) or lost_memory(error)):
                reason = str(error).partition("\n")[0]
                return NumericsError(FailureKind.EIGENSOLVER_ERROR, f"{self.kind}: {reason}")
        if self._cuda:
            torch.cuda.empty_cache()
        problem = f"{len(group)} of shape {group[0].shape} do not fit on {self.kind}"
        return NumericsError(FailureKind.OUT_OF_MEMORY, problem)

    def _solve(self, group: Sequence[Weights], dtype: torch.dtype) -> list[tuple[Moments, FloatArray | None]]:
        """Moments, and eigenvalues (slices, M), or None where a Gram matrix is not finite."""
        import torch

        slices, side = prod(group[0].shape[2:]), min(group[0].shape[:2])
        grams = torch.zeros((len(group), slices, side, side), dtype=dtype, device=self._device)
        moments = [self._accumulate(w, gram) for w, gram in zip(group, grams, strict=True)]
        finite = torch.isfinite(grams.diagonal(dim1=-2, dim2=-1)).flatten(1).all(1)
        fine = finite.tolist()
        # LAPACK and cuSOLVER on NaN may never return.
        solved = torch.linalg.eigvalsh(grams if all(fine) else grams[finite])
        values = iter(solved.to(torch.float64).cpu().numpy())
        return [(m, next(values) if ok else None) for m, ok in zip(moments, fine, strict=True)]

    def _accumulate(self, weights: Weights, gram: torch.Tensor) -> Moments:
        """Add the Gram matrix of every slice to `gram` (slices, M, M); return the moments of the entries."""
        tall = weights.shape[0] >= weights.shape[1]
        tally = _Tally(self._device)
        for piece in self._pieces(weights):
            tally.add(piece)
            part = piece.flatten(2) if piece.dim() > 2 else piece.unsqueeze(2)
            part = part.movedim(2, 0).to(gram.dtype).contiguous()
            gram.baddbmm_(*((part.mT, part) if tall else (part, part.mT)))
        return tally.result()

    def _pieces(self, weights: Weights) -> Iterator[torch.Tensor]:
        """Float64 pieces of W along its longer side, cast on the device where the weights move as stored."""
        import torch

        rows, columns = weights.shape[:2]
        step = max(self._piece_bytes * max(rows, columns) // (8 * prod(weights.shape)), 1)
        whole = weights.on_device(self._upload) if isinstance(weights, Movable) else None
        for start in range(0, max(rows, columns), step):
            cut, every = slice(start, start + step), slice(None)
            place = (cut, every) if rows >= columns else (every, cut)
            if whole is None:
                block = weights.block(*place)
                yield self._upload(block.reshape(-1).view(np.uint8)).view(torch.float64).view(block.shape)
            else:
                yield whole[place].to(torch.float64)

    def _upload(self, raw: NDArray[np.uint8]) -> torch.Tensor:
        if not hasattr(self._own, "staging"):
            self._own.staging = Staging(self._device)
        staging: Staging = self._own.staging
        return staging.send(raw)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """This thread's own stream."""
        import torch

        if not self._cuda:
            yield
            return
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._own.stream):
            yield

    def _answer(
        self, weights: Weights, moments: Moments, values: FloatArray | None, method: str, secs: float
    ) -> Answer:
        if values is None:
            return NumericsError(FailureKind.NONFINITE, f"a Gram matrix on {self.kind} is not finite")
        try:
            spectrum = spectrum_of(values, weights.shape, method, self.kind)
        except NumericsError as error:
            return error
        if method == "gram_f64" and not adds_up(spectrum, moments, _TRACE_ERROR):
            problem = f"eigenvalues from {self.kind} do not add up to the sum of squared entries"
            return NumericsError(FailureKind.EIGENSOLVER_ERROR, problem)
        return Solved(moments=moments, spectrum=spectrum, secs=secs)


class _Tally:
    """Moments of pieces on a device; nothing comes back before `result`."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._count = 0
        self._pivot = torch.zeros((), dtype=torch.float64, device=device)
        self._sums = torch.zeros(7, dtype=torch.float64, device=device)

    def add(self, piece: torch.Tensor) -> None:
        """Account for every entry of a float64 piece, about the mean of the first corner of W."""
        import torch

        if not self._count:
            self._pivot = piece[:_CORNER, :_CORNER].mean().nan_to_num(0.0, 0.0, 0.0)
        difference = piece - self._pivot
        square = difference * difference
        found = (
            difference.sum(),
            square.sum(),
            (square * difference).sum(),
            (square * square).sum(),
            piece.abs().amax(),
            (piece == 0).sum(),
            piece.isfinite().logical_not_().sum(),
        )
        sums = torch.stack([one.to(torch.float64) for one in found])
        largest = torch.maximum(self._sums[4], sums[4])
        self._sums += sums
        self._sums[4] = largest
        self._count += piece.numel()

    def result(self) -> Moments:
        """The moments of everything added; equal to MomentsAccumulator's to 1e-11 (kurtosis 1e-9)."""
        import torch

        pivot, *sums, nonfinite = torch.cat([self._pivot.reshape(1), self._sums]).tolist()
        return MomentsAccumulator.summed(self._count, int(nonfinite), pivot, np.array(sums)).result()
