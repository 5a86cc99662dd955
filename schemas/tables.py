"""Arrow schemas of the lake's tables, read off the row classes, and rows <-> Arrow."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa

from schemas.columns import NEVER, columns
from schemas.models import ModelMetrics
from schemas.records import remade
from schemas.results import Flag, FlagKind
from schemas.rows import Failure, LayerMetrics, RepositoryRow, RunRow

SCHEMA_VERSION = 1
"""Raised when a column changes its name, type or meaning; new nullable columns do not raise it."""

_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
    "list<int64>": pa.list_(pa.int64()),
    "list<float32>": pa.list_(pa.float32()),
    "list<string>": pa.list_(pa.string()),
    "map<string, string>": pa.map_(pa.string(), pa.string()),
    "map<string, float64>": pa.map_(pa.string(), pa.float64()),
    "map<string, int32>": pa.map_(pa.string(), pa.int32()),
    "list<struct<kind: string, value: float64, threshold: float64, sentence: string>>": pa.list_(
        pa.struct(
            [
                ("kind", pa.string()),
                ("value", pa.float64()),
                ("threshold", pa.float64()),
                ("sentence", pa.string()),
            ]
        )
    ),
}


def _schema(row: type) -> pa.Schema:
    return pa.schema(
        [
            pa.field(
                name,
                _TYPES[about["arrow"]],
                nullable=about["null"] != NEVER,
                metadata={"unit": about["unit"], "null": about["null"]},
            )
            for name, about in columns(row).items()
        ],
        metadata={"hubspectra.schema_version": str(SCHEMA_VERSION)},
    )


TABLES: dict[str, type] = {
    "layers": LayerMetrics,
    "repositories": RepositoryRow,
    "models": ModelMetrics,
    "failures": Failure,
    "runs": RunRow,
}
SCHEMAS: dict[str, pa.Schema] = {name: _schema(row) for name, row in TABLES.items()}


def to_table(name: str, rows: Iterable[Any]) -> pa.Table:
    """Arrow table of `rows`, checked against the schema of table `name`.

    Raises ValueError for a NaN or Inf, which no column may hold, and for None where a column is never NULL.
    """
    kept = list(rows)
    return pa.table([_column(kept, field) for field in SCHEMAS[name]], schema=SCHEMAS[name])


def from_table(name: str, table: pa.Table) -> Sequence[Any]:
    """Rows of an Arrow table as the dataclasses of table `name`."""
    row_class, names = TABLES[name], table.column_names
    values = [_values(column, field) for column, field in zip(table.columns, table.schema, strict=True)]
    rows = zip(*values, strict=True)
    if names == SCHEMAS[name].names:
        return [remade(row_class, row) for row in rows]
    return [row_class(**dict(zip(names, row, strict=True))) for row in rows]


def _column(rows: Sequence[Any], field: pa.Field) -> pa.Array:
    values: list[Any] = list(map(attrgetter(field.name), rows))
    if field.name == "findings":
        values = [[dict(zip(_FLAG, _FLAG_VALUES(flag), strict=True)) for flag in flags] for flags in values]
    elif pa.types.is_map(field.type):
        values = [None if value is None else list(value.items()) for value in values]
    column = pa.array(values, field.type)
    if pa.types.is_floating(field.type) and not _finite(column):
        raise ValueError(f"column {field.name} holds NaN or Inf: a number that is not there is NULL")
    if column.null_count and not field.nullable:
        raise ValueError(f"column {field.name} is never NULL, but {column.null_count} rows have none")
    return column


def _finite(column: pa.Array) -> bool:
    import pyarrow.compute as pc  # a third of the time to import pyarrow, which readers need without it

    return pc.all(pc.is_finite(column)).as_py() is not False


def reference(name: str) -> pa.Table:
    """The columns of table `name`: type, unit and range, what NULL means."""
    about = columns(TABLES[name])
    rows = [{"column": c, "type": a["arrow"], "unit": a["unit"], "NULL": a["null"]} for c, a in about.items()]
    return pa.Table.from_pylist(rows)


_FLAG = ("kind", "value", "threshold", "sentence")
_FLAG_VALUES = attrgetter(*_FLAG)


def _values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    """A column as Python values; numbers and texts in bulk, many times quicker than one by one."""
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_string(field.type):
        words = column.combine_chunks().dictionary_encode()
        known = [*words.dictionary.to_pylist(), None]
        return [known[i] for i in words.indices.fill_null(-1).to_numpy().tolist()]
    if pa.types.is_floating(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
        return _numbers(column)
    return [_frozen(value, field.name) for value in column.to_pylist(maps_as_pydicts="strict")]


def _numbers(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.fill_null(pa.scalar(0).cast(column.type)).to_numpy().tolist()
    if column.null_count == 0:
        return values
    missing = column.is_null().to_numpy().tolist()
    return [None if gone else value for value, gone in zip(values, missing, strict=True)]


def _frozen(value: Any, name: str) -> Any:
    if name == "findings":
        return tuple(Flag(FlagKind(f["kind"]), f["value"], f["threshold"], f["sentence"]) for f in value)
    return tuple(value) if isinstance(value, list) else value
