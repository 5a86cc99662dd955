"""One large layer: the time of its spectrum, and the memory it takes beyond the tensor."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.bench import peers
from jobs.bench.children import Child
from jobs.bench.options import Options
from jobs.bench.pairs import compare, figure
from jobs.bench.result import Agreement, NotRunError, Result
from jobs.engine.heap import keep_freed_memory
from scanner.api import spectrum
from schemas.config import SpectrumRules
from schemas.results import FloatArray, Spectrum

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def one_layer(options: Options) -> Iterator[Result]:
    """The spectrum of one square layer against the SVD that WeightWatcher calls."""
    side = 1024 if options.quick else 4096
    weights = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    yield compare(
        f"spectrum of {side} x {side}",
        "scipy.linalg.svd as WeightWatcher calls it",
        lambda: spectrum(weights),
        lambda: peers.weightwatcher_singular_values(weights),
        judge=_same_spectrum,
        target=None if options.quick else 6.5,
        pairs=options.few,
    )


def memory(options: Options) -> Iterator[Result]:
    """The peak beyond the stored tensor, in Gram matrices (8 M^2 bytes); three and a block are allowed."""
    shapes = [(1024, 2752)] if options.quick else [(4096, 11008), (32000, 4096)]
    for rows, columns in shapes:
        side = min(rows, columns)
        with Child() as child:
            extra = child.call(peak_beyond, rows, columns)
        grams, block = extra / (8 * side**2), SpectrumRules().block / side
        note = f"{extra / 1e6:.0f} MB beyond the float16 tensor of {2 * rows * columns / 1e6:.0f} MB"
        yield figure(f"memory of {rows} x {columns}", [grams], "x 8 M^2", 3.0 + block, note=note)


def peak_beyond(rows: int, columns: int) -> int:
    """Bytes that the spectrum of a float16 (rows, columns) adds to the resident set at its peak.

    Libraries are loaded first; nothing larger is solved before, since freed memory stays resident.
    """
    import torch

    torch.linalg.eigvalsh(torch.eye(8, dtype=torch.float64))
    keep_freed_memory()
    weights = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32).astype(np.float16)
    spectrum(weights[:64, :64])
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError as error:
        raise NotRunError(f"the memory mark cannot be reset here: {error}") from error
    before = _resident("VmRSS")
    spectrum(weights)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def _same_spectrum(ours: Spectrum, singular_values: FloatArray) -> Agreement:
    theirs = np.sort(singular_values**2)
    worst = float(np.abs(ours.evals - theirs).max() / theirs[-1])
    return Agreement(what="eigenvalues, relative to the largest", worst=worst, limit=1e-12)
