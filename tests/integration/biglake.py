"""Lakes of any size without a scan: the rows of one real small model, multiplied and shaken by whole columns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.lake.files import write_part
from jobs.lake.store import Store
from scanner.diagnosis.flags import judge
from scanner.pipeline import run_unit
from scanner.place import place
from scanner.planning import plan_repository
from scanner.sources.memory import MemorySource
from schemas.config import ScanConfig, WorkLimits
from schemas.refs import RepoRef
from schemas.tables import to_table

ROWS = 330
"""Rows of a model: a transformer of some thirty blocks, two fifths of them matrices, the rest norms and biases."""
FAMILIES = tuple(
    f"{name}ForCausalLM" for name in ("Llama", "Qwen2", "Mistral", "Gemma2", "Phi3", "OPT", "GPT2")
)
_KEPT = ("Q", "w_scale", "zero_frac", "rank0_frac")


def write_parts(lake: Path, models: range, block: int = 300) -> None:
    """Publish models number `models` as scans leave them: a part of layers and one of repositories each."""
    with Store.writing(lake) as store:
        for first in range(models.start, models.stop, block):
            numbers = range(first, min(first + block, models.stop))
            layers, repositories = layer_rows(numbers), repository_rows(numbers)
            for i, number in enumerate(numbers):
                for table, rows in (
                    ("layers", layers.slice(i * ROWS, ROWS)),
                    ("repositories", repositories.slice(i, 1)),
                ):
                    part = store.part(table, reference(number).part_key(ScanConfig().fingerprint()))
                    write_part(rows.combine_chunks(), part)


def reference(number: int) -> RepoRef:
    return RepoRef(f"owner{number * 7919 % 4001:04}/model-{number:07}", f"{number:040x}")


def layer_rows(models: Sequence[int]) -> pa.Table:
    """Rows of several models in order, ROWS each."""
    random = np.random.default_rng(models[0])
    pattern = np.tile(np.arange(ROWS), len(models))
    table = _model().take(pattern)
    for at, field in enumerate(table.schema):
        if pa.types.is_floating(field.type) and field.name not in _KEPT:
            table = table.set_column(at, field, _shaken(table.column(at), field.type, random))
    return _named(table, np.repeat(np.asarray(models), ROWS))


def repository_rows(models: Sequence[int]) -> pa.Table:
    random = np.random.default_rng(models[0])
    numbers = np.asarray(models)
    table = _repository().take(np.zeros(len(models), int))
    sizes = (10 ** random.uniform(7, 10.5, len(models))).astype("i8")
    table = _set(
        table, "architecture", pa.array(np.asarray(FAMILIES)[random.integers(0, len(FAMILIES), len(models))])
    )
    table = _set(table, "pipeline_tag", pa.array(["text-generation"] * len(models)))
    table = _set(table, "params", pa.array(sizes))
    table = _set(table, "num_planned", pa.array(np.full(len(models), ROWS, "i4")))
    table = _set(table, "downloads", pa.array((1e6 / (1 + numbers)).astype("i8")))
    return _named(table, numbers)


def _named(table: pa.Table, numbers: np.ndarray) -> pa.Table:
    known, place = np.unique(numbers, return_inverse=True)
    refs = [reference(int(number)) for number in known]
    names = {"repo_id": [ref.repo_id for ref in refs], "revision": [ref.revision for ref in refs]}
    if "file_sha256" in table.column_names:
        names["file_sha256"] = [f"{number * 0x9E3779B97F4A7C15:064x}"[-64:] for number in known.tolist()]
    for name, values in names.items():
        table = _set(table, name, pa.array(values).take(pa.array(place)))
    return table


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), values.cast(table.schema.field(name).type))


def _shaken(column: pa.ChunkedArray, kind: pa.DataType, random: np.random.Generator) -> pa.Array:
    missing = column.is_null().to_numpy()
    if missing.all():
        return pa.nulls(len(column), kind)
    noise = np.roll(_noise(len(column)), random.integers(len(column)))
    values = column.fill_null(0).to_numpy() * noise
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=missing)


@cache
def _noise(length: int) -> np.ndarray:
    """Drawn once: each column of each block turns it by another number of places."""
    return 1 + 0.1 * np.abs(np.random.default_rng(length).standard_normal(length))


@cache
def _model() -> pa.Table:
    rows = judge(_scanned()[1], ScanConfig().thresholds)
    assert len(rows) == ROWS
    return to_table("layers", [replace(row, scan_id="synthetic") for row in rows])


@cache
def _repository() -> pa.Table:
    (about,) = _scanned()[0].components
    return to_table("repositories", [replace(about, scanned_at=datetime(2031, 1, 1, tzinfo=UTC))])


@cache
def _scanned() -> tuple:
    source, config = MemorySource(dict(_weights()), "owner/name"), ScanConfig()
    plan = plan_repository(source, source.repository("owner/name"), config, WorkLimits())
    measured = (row for unit in plan.units for row in run_unit(source, unit, config).rows)
    rows = [*measured, *(place(ref, config) for ref in plan.skipped)]
    return plan, sorted(rows, key=lambda row: row.matrix_index)


def _weights() -> Iterator[tuple[str, np.ndarray]]:
    """Blocks of four matrices and six vectors."""
    random = np.random.default_rng(0)
    for i in range(ROWS // 10):
        block = f"model.layers.{i}"
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
            yield f"{block}.{name}.weight", random.standard_t(3, (80, 60)).astype("f4")
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{block}.self_attn.{name}.bias", np.ones(60, "f4")
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{block}.{name}.weight", np.ones(60, "f4")
