"""The composition: a source and a unit -> rows and failures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from math import isfinite
from operator import attrgetter
from time import perf_counter

from scanner.adapter import measure_lora
from scanner.anatomy import Anatomy
from scanner.failures import failure_of
from scanner.layer import measure
from scanner.ondevice import Elsewhere, ahead
from scanner.pairs import compared
from scanner.place import place
from scanner.reading import Job, streamed
from scanner.sources.base import Source
from scanner.sources.room import NoRoom
from scanner.spectra.device import Solved
from scanner.weights.lora import LoraWeights
from scanner.weights.matrices import StoredWeights, limited
from scanner.weights.opened import open_weights
from schemas.columns import columns
from schemas.config import ScanConfig
from schemas.errors import NumericsError, ScanError, SourceError
from schemas.events import Note
from schemas.refs import MatrixRef, WorkUnit
from schemas.results import BaseStatus, FailureKind, RowStatus, Stage
from schemas.rows import Failure, LayerMetrics
from schemas.work import UnitResult

_NUMBERS = tuple(name for name, about in columns(LayerMetrics).items() if about["arrow"].startswith("float"))
_numbers = attrgetter(*_NUMBERS)


def run_unit(
    source: Source, unit: WorkUnit, config: ScanConfig, device: str = "cpu", bases: Source | None = None
) -> UnitResult:
    """Scan a unit to its end. Raises SourceError only when trying again may help."""
    started = perf_counter()
    rows: list[LayerMetrics] = []
    failures: list[Failure] = []
    notes: list[str] = []
    for outcome in scan_unit(source, unit, config, device, bases):
        match outcome:
            case Failure():
                failures.append(outcome)
            case Note(text=text):
                notes.append(text)
            case _:
                rows.append(outcome)
    secs = sum(row.secs or 0.0 for row in rows)
    return UnitResult(
        unit_id=unit.unit_id,
        rows=tuple(rows),
        failures=tuple(failures),
        bytes_read=unit.nbytes,
        secs=secs,
        wait_secs=max(perf_counter() - started - secs, 0.0),
        notes=tuple(notes),
    )


def scan_unit(
    source: Source, unit: WorkUnit, config: ScanConfig, device: str = "cpu", bases: Source | None = None
) -> Iterator[LayerMetrics | Failure | Note]:
    """Yield a row for every matrix of the unit, a Failure before each failed row, and Notes for the user.

    `device` is a torch device, or "cpu" for numpy; `bases` reads the partners of the rows, None is `source`
    itself. A bad matrix or an unreadable rest of a file costs its own rows only, and what is wrong with a
    base costs the comparison only. Raises SourceError when trying again may help.
    """
    for _, of_file in groupby(unit.matrices, key=lambda row: row.tensor.file.path):
        yield from _scan_file(source, list(of_file), config, device, bases or source)


def read_row(source: Source, ref: MatrixRef) -> list[bytes]:
    """The bytes of one row and of all that it needs besides. Raises SourceError."""
    own = source.read(ref.tensor.file, ref.start, ref.stop)
    return [own, *(source.read(other.file, other.start, other.stop) for other in ref.others)]


def fail_unit(unit: WorkUnit, failure: Failure, config: ScanConfig) -> UnitResult:
    """Give up on a unit: a failed row for every matrix of it, all naming one failure."""
    rows = (_failed(ref, failure, config) for ref in unit.matrices)
    return UnitResult(unit_id=unit.unit_id, rows=tuple(rows), failures=(failure,), bytes_read=0, secs=0.0)


def _scan_file(
    source: Source, refs: Sequence[MatrixRef], config: ScanConfig, device: str, bases: Source
) -> Iterator[LayerMetrics | Failure | Note]:
    """The rows of a file: what there is no memory to read costs its rows, any other error the rest."""
    left = {ref.index: ref for ref in refs}
    while left:
        try:
            jobs = streamed(source, list(left.values()), bases, device)
            for job, ready in ahead(jobs, config, device):
                if isinstance(ready, Elsewhere) and ready.why:
                    yield Note(ready.why)
                yield from _outcome(job, config, ready if isinstance(ready, Solved) else None)
                del left[job.ref.index]
        except SourceError as error:
            if error.retryable:
                raise
            lost = _lost(error, list(left.values()))
            repo = refs[0].tensor.file.repo
            failure = failure_of(error, Stage.READ, repo.repo_id, repo.revision)
            yield failure
            yield from (_failed(left.pop(ref.index), failure, config) for ref in lost)


def _lost(error: SourceError, left: Sequence[MatrixRef]) -> Sequence[MatrixRef]:
    """The rows that a read cost; where it wanted memory, their tensor is named."""
    lost = [ref for ref in left if isinstance(error, NoRoom) and error.span in ref.spans]
    if lost:
        error.tensor = lost[0].tensor.name
    return lost or left


def _outcome(job: Job, config: ScanConfig, solved: Solved | None) -> Iterator[LayerMetrics | Failure]:
    ref, held = job.ref, list[Anatomy]()
    try:
        row = _measured(job, config, solved, held.append if ref.partner else None)
        _require_numbers(row)
        if ref.partner and job.partner is not None:
            yield from _compared(row, job, held[0], config)
        else:
            yield row
        return
    except NumericsError as error:
        failed = error
    except MemoryError:
        failed = NumericsError(FailureKind.OUT_OF_MEMORY, f"{ref.shape} needs more memory than there is")
    failed.file = ref.tensor.file.path
    repo = ref.tensor.file.repo
    failure = failure_of(failed, Stage.SPECTRUM, repo.repo_id, repo.revision, ref.tensor.name)
    yield failure
    yield replace(_failed(ref, failure, config), num_nonfinite=failed.num_nonfinite)


def _measured(
    job: Job, config: ScanConfig, solved: Solved | None, keep: Callable[[Anatomy], None] | None
) -> LayerMetrics:
    ref, weights = job.ref, open_weights(job.ref, job.buffers)
    if isinstance(weights, LoraWeights):
        return measure_lora(ref, weights, config)
    if ref.packing:
        ref = limited(replace(ref, shape=weights.shape, packing=None), config.matrices)
    return place(ref, config) if ref.skip else measure(ref, weights, config, solved, keep)


def _compared(
    row: LayerMetrics, job: Job, own: Anatomy, config: ScanConfig
) -> Iterator[LayerMetrics | Failure]:
    """The row with the numbers of its pair, or a failure of stage compare and the row as it was."""
    ref, partner = job.ref, job.partner
    assert ref.partner is not None
    try:
        if isinstance(partner, SourceError):
            raise partner
        assert partner is not None
        weights, base = StoredWeights(ref, job.buffers[0]), StoredWeights(ref.partner, partner)
        both = compared(row, ref, weights, own, base, config)
        _require_numbers(both)
        yield both
        return
    except (SourceError, NumericsError) as error:
        failed: ScanError = error
    except MemoryError:
        failed = NumericsError(FailureKind.OUT_OF_MEMORY, f"{ref.shape} and its base need too much memory")
    reason = f"base {ref.partner.tensor.file.repo}: {failed.message}"
    about = ScanError(failed.kind, reason, file=ref.tensor.file.path, http_status=failed.http_status)
    repo = ref.tensor.file.repo
    yield failure_of(about, Stage.COMPARE, repo.repo_id, repo.revision, ref.tensor.name)
    yield replace(row, base_status=BaseStatus.FAILED)


def _require_numbers(row: LayerMetrics) -> None:
    """A NaN or Inf among the results is our fault, and must not reach a mean; it would make the sum one."""
    if isfinite(sum(filter(None, _numbers(row)))):
        return
    if bad := [name for name in _NUMBERS if not isfinite(getattr(row, name) or 0.0)]:
        raise NumericsError(FailureKind.INTERNAL, f"not finite: {', '.join(bad)}")


def _failed(ref: MatrixRef, failure: Failure, config: ScanConfig) -> LayerMetrics:
    return replace(
        place(ref, config),
        status=RowStatus.FAILED,
        status_reason=failure.kind,
        failure_id=failure.failure_id,
    )
