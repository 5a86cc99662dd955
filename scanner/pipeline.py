"""The composition: a source and a repository -> a plan; a source and a unit -> rows and failures."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from math import isfinite, prod
from operator import attrgetter
from time import perf_counter
from typing import Any

from scanner.adapter import measure_lora
from scanner.layer import Anatomy, measure, place
from scanner.ondevice import Elsewhere, ahead
from scanner.pairs import compared
from scanner.reading import Job, streamed
from scanner.sources.base import Source
from scanner.spectra.device import Solved
from scanner.weights.header import PREFIX, header_length, parse_header
from scanner.weights.index import MAX_INDEX, IndexedShards, shards_of_index
from scanner.weights.lora import LoraWeights
from scanner.weights.matrices import StoredWeights, limited, plan_matrices, plan_unread
from scanner.weights.opened import open_weights
from scanner.weights.pairing import Base, paired
from scanner.weights.plan import plan_units
from scanner.weights.selection import WeightGroup, choose_files
from schemas.columns import columns
from schemas.config import ScanConfig, WorkLimits, code_version
from schemas.errors import FormatError, NumericsError, ScanError, SourceError
from schemas.events import Note
from schemas.refs import FileRef, MatrixRef, RepoRef, Repository, TensorRef, WorkUnit, is_safe_path
from schemas.results import BaseStatus, FailureKind, RowStatus, SkipReason, Stage
from schemas.rows import Failure, LayerMetrics, RepositoryRow
from schemas.work import RepoPlan, UnitResult

FIRST_READ = 100_000
"""Bytes read to find a header; holds the whole of it for 97 % of the hub's files."""

_MAX_CONFIG = 1 << 20
_NUMBERS = tuple(name for name, about in columns(LayerMetrics).items() if about["arrow"].startswith("float"))
_numbers = attrgetter(*_NUMBERS)
_MAX_MESSAGE = 512


def plan_repository(
    source: Source,
    repository: Repository,
    config: ScanConfig,
    limits: WorkLimits | None = None,
    origin: str = "local",
    base: Base | None = None,
) -> RepoPlan:
    """Read the headers of a pinned repository and cut it into work units.

    Rows are paired with those of `base`, unless stage `base` is off and none was given; an adapter's rows
    never are. A file whose header is bad becomes a Failure of the plan; the rest goes on. Raises ScanError
    when the repository as a whole has nothing to read.
    """
    rows: list[MatrixRef] = []
    components: list[RepositoryRow] = []
    failures: list[Failure] = []
    selection = choose_files(repository.files)
    left_out = [f"{file.path}: {why}" for file, why in selection.left_out]
    read: set[FileRef] = set()
    for group in selection.groups:
        shards, bad = _shards(source, group, repository)
        tensors = _tensors(source, shards.files, repository, bad)
        held = {tensor.name for tensor in tensors}
        if shards.weight_map and not bad and shards.weight_map.keys() != held:
            bad.append(_index_mismatch(shards.weight_map, held, group, repository.ref))
        settings, adapter = read_settings(source, group.config), read_settings(source, group.adapter_config)
        matrices = plan_matrices(
            tensors, config.matrices, group.component, len(rows), settings=settings, adapter=adapter
        )
        about = _component(settings, group, repository, matrices, config)
        components.append(replace(about, source=origin, num_files_failed=len(bad)))
        compare = group.adapter_config is None and (base or config.stages.base != "off")
        rows += paired(matrices, base) if compare else matrices
        failures += bad
        left_out += shards.problems
        read.update(shards.files)
    unread, bad = _unread(source, repository, read, components[0].component, len(rows))
    components[0] = replace(
        components[0],
        num_planned=components[0].num_planned + len(unread),
        num_files_failed=components[0].num_files_failed + len(bad),
        left_out=tuple(left_out),
    )
    return RepoPlan(
        ref=repository.ref,
        units=plan_units(repository.ref, [*rows, *unread], config, limits or WorkLimits()),
        components=tuple(components),
        failures=(*failures, *bad),
    )


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
        refs = list(of_file)
        yield from (place(ref, config) for ref in refs if ref.skip)
        live = [ref for ref in refs if not ref.skip]
        yield from _scan_file(source, live, config, device, bases or source)


