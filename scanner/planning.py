"""A source and a pinned repository -> a plan: headers read, rows promised, units cut."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from typing import Any

from scanner.failures import failure_of
from scanner.sources.base import Source
from scanner.text import printable
from scanner.weights.header import PREFIX, header_length, parse_header
from scanner.weights.index import MAX_INDEX, IndexedShards, shards_of_index
from scanner.weights.matrices import plan_matrices, plan_unread
from scanner.weights.pairing import Base, paired
from scanner.weights.plan import plan_units
from scanner.weights.selection import WeightGroup, choose_files
from schemas.config import ScanConfig, WorkLimits, code_version
from schemas.errors import FormatError, SourceError
from schemas.refs import FileRef, MatrixRef, RepoRef, Repository, TensorRef, is_safe_path
from schemas.results import FailureKind, SkipReason, Stage
from schemas.rows import Failure, RepositoryRow
from schemas.work import RepoPlan

FIRST_READ = 100_000
"""Bytes read to find a header; holds the whole of it for 97 % of the hub's files."""

_MAX_CONFIG = 1 << 20
_MAX_NAME = 128


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
    left_out = [printable(f"{file.path}: {why}") for file, why in selection.left_out]
    read: set[FileRef] = set()
    for group in selection.groups:
        shards, bad = _shards(source, group, repository)
        tensors = _tensors(source, shards.files, repository, bad)
        held = {tensor.name for tensor in tensors}
        if shards.weight_map and not bad and shards.weight_map.keys() != held:
            bad.append(_index_mismatch(shards.weight_map, held, group, repository.ref))
        settings, adapter = read_settings(source, group.config), _config(source, group.adapter_config)
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
    rows += unread
    return RepoPlan(
        ref=repository.ref,
        units=plan_units(repository.ref, rows, config, limits or WorkLimits()),
        skipped=tuple(row for row in rows if row.skip),
        components=tuple(components),
        failures=(*failures, *bad),
    )


def read_header(source: Source, file: FileRef) -> tuple[TensorRef, ...]:
    """Tensors of one safetensors file, from one range request, or two for a long header.

    Raises FormatError for hostile or broken bytes, SourceError when they can't be had.
    """
    head = source.read(file, 0, min(file.size, FIRST_READ))
    stop = PREFIX + header_length(head[:PREFIX], file)
    if stop > len(head):
        head += source.read(file, len(head), stop)
    return parse_header(head[PREFIX:stop], file).tensors


def read_shards(source: Source, group: WeightGroup, repository: Repository) -> IndexedShards:
    """The files of a group, as its index names them where it has one.

    Raises FormatError for a broken index, SourceError when it can't be had.
    """
    if group.index is None:
        return IndexedShards(group.files, {})
    text = source.read(group.index, 0, min(group.index.size, MAX_INDEX + 1))
    return shards_of_index(text, group, repository.files)


def read_settings(source: Source, file: FileRef | None) -> Mapping[str, Any]:
    """A config file as data; a missing, huge or broken one is no config."""
    found = _config(source, file)
    return {} if isinstance(found, str) else found


def _config(source: Source, file: FileRef | None) -> Mapping[str, Any] | str:
    """A config file as data, empty where there is none, or a sentence on why it cannot be read."""
    if file is None:
        return {}
    if file.size > _MAX_CONFIG:
        return f"{file.path} has {file.size} bytes, more than the {_MAX_CONFIG} that are read"
    try:
        settings = json.loads(source.read(file, 0, file.size))
    except (ValueError, RecursionError):
        return f"{file.path} is not JSON"
    return settings if isinstance(settings, dict) else f"{file.path} is JSON, but no object"


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
    ref = repository.ref
    try:
        return read_shards(source, group, repository), []
    except FormatError as error:
        return IndexedShards(group.files, {}), [failure_of(error, Stage.PLAN, ref.repo_id, ref.revision)]


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


def _text(value: object) -> str | None:
    return printable(value)[:_MAX_NAME] if isinstance(value, str) and value else None
