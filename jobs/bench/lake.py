"""A lake of any size without as many scans: the rows of one model under other names, their numbers shaken."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.synthetic import Shape, write_model
from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.lake.compaction import compact
from jobs.lake.decoding import footers
from jobs.lake.files import write_part
from jobs.lake.generations import merged, shared, shared_part, sweep
from jobs.lake.halves import halves
from jobs.lake.leaderboard import save_snapshot
from jobs.lake.merging import merge
from jobs.lake.store import Store
from schemas.config import profile_config
from schemas.refs import RepoRef
from schemas.work import Target

ROWS = 300
"""Tensors of the model that is multiplied."""

_SIDE = 64
"""The bulk of smaller matrices is not looked at: their rows lack nine columns that a real scan fills."""
TOGETHER = 48
"""Models of a part that many workers leave: some 16,000 rows."""
_FAMILIES = 7
_SPREAD = 0.1


def grown(folder: Path, rows: int) -> Path:
    """A compacted lake of about `rows` layers, with its snapshot of the models."""
    lake = scattered(folder, rows // ROWS, min(TOGETHER, rows // ROWS))
    with Store.writing(lake) as store:
        compact(store)
        sweep(lake, store.generation, grace=0)
        save_snapshot(store)
    return lake


def scattered(folder: Path, models: int, together: int, matrices: int = 2) -> Path:
    """A lake of small parts as scans leave them: of one model, or of `together` that lie apart by name.

    Of five tensors so many are `matrices`, the others biases and norms between them.
    """
    lake = Path(tempfile.mkdtemp(prefix=f"by-{together}-", dir=folder))
    model = write_model(folder / f"model-of-{lake.name}", [_tensors(matrices)])
    _scan(lake, model)
    base = {table: _base_part(lake / table) for table in ("layers", "repositories")}
    stride = models // together
    with Store.writing(lake) as store:
        for first in range(stride):
            for table, one in base.items():
                chosen = range(first, stride * together, stride)
                write_part(_multiplied(one, chosen), _part_of(store, table, one, chosen))
    return lake


def interleaved(folder: Path, lake: Path) -> list[Path]:
    """The shared parts of a lake in two sets of merged files, of every other model each."""
    parts = shared(lake / "layers")
    places = [folder / name for name in ("even", "odd")]
    for first, place in enumerate(places):
        place.mkdir()
        merge([], place, shared=footers(parts[first::2]))
    return [path for place in places for path in merged(place)]


def _tensors(matrices: int) -> list[Shape]:
    five: list[Shape] = [(_SIDE, _SIDE)] * matrices + [(_SIDE,)] * (5 - matrices)
    return five * (ROWS // 5)


def _part_of(store: Store, table: str, one: pa.Table, models: range) -> Path:
    if len(models) > 1:
        return shared_part(store.folder(table), "bench", models.start)
    revision, fingerprint = (one.column(name)[0].as_py() for name in ("revision", "config_fingerprint"))
    return store.part(table, RepoRef(name_of(models.start), revision).part_key(fingerprint))


def name_of(number: int) -> str:
    """The repository that is model `number` of the lake."""
    return f"bench/model-{number:07}"


def _scan(lake: Path, model: Path) -> None:
    """Scan the one real model; once it is done, this only renews the snapshot of the models."""
    target = Target(repo_id="bench/base", root=str(model))
    request = Request(targets=(target,), lake=lake, config=profile_config("default"), engine="local")
    with quiet_progress() as display:
        run_scan(request, display)


def _base_part(folder: Path) -> pa.Table:
    (part,) = folder.glob("bench--base-*.parquet")
    return pq.read_table(part)


def _multiplied(one: pa.Table, models: range) -> pa.Table:
    """The rows of `one` for every model, each float times a random factor of its own; measured ones first."""
    rng = np.random.default_rng(models.start)
    table = one.take(np.tile(np.arange(one.num_rows), len(models)))
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_floating(field.type) and column.null_count < len(column):
            table = table.set_column(place, field, _shaken(column, field.type, rng))
    names = np.repeat([name_of(number) for number in models], one.num_rows)
    place = table.schema.get_field_index("repo_id")
    table = table.set_column(place, table.schema.field(place), pa.array(names).cast(pa.string()))
    if "matrix_index" in table.column_names:
        return pa.concat_tables(halves(table))
    families = [f"Family{number % _FAMILIES}ForCausalLM" for number in models]
    return table.append_column("architecture", pa.array(families))


def _shaken(column: pa.ChunkedArray, kind: pa.DataType, rng: np.random.Generator) -> pa.Array:
    missing = column.is_null().to_numpy()
    values = column.fill_null(0.0).to_numpy() * rng.normal(1.0, _SPREAD, len(column))
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=missing)
