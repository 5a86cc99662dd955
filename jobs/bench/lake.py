"""A lake of any size without as many scans: the rows of one model under other names, their numbers shaken."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.synthetic import write_model
from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.lake.files import write_part
from jobs.lake.generations import merged_file, shared_part
from jobs.lake.mergedfiles import MergedFiles, filled
from jobs.lake.store import Store
from schemas.config import profile_config
from schemas.refs import RepoRef
from schemas.tables import SCHEMAS
from schemas.work import Target

ROWS = 300
"""Matrices of the model that is multiplied."""

_SIDE = 64
"""The bulk of smaller matrices is not looked at: their rows lack nine columns that a real scan fills."""
_MODELS_A_FILE = 600
_SPREAD = 0.1


def grown(folder: Path, rows: int) -> Path:
    """A lake of about `rows` layers in large ordered files, with its snapshot of the models."""
    lake, model = folder / "lake", write_model(folder / "model", [[(_SIDE, _SIDE)] * ROWS])
    _scan(lake, model)
    base = {table: _base_part(lake / table) for table in ("layers", "repositories")}
    for models in _blocks(rows // ROWS):
        for table, one in base.items():
            part = lake / table / f"bench-{models.start:07}.parquet"
            pq.write_table(_multiplied(one, models), part, compression="zstd")
    _scan(lake, model)
    return lake


def scattered(folder: Path, models: int, together: int) -> Path:
    """A lake of small parts as scans leave them: of one model, or of `together` that lie apart by name."""
    lake, model = (
        folder / f"by-{together}",
        write_model(folder / f"model-{together}", [[(_SIDE, _SIDE)] * ROWS]),
    )
    _scan(lake, model)
    base = {table: _base_part(lake / table) for table in ("layers", "repositories")}
    stride = models // together
    with Store.writing(lake) as store:
        for first in range(stride):
            for table, one in base.items():
                chosen = range(first, stride * together, stride)
                write_part(_multiplied(one, chosen), _part_of(store, table, one, chosen))
    return lake


def interleaved(folder: Path, models: int) -> list[Path]:
    """Two merged files of every other model each, from the lake that `scattered` made of single ones."""
    one = filled(_base_part(folder / "by-1" / "layers"), SCHEMAS["layers"])
    places = [folder / name for name in ("even", "odd")]
    for first, place in enumerate(places):
        place.mkdir()
        with MergedFiles(place) as files:
            for some in _blocks(models):
                files.write(_multiplied(one, range(some.start + first, some.stop, 2)))
    return [merged_file(place, 0) for place in places]


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


def _blocks(models: int) -> Iterator[range]:
    return (range(i, min(i + _MODELS_A_FILE, models)) for i in range(0, models, _MODELS_A_FILE))


def _multiplied(one: pa.Table, models: range) -> pa.Table:
    """The rows of `one` for every model, each float times its own random factor near 1."""
    rng = np.random.default_rng(models.start)
    table = one.take(np.tile(np.arange(one.num_rows), len(models)))
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_floating(field.type) and column.null_count < len(column):
            table = table.set_column(place, field, _shaken(column, field.type, rng))
    names = np.repeat([name_of(number) for number in models], one.num_rows)
    place = table.schema.get_field_index("repo_id")
    return table.set_column(place, table.schema.field(place), pa.array(names).cast(pa.string()))


def _shaken(column: pa.ChunkedArray, kind: pa.DataType, rng: np.random.Generator) -> pa.Array:
    missing = column.is_null().to_numpy()
    values = column.fill_null(0.0).to_numpy() * rng.normal(1.0, _SPREAD, len(column))
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=missing)
