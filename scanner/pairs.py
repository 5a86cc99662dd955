"""One matrix and its base -> the base columns of its row: the comparison composed, without I/O."""

from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

from scanner.anatomy import Anatomy, anatomy, taken_apart
from scanner.layer import null_block
from scanner.spectra import eigen
from scanner.spectra.delta import Difference, change, cka, overlap, side
from schemas.config import ScanConfig
from schemas.refs import MatrixRef
from schemas.results import BlockStatus
from schemas.rows import LayerMetrics


def compared(
    row: LayerMetrics,
    ref: MatrixRef,
    weights: eigen.Weights,
    own: Anatomy,
    base: eigen.Weights,
    config: ScanConfig,
) -> LayerMetrics:
    """`row` with the numbers of the pair; `base` are the weights of `ref.partner`.

    Raises NumericsError when the base or the change defeats the solver. Cost: the base's spectrum, that of
    the change, and two sets of leading singular vectors: about 2.2 times the row itself.
    """
    started = perf_counter()
    theirs = anatomy(base, config, with_gram=True)
    _, delta = taken_apart(Difference(weights, base), config, "gram")
    numbers: dict[str, Any] = asdict(change(own.spectrum, theirs.spectrum, delta, config.tail))
    numbers |= {"d_alpha": _minus(own.tail.alpha, theirs.tail.alpha)}
    numbers |= _turned(weights, own, base, theirs, config)
    numbers |= _traps(row, ref, base, theirs, config)
    return replace(row, **numbers, secs=(row.secs or 0.0) + perf_counter() - started)


def _turned(
    weights: eigen.Weights, own: Anatomy, base: eigen.Weights, theirs: Anatomy, config: ScanConfig
) -> dict[str, Any]:
    block = config.spectrum.block
    one = side(weights, own.spectrum, own.gram, block)
    other = side(base, theirs.spectrum, theirs.gram, block)
    similarity = {"cka": cka(one, other, block)} if config.stages.cka else {}
    return {"subspace_overlap10": overlap(one, other, block=block)} | similarity


def _traps(
    row: LayerMetrics, ref: MatrixRef, base: eigen.Weights, theirs: Anatomy, config: ScanConfig
) -> dict[str, Any]:
    """Traps that the base does not have; both are shuffled alike, so that chance does not make a trap."""
    if row.null_status != BlockStatus.OK:
        return {}
    return {"d_num_traps": _minus(row.num_traps, null_block(ref, base, theirs, config).get("num_traps"))}


def _minus(ours: Any, theirs: Any) -> Any:
    return None if ours is None or theirs is None else ours - theirs