def read_row(source: Source, ref: MatrixRef) -> list[bytes]:
    """The bytes of one row and of all that it needs besides. Raises SourceError."""
    own = source.read(ref.tensor.file, ref.start, ref.stop)
    return [own, *(source.read(other.file, other.start, other.stop) for other in ref.others)]


def fail_unit(unit: WorkUnit, failure: Failure, config: ScanConfig) -> UnitResult:
    """Give up on a unit: a failed row for every matrix that was to be read, all naming one failure."""
    rows = (place(ref, config) if ref.skip else _failed(ref, failure, config) for ref in unit.matrices)
    return UnitResult(unit_id=unit.unit_id, rows=tuple(rows), failures=(failure,), bytes_read=0, secs=0.0)


def failure_of(
    error: ScanError, stage: Stage, repo_id: str, revision: str | None = None, tensor: str | None = None
) -> Failure:
    """The stored form of an error; its id is the same whenever the same thing fails in the same place."""
    now = datetime.now(UTC)
    tensor = tensor or error.tensor
    place_of = "\0".join(str(x) for x in (repo_id, revision, error.file, tensor, stage, error.kind))
    return Failure(
        failure_id=hashlib.blake2b(place_of.encode(), digest_size=8).hexdigest(),
        repo_id=repo_id,
        revision=revision,
        file=error.file,
        tensor=tensor,
        stage=stage,
        kind=error.kind,
        message=_printable(error.message),
        retryable=error.retryable,
        http_status=error.http_status,
        first_at=now,
        last_at=now,
    )


def _scan_file(
    source: Source, refs: Sequence[MatrixRef], config: ScanConfig, device: str, bases: Source
) -> Iterator[LayerMetrics | Failure | Note]:
    done: set[int] = set()
    try:
        for job, ready in ahead(streamed(source, refs, bases), config, device):
            if isinstance(ready, Elsewhere) and ready.why:
                yield Note(ready.why)
            yield from _outcome(job, config, ready if isinstance(ready, Solved) else None)
            done.add(job.ref.index)
    except SourceError as error:
        if error.retryable:
            raise
        repo = refs[0].tensor.file.repo
        failure = failure_of(error, Stage.READ, repo.repo_id, repo.revision)
        yield failure
        yield from (_failed(ref, failure, config) for ref in refs if ref.index not in done)


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
    """A NaN or Inf among the results is our fault, and must not reach a mean."""
    if not all(map(isfinite, filter(None, _numbers(row)))):
        bad = [name for name in _NUMBERS if not isfinite(getattr(row, name) or 0.0)]
        raise NumericsError(FailureKind.INTERNAL, f"not finite: {', '.join(bad)}")


def _failed(ref: MatrixRef, failure: Failure, config: ScanConfig) -> LayerMetrics:
    return replace(
        place(ref, config),
        status=RowStatus.FAILED,
        status_reason=failure.kind,
        failure_id=failure.failure_id,
    )


def _unread(
    source: Source, repository: Repository, read: Collection[FileRef], component: str | None, first_index: int
) -> tuple[tuple[MatrixRef, ...], list[Failure]]:
    """Rows for the tensors of every safetensors file that is not read, from its header alone."""
    failures: list[Failure] = []
    files = [f for f in repository.files if f.path.endswith(".safetensors") and f not in read]
    tensors = _tensors(source, [f for f in files if is_safe_path(f.path)], repository, failures)
    return plan_unread(tensors, component, first_index), failures


def _tensors(
    source: Source, files: Sequence[FileRef], repository: Repository, failures: list[Failure]
) -> list[TensorRef]:
    """Tensors of all files with a sound header; a broken one is added to `failures`."""
    tensors: list[TensorRef] = []
    for file in files:
        try:
            tensors += read_header(source, file)
        except (FormatError, SourceError) as error:
            if error.retryable:
                raise
            error.file = file.path
            ref = repository.ref
            failures.append(failure_of(error, Stage.HEADER, ref.repo_id, ref.revision))
    return tensors


