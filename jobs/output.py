"""Answers as people and pipes want them: a table on a terminal, CSV, JSON or Parquet anywhere else."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("table", "csv", "json", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def emit(table: pa.Table, form: str | None, output: Path | None, title: str = "") -> None:
    """Write `table` to a file or standard output; by default a table on a terminal, CSV in a pipe."""
    if output is not None:
        form = form or output.suffix.lstrip(".")
        if form == "parquet":
            pq.write_table(table, output, compression="zstd")
            return
        with output.open("w", encoding="utf-8", newline="") as stream:
            _text(table, form if form in FORMATS else "csv", stream, title)
        return
    form = form or ("table" if sys.stdout.isatty() else "csv")
    if form == "parquet":
        _parquet(table, sys.stdout.buffer)
    else:
        _text(table, form, sys.stdout, title)


def _text(table: pa.Table, form: str, stream: TextIO, title: str) -> None:
    if form == "json":
        rows = table.to_pylist(maps_as_pydicts="strict")
        stream.write(json.dumps(rows, default=_jsonable, allow_nan=False, indent=1) + "\n")
    elif form == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([_cell(value) for value in row.values()] for row in table.to_pylist())
    else:
        _rich(table, stream, title)


def _parquet(table: pa.Table, stream: BinaryIO) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    stream.write(sink.getvalue())
    stream.flush()


def _rich(table: pa.Table, stream: TextIO, title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", header_style="bold", row_styles=("", "dim"))
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(field.name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in table.to_pylist():
        shown.add_row(*(Text(_shown(value)) for value in row.values()))
    width = None if stream.isatty() else 200
    Console(file=stream, width=width, highlight=False).print(shown)


def _shown(value: Any) -> str:
    """A cell for the eye: four figures, no control characters."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_shown(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def _cell(value: Any) -> Any:
    """A CSV cell: floats in full, text that a spreadsheet would run is quoted as text."""
    if isinstance(value, list | dict):
        return json.dumps(value, default=_jsonable)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def _jsonable(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
