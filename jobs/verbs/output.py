"""Answers as people and pipes want them: a table on a terminal, CSV, JSON or Parquet anywhere else."""

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeAlias

import pyarrow as pa

from scanner.text import printable
from schemas.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Cells: TypeAlias = list[list[str]]

_PAGE = 200
"""Characters a line of a table in a file or a pipe."""

_WORD = 10
"""Characters that a column of words is given at least, where it has as many."""

_BETWEEN = 3
_FORMULA = ("=", "+", "-", "@", "\t")


def emit(
    table: pa.Table, form: str | None, output: Path | None, title: str = "", section: str | None = None
) -> None:
    """Write `table` to a file or standard output; by default a table on a terminal, CSV in a pipe.

    As a table for people, rows that share the column `section` get a table of their own, headed by it.
    Raises UsageError when the file cannot be written.
    """
    if output is not None:
        with writing(output):
            _file(table, form or output.suffix.lstrip("."), output, title)
        return
    form = form or ("table" if sys.stdout.isatty() else "csv")
    if form == "table" and section in table.column_names and table.num_rows:
        for heading, part in _sections(table, section):
            _for_eyes(part, sys.stdout, heading)
    elif form == "parquet":
        _parquet(table, sys.stdout.buffer)
    else:
        _text(table, form, sys.stdout, title)


def emit_text(text: str, output: Path | None) -> None:
    """Write `text` to a file or standard output. Raises UsageError when the file cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return
    with writing(output):
        output.write_text(text, encoding="utf-8")


def as_json(value: Any) -> str:
    """Indented JSON of rows or a document: no number that JSON does not know, dates as ISO 8601."""
    return json.dumps(_plain(value), default=_jsonable, allow_nan=False, indent=1) + "\n"


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Turns what goes wrong with the file or folder `output` into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from error


def _file(table: pa.Table, form: str, output: Path, title: str) -> None:
    if form == "parquet":
        with output.open("wb") as binary:
            _parquet(table, binary)
        return
    with output.open("w", encoding="utf-8", newline="") as stream:
        _text(table, form if form in ("table", "json") else "csv", stream, title)


def _text(table: pa.Table, form: str, stream: TextIO, title: str) -> None:
    if form == "json":
        rows = [dict(zip(table.column_names, row, strict=True)) for row in _rows(table)]
        stream.write(as_json(rows))
    elif form == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(map(_cell, row) for row in _rows(table))
    else:
        _for_eyes(table, stream, title)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows by position: a query may give two columns one name."""
    if not table.num_columns:
        return iter([])
    return zip(*(column.to_pylist(maps_as_pydicts="strict") for column in table.columns), strict=True)


def _sections(table: pa.Table, column: str | None) -> Iterator[tuple[str, pa.Table]]:
    """Runs of rows with one value in `column`, without that column."""
    values = table.column(column).to_pylist()
    rest = table.drop_columns([column])
    start = 0
    for value, run in groupby(values):
        length = len(list(run))
        yield _shown(value), rest.slice(start, length)
        start += length


def _parquet(table: pa.Table, stream: BinaryIO) -> None:
    import pyarrow.parquet as pq  # with the file systems that it brings, longer than a small question

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    stream.write(sink.getvalue())
    stream.flush()


def _for_eyes(table: pa.Table, stream: TextIO, title: str) -> None:
    """Columns where the terminal is wide enough for them, else a line a value.

    Rich would cut numbers that do not fit, and half of a number is another number.
    """
    from rich.console import Console

    cells = [[_shown(value) for value in row] for row in _rows(table)]
    console = Console(file=stream, width=None if stream.isatty() else _PAGE, highlight=False)
    if _least_width(table, cells) <= console.width or not cells:
        _columns(table, cells, console, printable(title))
    else:
        _records(table.column_names, cells, console, printable(title))


def _columns(table: pa.Table, cells: Cells, console: "Console", title: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(
        title=Text(title) if title else None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD
    )
    for field in table.schema:
        number = _is_number(field.type)
        shown.add_column(field.name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in cells:
        shown.add_row(*map(Text, row))
    console.print(shown)


def _records(names: Sequence[str], cells: Cells, console: "Console", title: str) -> None:
    """What is longer than a line breaks between words; the terminal itself breaks a word that is."""
    margin = max(map(len, names)) + _BETWEEN
    room = max(console.width - margin, _WORD)
    lines = [title] if title else []
    for row in cells:
        lines.append("")
        for name, value in zip(names, row, strict=True):
            broken = wrap(value, room, break_long_words=False, break_on_hyphens=False)
            lines.append((f"{name:{margin}}" + ("\n" + " " * margin).join(broken)).rstrip())
    console.file.write("\n".join([*lines, "", ""]))


def _least_width(table: pa.Table, cells: Cells) -> int:
    """Characters that columns take at least: numbers whole, words folded into a few letters a line."""
    columns = zip(table.schema, zip(*cells, strict=True), strict=False)
    widths = ((field.type, max(len(field.name), *map(len, texts))) for field, texts in columns)
    return sum(_BETWEEN + (width if _is_number(kind) else min(width, _WORD)) for kind, width in widths) + 1


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


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
    return printable(str(value))


def _cell(value: Any) -> Any:
    """A CSV cell: floats in full, text that a spreadsheet would run is quoted as text.

    A lone carriage return, which the csv module would not quote, would end the row.
    """
    if isinstance(value, list | dict):
        return json.dumps(value, default=_jsonable)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        value = value.replace("\r", "\\r")
        return "'" + value if value.startswith(_FORMULA) else value
    return value


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
