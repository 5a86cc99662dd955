"""Rows to Arrow and back, for every column of every table."""

from dataclasses import fields, replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.columns import NEVER, columns
from schemas.results import Flag, FlagKind
from schemas.tables import SCHEMA_VERSION, SCHEMAS, TABLES, from_table, reference, to_table

FULL = {
    "string": "snow \u2603, quote ' and \0",
    "bool": True,
    "int32": 2**31 - 1,
    "int64": 2**63 - 1,
    "uint64": 2**64 - 1,
    "float32": 0.5,
    "float64": 1 / 3,
    "timestamp[us, tz=UTC]": datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC),
    "list<int64>": (1, 2**62),
    "list<float32>": (0.25, -1.5),
    "list<string>": ("a", ""),
    "map<string, string>": {"k": "v", "": "w"},
    "map<string, float64>": {"a": 0.1, "b": 0.9},
    "map<string, int32>": {"cpu": 4},
    "list<struct<kind: string, value: float64, threshold: float64, sentence: string>>": (
        Flag(FlagKind.NO_TAIL, 1.5, None, "why"),
        Flag(FlagKind.RANDOM_LIKE, None, 0.5, ""),
    ),
}
EMPTY = {"list<int64>": (), "list<string>": (), "map<string, string>": {}, "map<string, int32>": {}}


def full(name):
    return TABLES[name](**{c: FULL[about["arrow"]] for c, about in columns(TABLES[name]).items()})


def bare(name):
    """The row with NULL wherever NULL has a meaning."""
    about = columns(TABLES[name])
    kept = {c: FULL[a["arrow"]] if a["null"] == NEVER else None for c, a in about.items()}
    kept |= {c: EMPTY.get(a["arrow"], kept[c]) for c, a in about.items() if a["null"] == NEVER}
    return TABLES[name](**kept)


every_table = pytest.mark.parametrize("name", TABLES)


@every_table
def test_rows_come_back_from_parquet_as_they_were(name, tmp_path):
    rows = [full(name), bare(name), full(name)]
    pq.write_table(to_table(name, rows), tmp_path / "part.parquet", compression="zstd")
    assert from_table(name, pq.read_table(tmp_path / "part.parquet", schema=SCHEMAS[name])) == rows


@every_table
def test_no_rows_are_a_table_too(name):
    table = to_table(name, [])
    assert table.schema.equals(SCHEMAS[name], check_metadata=True)
    assert from_table(name, table) == []


@every_table
def test_a_column_is_nullable_just_where_null_has_a_meaning(name):
    about = columns(TABLES[name])
    assert SCHEMAS[name].names == list(about) == [field.name for field in fields(TABLES[name])]
    for field in SCHEMAS[name]:
        assert field.nullable == (about[field.name]["null"] != NEVER)
    assert SCHEMAS[name].metadata[b"hubspectra.schema_version"] == str(SCHEMA_VERSION).encode()


@every_table
def test_none_in_a_column_that_is_never_null_is_refused(name):
    for field in SCHEMAS[name]:
        if field.nullable or field.name == "findings":
            continue
        with pytest.raises(ValueError, match=f"column {field.name} is never NULL"):
            to_table(name, [full(name), replace(full(name), **{field.name: None})])


@every_table
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_column_takes_a_number_that_is_none(name, value):
    floats = [field.name for field in SCHEMAS[name] if pa.types.is_floating(field.type)]
    for column in floats:
        with pytest.raises(ValueError, match=f"column {column} holds NaN or Inf"):
            to_table(name, [replace(full(name), **{column: value})])


def test_a_wrong_type_is_refused():
    with pytest.raises(pa.ArrowInvalid):
        to_table("layers", [replace(full("layers"), num_evals="many")])
    with pytest.raises(pa.ArrowInvalid):
        to_table("layers", [replace(full("layers"), num_evals=2**31)])


@every_table
def test_the_reference_lists_every_column(name):
    table = reference(name)
    assert table.column("column").to_pylist() == SCHEMAS[name].names
    assert table.column_names == ["column", "type", "unit", "NULL"]
