"""Asking the lake: every verb in every form, and what goes wrong."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from running import Scanned, rows, run_cli, start_cli

QUESTIONS = {
    "leaderboard": (),
    "show": ("zoo/sound",),
    "flags": (),
    "sql": ("SELECT repo_id, count(*) AS n FROM layers GROUP BY ALL ORDER BY ALL",),
    "status": (),
}


@pytest.fixture(scope="module")
def lake(zoo_scan: Scanned) -> Path:
    return zoo_scan.lake


@pytest.fixture(scope="module")
def some_model(lake: Path) -> str:
    [row] = rows(lake, "SELECT repo_id FROM models WHERE status = 'ok' AND num_ok > 1 ORDER BY 1 LIMIT 1")
    return row["repo_id"]


def asked(verb: str, lake: Path, some_model: str, *more: object):
    arguments = (some_model,) if verb == "show" else QUESTIONS[verb]
    return run_cli(verb, *arguments, "--lake", lake, *more)


@pytest.mark.parametrize("verb", QUESTIONS)
def test_every_question_in_every_form(verb: str, lake: Path, some_model: str, tmp_path: Path) -> None:
    as_csv = asked(verb, lake, some_model, "--format", "csv")
    parsed = list(csv.DictReader(io.StringIO(as_csv.text)))
    as_json = json.loads(asked(verb, lake, some_model, "--format", "json").text)
    file = tmp_path / "answer.parquet"
    assert asked(verb, lake, some_model, "-o", file).code == 0
    as_parquet = pq.read_table(file)
    assert len(parsed) == len(as_json) == as_parquet.num_rows > 0
    assert list(parsed[0]) == list(as_json[0]) == as_parquet.column_names
    streamed = pq.read_table(io.BytesIO(asked(verb, lake, some_model, "--format", "parquet").out))
    assert streamed.equals(as_parquet)
    table = asked(verb, lake, some_model, "--format", "table")
    assert table.code == 0
    assert len(table.text.splitlines()) > 2


def test_a_pipe_gets_csv(lake: Path) -> None:
    query = "SELECT 1 AS one, [1.5] AS list"
    assert run_cli("sql", query, "--lake", lake).text == "one,list\n1,[1.5]\n"


def test_show_puts_the_worst_layer_first(lake: Path) -> None:
    [row] = rows(lake, "SELECT repo_id FROM layers WHERE status_reason = 'nonfinite' LIMIT 1")
    shown = json.loads(run_cli("show", row["repo_id"], "--lake", lake, "--format", "json").text)
    assert shown[0]["status"] == "failed"
    assert shown[0]["status_reason"] == "nonfinite"


def test_show_leaves_skipped_tensors_to_those_who_ask(lake: Path, some_model: str) -> None:
    def statuses(*more: str) -> set[str]:
        found = json.loads(run_cli("show", some_model, "--lake", lake, "--format", "json", *more).text)
        return {row["status"] for row in found}

    assert "skipped" not in statuses()
    assert "skipped" in statuses("--all")


def test_flags_of_one_kind(lake: Path) -> None:
    found = json.loads(run_cli("flags", "--kind", "nonfinite", "--lake", lake, "--format", "json").text)
    assert found
    assert {row["flag"] for row in found} == {"nonfinite"}
    assert all(row["sentence"] for row in found)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sql", "SELEC 1"), "syntax error"),
        (("sql", "SELECT nothing FROM layers"), "nothing"),
        (("show", "zoo/nobody"), "near it:"),
        (("flags", "--kind", "bad_luck"), "choose one of"),
    ],
)
def test_a_wrong_question_is_answered_in_words(lake: Path, arguments: tuple[str, ...], says: str) -> None:
    ran = run_cli(*arguments, "--lake", lake)
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert says in ran.err


def test_sql_without_a_query_is_a_usage_error(lake: Path) -> None:
    assert run_cli("sql", "--lake", lake).code == 2


def test_printed_views_open_the_lake_in_any_duckdb(lake: Path) -> None:
    script = run_cli("sql", "--print-views", "--lake", lake).text
    with duckdb.connect() as connection:
        connection.execute(script)
        for view in ("layers", "models", "failures", "runs", "leaderboard", "flags", "weightwatcher"):
            [count] = connection.execute(f"SELECT count(*) FROM {view}").fetchone()
            assert rows(lake, f"SELECT count(*) AS n FROM {view}") == [{"n": count}]


def test_the_models_file_is_the_view(lake: Path) -> None:
    file = f"SELECT * FROM read_parquet('{lake}/models/models.parquet')"
    for one, two in ((file, "FROM models"), ("FROM models", file)):
        assert rows(lake, f"SELECT count(*) AS n FROM ({one} EXCEPT {two})") == [{"n": 0}]


def test_the_columns_of_every_table_are_explained() -> None:
    for table in ("layers", "models", "repositories", "failures", "runs"):
        found = json.loads(run_cli("columns", table, "--format", "json").text)
        assert all(row["column"] and row["type"] and row["NULL"] for row in found)


def test_a_formula_is_text_in_csv(lake: Path) -> None:
    assert run_cli("sql", "SELECT '=1+1' AS a, -1 AS b", "--lake", lake).text == "a,b\n'=1+1,-1\n"


def test_control_characters_do_not_reach_a_terminal(lake: Path) -> None:
    ran = run_cli("sql", "SELECT 'red' || chr(27) || '[31m' AS a", "--lake", lake, "--format", "table")
    assert "\x1b" not in ran.text
    assert "\\x1b[31m" in ran.text


def test_a_reader_that_leaves_early_is_no_error(lake: Path) -> None:
    asking = start_cli("sql", "SELECT * FROM range(1000000)", "--lake", lake)
    head = subprocess.run(
        [sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.readline())"],
        stdin=asking.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    asking.stdout.close()
    assert head.stdout == "range\n"
    assert asking.stderr.read() == ""
    asking.stderr.close()
    assert asking.wait(timeout=60) == 0
