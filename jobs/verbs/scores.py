"""Scores to hold a metric against: a CSV of the user's, or the evaluation results that model cards state."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from jobs.lake.leaderboard import ask
from schemas.errors import UsageError

MAX_BYTES = 64 << 20
MAX_TEXT = 512
ID_COLUMNS = ("repo_id", "model")

_MISSING = frozenset({"", "-", "na", "n/a", "nan", "none", "null"})


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A CSV with a header: text columns by name, and the line each row ends on."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def texts(self, name: str) -> list[str | None]:
        """A column of names; None for empty cells. Raises UsageError if there is no such column."""
        return [cell or None for cell in self._cells(name)]

    def numbers(self, name: str) -> list[float | None]:
        """A column of numbers; None for empty cells, NA and NaN.

        Raises UsageError, with the line, for any other text and for infinities.
        """
        return [
            self._number(cell, line, name) for cell, line in zip(self._cells(name), self.lines, strict=True)
        ]

    def ids(self) -> list[str | None]:
        """Names of models, from the column repo_id or model.

        Raises UsageError if there is neither, or if a model is named twice.
        """
        column = next((name for name in ID_COLUMNS if name in self.columns), None)
        if column is None:
            raise UsageError(f"{self.path} names no models: it needs a column {' or '.join(ID_COLUMNS)}")
        names = self.texts(column)
        twice = [name for name, count in Counter(names).items() if name is not None and count > 1]
        if twice:
            raise UsageError(f"{self.path} has more than one row for {twice[0]}: which one counts?")
        return names

    def _cells(self, name: str) -> Sequence[str]:
        if name not in self.columns:
            raise no_such(f"column in {self.path}", name, self.columns)
        return self.columns[name]

    def _number(self, cell: str, line: int, name: str) -> float | None:
        if cell.lower() in _MISSING:
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.inf
        if math.isfinite(value):
            return value
        raise UsageError(f"{self.path} line {line}, column {name}: {cell!a:.60} is no number")


def read_csv(path: Path) -> ScoreTable:
    """Read a comma-separated UTF-8 file with a header line, of 64 MiB at most.

    Cells lose surrounding blanks and control characters and are cut at 512. Raises UsageError saying which
    line is wrong and how.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row:
                rows.append([_cell(cell) for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path} line {reader.line_num}: {error}") from error
    if not rows:
        raise UsageError(f"{path} is empty: it needs a header line and a row for each model")
    header, *body = rows
    for row, line in zip(body, lines[1:], strict=True):
        if len(row) != len(header):
            raise UsageError(f"{path} line {line} has {len(row)} cells, the header has {len(header)}")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise UsageError(f"{path} has more than one column {twice[0]}")
    columns = {name: tuple(row[i] for row in body) for i, name in enumerate(header) if name}
    return ScoreTable(path, columns, tuple(lines[1:]))


def card_score(lake: Path, score: str) -> str:
    """The full name of a score that cards in the lake state, from that name or a part only it has.

    Raises UsageError naming the nearest ones, or saying that there is none.
    """
    known: list[str] = (
        ask(
            lake,
            "SELECT name FROM (SELECT repo_id, unnest(map_keys(scores)) AS name FROM repositories) "
            "GROUP BY name ORDER BY count(DISTINCT repo_id) DESC, name",
        )
        .column(0)
        .to_pylist()
    )
    if not known:
        raise UsageError(f"no model card in lake {lake} states evaluation results: give --csv with scores")
    matching = [score] if score in known else [name for name in known if score.lower() in name.lower()]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(f"{score} fits {len(matching)} scores; choose one, such as {_some(matching)}")
    raise no_such("score on the model cards", score, known)


def no_such(what: str, name: str, known: Mapping[str, object] | Sequence[str]) -> UsageError:
    """An error that names the nearest of what there is."""
    near = get_close_matches(name, list(known), n=3, cutoff=0.4) or [
        other for other in known if name.lower() in other.lower()
    ]
    return UsageError(f"no {what} is called {name}; there is {_some(near or list(known))}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is above {MAX_BYTES >> 20} MiB: keep a row for each model and the scores")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: byte {error.start}") from error


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text.strip()[:MAX_TEXT])