def _shards(
    source: Source, group: WeightGroup, repository: Repository
) -> tuple[IndexedShards, list[Failure]]:
    """The files to read and what their index promises; a broken index is a failure, not an end."""
    if group.index is None:
        return IndexedShards(group.files, {}), []
    ref = repository.ref
    try:
        text = source.read(group.index, 0, min(group.index.size, MAX_INDEX + 1))
        return shards_of_index(text, group, repository.files), []
    except FormatError as error:
        error.file = group.index.path
        return IndexedShards(group.files, {}), [failure_of(error, Stage.PLAN, ref.repo_id, ref.revision)]


def read_header(source: Source, file: FileRef) -> tuple[TensorRef, ...]:
    """Tensors of one safetensors file, from one range request, or two for a long header.

    Raises FormatError for hostile or broken bytes, SourceError when they can't be had.
    """
    head = source.read(file, 0, min(file.size, FIRST_READ))
    stop = PREFIX + header_length(head[:PREFIX], file)
    if stop > len(head):
        head += source.read(file, len(head), stop)
    return parse_header(head[PREFIX:stop], file).tensors


def _index_mismatch(
    named: Collection[str], held: Collection[str], group: WeightGroup, ref: RepoRef
) -> Failure:
    only_index, only_files = sorted(set(named) - set(held)), sorted(set(held) - set(named))
    path = group.index.path if group.index else None
    examples = ", ".join(map(ascii, [*only_index, *only_files][:3]))
    error = FormatError(
        FailureKind.INDEX_MISMATCH,
        f"{ref} {path}: {len(only_index)} tensors only in the index, {len(only_files)} only in the shards "
        f"({examples}); the shards were scanned",
        file=path,
    )
    return failure_of(error, Stage.PLAN, ref.repo_id, ref.revision)


def _component(
    settings: Mapping[str, Any],
    group: WeightGroup,
    repository: Repository,
    rows: Sequence[MatrixRef],
    config: ScanConfig,
) -> RepositoryRow:
    facts = repository.facts
    sizes: Counter[str] = Counter()
    for row in {(row.tensor.file.path, row.tensor.name): row for row in rows}.values():
        sizes[row.tensor.dtype] += _params(row)
    architectures = settings.get("architectures")
    first = (
        architectures[0] if isinstance(architectures, list) and architectures else settings.get("_class_name")
    )
    quantisation = settings.get("quantization_config")
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    return RepositoryRow(
        repo_id=repository.ref.repo_id,
        revision=repository.ref.revision,
        component=group.component,
        config_fingerprint=config.fingerprint(),
        code_version=code_version(),
        source="local",
        architecture=_text(first) or _text(settings.get("model_type")),
        library_name=facts.library_name,
        pipeline_tag=facts.pipeline_tag,
        license=facts.license,
        base_model=facts.base_model,
        dtype_main=sizes.most_common(1)[0][0] if sizes else None,
        quant_method=_text(method) or next((row.quant_method for row in rows if row.quant_method), None),
        downloads=facts.downloads,
        likes=facts.likes,
        params=sizes.total() if sizes else None,
        tokens=facts.tokens,
        scores=dict(facts.scores) or None,
        last_modified=facts.last_modified,
        scanned_at=datetime.now(UTC),
        num_planned=len(rows),
        num_files_failed=0,
    )


def _params(row: MatrixRef) -> int:
    """Parameters in a row's tensor: every code is one, the scales of codes are none."""
    if row.packing:
        return row.tensor.nbytes * 8 // row.packing.bits
    return 0 if row.skip is SkipReason.QUANT_COMPANION else prod(row.tensor.shape)


def read_settings(source: Source, file: FileRef | None) -> Mapping[str, Any]:
    """A config file as data; a missing, huge or broken one is no config."""
    if file is None or file.size > _MAX_CONFIG:
        return {}
    try:
        settings = json.loads(source.read(file, 0, file.size))
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _text(value: object) -> str | None:
    return _printable(value)[:128] if isinstance(value, str) and value else None


def _printable(text: str) -> str:
    """At most 512 characters, control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:_MAX_MESSAGE]
