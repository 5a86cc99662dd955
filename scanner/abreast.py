"""The matrices of a file on the host, several on the way at once: a solve ends at less cost in company."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TypeAlias

from scanner.layer import wants_svd
from scanner.reading import Job
from scanner.spectra import eigen
from scanner.spectra.device import Solved
from scanner.spectra.moments import Moments, MomentsAccumulator
from scanner.spectra.symmetric import LARGE_SIDE
from scanner.weights.lora import LoraWeights
from scanner.weights.opened import open_weights
from schemas.config import ScanConfig
from schemas.errors import NumericsError, SourceError
from schemas.records import record
from schemas.refs import MatrixRef

MOST_WAITING = 64
WAITING_BYTES = 64 << 20
"""Matrices that wait for company, and their stored bytes, beside those read ahead."""


@record(kw_only=False)
class _Begun:
    """A matrix half solved."""

    moments: Moments
    half: eigen.Begun
    secs: float


_Waiting: TypeAlias = tuple[Job, _Begun | None]


def _all(_: MatrixRef) -> bool:
    return True


def abreast(
    jobs: Iterable[Job], config: ScanConfig, joining: Callable[[MatrixRef], bool] = _all
) -> Iterator[tuple[Job, Solved | None]]:
    """Yield each matrix with its spectrum, in order; None where it is to be solved alone, or cannot be.

    What is to be solved alone, as is what is not `joining`, does not wait: its work is still to come, and
    `jobs` reads on meanwhile. Raises SourceError as `jobs` does, after the matrices before it.
    """
    waiting: list[_Waiting] = []
    held = 0
    try:
        for job in jobs:
            begun = _begun(job, config) if joining(job.ref) else None
            waiting.append((job, begun))
            held += sum(map(len, job.buffers))
            if begun is None or len(waiting) == MOST_WAITING or held > WAITING_BYTES:
                yield from _solved(waiting)
                waiting, held = [], 0
    except SourceError:
        yield from _solved(waiting)
        raise
    yield from _solved(waiting)


def solvable(job: Job, config: ScanConfig) -> eigen.Weights | None:
    """What can be solved ahead of its row: no LoRA pair, transform, SVD, code in error, nothing too large."""
    try:
        weights = open_weights(job.ref, job.buffers)
    except (NumericsError, MemoryError):
        return None
    too_large = min(weights.shape[:2]) > config.matrices.max_evals_exact
    alone = too_large or config.matrices.transforms(weights.shape) or wants_svd(job.ref, config)
    return None if alone or isinstance(weights, LoraWeights) else weights


def _begun(job: Job, config: ScanConfig) -> _Begun | None:
    """None for what does not gain: large matrices, and pairs, whose Gram matrix would have to wait too."""
    started, entries = perf_counter(), MomentsAccumulator()
    weights = solvable(job, config)
    if weights is None or job.ref.partner or min(weights.shape[:2]) >= LARGE_SIDE:
        return None
    try:
        half = eigen.begin(weights, block=config.spectrum.block, observe=entries.add)
    except (NumericsError, MemoryError):
        return None
    return _Begun(entries.result(), half, perf_counter() - started)


def _solved(waiting: Sequence[_Waiting]) -> Iterator[tuple[Job, Solved | None]]:
    begun = [one for _, one in waiting if one is not None]
    started = perf_counter()
    try:
        spectra = iter(eigen.finish([one.half for one in begun]))
    except (NumericsError, MemoryError):
        yield from ((job, None) for job, _ in waiting)
        return
    share = (perf_counter() - started) / max(len(begun), 1)
    for job, one in waiting:
        if one is None:
            yield job, None
            continue
        spectrum = next(spectra)
        underflows = one.moments.abs_max and spectrum.evals[-1] == 0
        solved = Solved(moments=one.moments, spectrum=spectrum, secs=one.secs + share)
        yield job, None if underflows else solved
