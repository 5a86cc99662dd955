"""Answers on a terminal, in a pipe and in files."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running import Terminal

from jobs.verbs.output import emit
from schemas.errors import UsageError

TABLE = pa.table(
    {
        "name": ["owner/a", None, "=HYPERLINK(1)"],
        "alpha": [2.123456789, None, -1.0],
        "count": pa.array([1, 2, None], pa.int32()),
        "flags": [["x", "y"], [], None],
        "at": [datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), None, None],
        "shares": pa.array([[("A", 0.25)], [], None], pa.map_(pa.string(), pa.float64())),
    }
)


def written(path, table=TABLE, form=None, title=""):
    emit(table, form, path, title)
    return path.read_text(encoding="utf-8")


def test_csv_keeps_every_digit_and_every_row(tmp_path):
    rows = list(csv.reader(io.StringIO(written(tmp_path / "a.csv"))))
    assert rows[0] == TABLE.column_names
    assert rows[1] == [
        "owner/a",
        "2.123456789",
        "1",
        '["x", "y"]',
        "2030-01-02T03:04:05+00:00",
        '{"A": 0.25}',
    ]
    assert rows[2] == ["", "", "2", "[]", "", "{}"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_text_that_a_spreadsheet_would_run_is_quoted(tmp_path, start):
    table = pa.table({"name": [f"{start}cmd"], "number": [-1.5]})
    ((_, _), (name, number)) = csv.reader(io.StringIO(written(tmp_path / "a.csv", table), newline=""))
    assert (name, number) == (f"'{start}cmd", "-1.5")


def test_a_lone_carriage_return_starts_no_csv_row(tmp_path):
    emit(pa.table({"name": ["a\rb", "\rc"]}), "csv", tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["name"], ["a\\rb"], ["\\rc"]]


def test_json_is_an_array_of_objects(tmp_path):
    first, second, _ = json.loads(written(tmp_path / "a.json"))
    assert first["alpha"] == 2.123456789
    assert first["shares"] == {"A": 0.25}
    assert first["at"] == "2030-01-02T03:04:05+00:00"
    assert second["alpha"] is None


def test_json_has_no_nan(tmp_path):
    table = pa.table({"x": [float("nan"), float("inf"), 1.0], "l": [[float("nan")], [], [2.0]]})
    assert json.loads(written(tmp_path / "a.json", table)) == [
        {"x": None, "l": [None]},
        {"x": None, "l": []},
        {"x": 1.0, "l": [2.0]},
    ]


def test_json_numbers_of_sql_sums_are_numbers(tmp_path):
    table = pa.table({"n": pa.array([Decimal(3), Decimal("2.5")], pa.decimal128(38, 1))})
    assert json.loads(written(tmp_path / "a.json", table)) == [{"n": 3}, {"n": 2.5}]


def test_parquet_is_the_table(tmp_path):
    emit(TABLE, None, tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(TABLE)


def test_a_table_for_the_eye(tmp_path):
    text = written(tmp_path / "a.txt", form="table", title="Answer")
    assert "Answer" in text
    assert "2.123" in text
    assert "2.1234" not in text
    assert "2030-01-02 03:04" in text
    assert "x, y" in text
    assert "A: 0.25" in text


def test_control_characters_never_reach_the_terminal(tmp_path):
    text = written(tmp_path / "a.txt", pa.table({"name": ["a\x1b[31mb\nc"]}), form="table")
    assert "\x1b" not in text
    assert "a\\x1b[31mb\\nc" in text


@pytest.mark.parametrize("form", ["csv", "table"])
def test_columns_of_one_name_are_all_shown(tmp_path, form):
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    text = written(tmp_path / "out", table, form=form)
    assert "1" in text
    assert "2" in text


@pytest.mark.parametrize("form", ["csv", "json", "table", "parquet"])
def test_an_answer_without_rows(tmp_path, form):
    emit(TABLE.slice(0, 0), form, tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_the_suffix_decides_and_an_unknown_one_is_csv(tmp_path):
    assert written(tmp_path / "a.dat").startswith("name,alpha")
    assert written(tmp_path / "b.json", form="csv").startswith("name,alpha")


def test_a_pipe_gets_csv_and_a_terminal_a_table(monkeypatch):
    pipe, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr("sys.stdout", pipe)
    emit(TABLE, None, None)
    monkeypatch.setattr("sys.stdout", terminal)
    emit(TABLE, None, None)
    assert pipe.getvalue().startswith("name,alpha")
    assert "owner/a,2.123456789" in pipe.getvalue()
    assert "2.123456789" not in terminal.getvalue()


def test_parquet_goes_to_standard_output_as_bytes(capfdbinary):
    emit(TABLE, "parquet", None)
    assert pq.read_table(io.BytesIO(capfdbinary.readouterr().out)).equals(TABLE)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*none/a\.csv: No such file"):
        emit(TABLE, None, tmp_path / "none/a.csv")


MODELS = {"repo_id": ["some-owner/a-model-of-a-long-name", "b/c"], "said": ["words to be broken", None]}
METRICS = {f"metric_{i}": [12345.678, -0.00012346] for i in range(8)}


def on_a_terminal(table, columns, monkeypatch, title=""):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    emit(table, "table", None, title)
    return terminal.getvalue()


@pytest.mark.parametrize("columns", [1, 10, 30, 60, 80, 120, 131, 132, 133, 200])
def test_no_terminal_is_so_narrow_that_numbers_are_cut(columns, monkeypatch):
    """Half of a number is another number."""
    shown = on_a_terminal(pa.table(MODELS | METRICS), columns, monkeypatch)
    assert shown.count("1.235e+04") == shown.count("-0.0001235") == 8
    assert all(name in shown for name in METRICS)


def test_where_columns_do_not_fit_a_row_is_a_line_a_value(monkeypatch):
    shown = on_a_terminal(pa.table(MODELS | METRICS), 24, monkeypatch, "Models")
    first, second = shown.split("\n\n")[1:3]
    assert shown.startswith("Models\n\n")
    assert first.split("\n")[:4] == [
        "repo_id    some-owner/a-model-of-a-long-name",
        "said       words to be",
        "           broken",
        "metric_0   1.235e+04",
    ]
    assert second.split("\n")[:3] == ["repo_id    b/c", "said", "metric_0   -0.0001235"]


def test_columns_stay_as_long_as_words_have_room(monkeypatch):
    """Names are folded to ten letters a line before the table is given up."""
    table = pa.table({"repo_id": ["some-owner/a-model"], "metric": [-0.00012346]})
    assert "  some-owner   -0.0001235  \n" in on_a_terminal(table, 27, monkeypatch)
    assert "repo_id   some-owner/a-model\n" in on_a_terminal(table, 26, monkeypatch)
