"""The questions of the command line to a scanned lake, in every format, and what they say to a wrong one."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import PATIENCE, ended, finish, rows, run_cli, start_cli, start_python
from zoo import FAILURES, save_model

from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS
from schemas.tables import TABLES

QUESTIONS = {
    "leaderboard": "SELECT count(*) AS n FROM leaderboard",
    "show acme/one": "SELECT count(*) AS n FROM layers WHERE repo_id = 'acme/one' AND status <> 'skipped'",
    "show odd/nonfinite --all": "SELECT count(*) AS n FROM layers WHERE repo_id = 'odd/nonfinite'",
    "flags": "SELECT count(*) AS n FROM flags",
    "flags --kind nonfinite": "SELECT 1 AS n",
    "flags --repo odd/zero": "SELECT count(*) AS n FROM flags WHERE repo_id = 'odd/zero'",
    "status": "SELECT 1 AS n",
    "status --failures": f"SELECT {len(FAILURES)} AS n",
    "sql FROM layers": "SELECT count(*) AS n FROM layers",
}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def ask_cli(zoo_scan):
    """Ask the scanned zoo: a verb and its words, or `sql` and a query."""

    def ask(question, *more):
        verb, _, rest = question.partition(" ")
        words = [rest] if verb == "sql" else rest.split()
        return run_cli(verb, *words, "--lake", zoo_scan.lake, *more)

    return ask


# Formats


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_format_holds_the_same_rows(ask_cli, zoo_scan, tmp_path, question):
    (expected,) = rows(zoo_scan.lake, QUESTIONS[question])
    as_csv = list(csv.DictReader(io.StringIO(ask_cli(question, "--format", "csv").text)))
    as_json = json.loads(ask_cli(question, "--format", "json").text)
    as_parquet = pq.read_table(io.BytesIO(ask_cli(question, "--format", "parquet").out))
    assert len(as_csv) == len(as_json) == as_parquet.num_rows == expected["n"]
    assert list(as_csv[0]) == list(as_json[0]) == as_parquet.column_names
    table = ask_cli(question, "--format", "table")
    assert (table.code, CONTROL.search(table.text)) == (0, None)
    assert table.text.strip()


def test_numbers_are_whole_in_csv_and_json(ask_cli, zoo_scan):
    query = "SELECT alpha, log_norm, N, counted, flags FROM layers WHERE alpha IS NOT NULL ORDER BY ALL"
    stored = rows(zoo_scan.lake, query)
    assert json.loads(ask_cli("sql " + query, "--format", "json").text) == stored
    read = list(csv.DictReader(io.StringIO(ask_cli("sql " + query, "--format", "csv").text)))
    assert [(float(row["alpha"]), int(row["N"])) for row in read] == [
        (row["alpha"], row["N"]) for row in stored
    ]
    assert [json.loads(row["flags"]) for row in read] == [row["flags"] for row in stored]


def test_a_pipe_gets_csv_and_a_terminal_a_table(ask_cli, zoo_scan):
    assert ask_cli("leaderboard").out == ask_cli("leaderboard", "--format", "csv").out
    leader, follower = pty.openpty()
    arguments = ["-c", "from jobs.cli import main; main()", "status", "--lake", str(zoo_scan.lake)]
    with os.fdopen(follower, "wb") as terminal:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"COLUMNS": "200"},
        )
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)
    assert process.wait(PATIENCE) == 0
    assert b"finished" in shown
    assert b"scan_id,status" not in shown


def _read(terminal: int) -> bytes:
    """What the terminal shows next; nothing once its last writer is gone."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "txt"])
def test_a_file_gets_the_format_of_its_name(ask_cli, tmp_path, suffix):
    file = tmp_path / f"layers.{suffix}"
    ran = ask_cli("sql FROM layers", "-o", file)
    assert (ran.code, ran.out) == (0, b"")
    form = "csv" if suffix == "txt" else suffix
    expected = ask_cli("sql FROM layers", "--format", form).out
    assert file.read_bytes() == expected if form != "parquet" else pq.read_table(file).num_rows > 0


def test_a_format_beats_the_name_of_the_file(ask_cli, tmp_path):
    ask_cli("status", "--format", "json", "-o", tmp_path / "runs.csv")
    assert json.loads((tmp_path / "runs.csv").read_text())[0]["status"] == "finished"


def test_what_json_cannot_say_is_null_and_what_it_can_is_a_number(ask_cli):
    query = (
        "SELECT 'nan'::DOUBLE AS nan, [1.5, 'inf'::DOUBLE] AS inf, sum(5) AS whole, 1.25::DECIMAL(9, 2) AS part, "
        "MAP {'a': 'nan'::DOUBLE} AS map, DATE '2026-01-02' AS day, NULL AS none"
    )
    assert json.loads(ask_cli("sql " + query, "--format", "json").text) == [
        {"nan": None, "inf": [1.5, None], "whole": 5, "part": 1.25, "map": {"a": None}, "day": "2026-01-02"}
        | {"none": None}
    ]


def test_two_columns_of_one_name_are_both_there(ask_cli):
    assert ask_cli("sql SELECT 1 AS a, 2 AS a", "--format", "csv").text.splitlines()[1] == "1,2"


def test_limits_cut_the_answer(ask_cli):
    assert len(ask_cli("flags", "--limit", 2).text.splitlines()) == 3
    assert ask_cli("flags", "--limit", 0).code == 2


@pytest.mark.parametrize("table", ["layers", "models", "repositories", "failures", "runs"])
def test_columns_explains_every_column_of_a_table(zoo_scan, table):
    explained = json.loads(run_cli("columns", table, "--format", "json").text)
    stored = rows(zoo_scan.lake, f"DESCRIBE {table}")
    assert [row["column"] for row in explained] == [row["column_name"] for row in stored]
    assert all(row["NULL"] for row in explained)


@pytest.mark.parametrize("view", [view for view in SQL_VIEWS if view not in TABLES])
def test_columns_explains_every_column_of_a_view(zoo_scan, view):
    """The types are those of the answer; `float64` and DOUBLE are two names of one."""
    explained = json.loads(run_cli("columns", view, "--format", "json").text)
    stored = rows(zoo_scan.lake, f"DESCRIBE {view}")
    assert [row["column"] for row in explained] == [row["column_name"] for row in stored]
    kinds = {"DOUBLE": "float64", "VARCHAR": "string", "INTEGER": "int32", "VARCHAR[]": "list<string>"}
    for row, found in zip(explained, stored, strict=True):
        kind = found["column_type"]
        assert row["type"] == kinds.get(kind, row["type"])
    assert len({row["type"] for row in explained} & set(kinds.values())) > 0


def test_columns_lists_what_can_be_asked_and_says_so_for_each():
    listed = json.loads(run_cli("columns", "--format", "json").text)
    assert {row["name"] for row in listed} == {*TABLE_VIEWS, *SQL_VIEWS}
    assert {row["kind"] for row in listed if row["name"] in TABLE_VIEWS} == {"table"}
    assert all(len(row["answers"]) > 30 and row["answers"].endswith((".", ":")) for row in listed)
    told = run_cli("columns", "flags", "--format", "table").text
    assert told.startswith("flags: One row per finding, about a layer")
    assert "threshold" in told


def test_columns_of_what_there_is_not_names_what_there_is():
    ran = run_cli("columns", "models_latest")
    assert ran.code == 1
    assert "no table or view 'models_latest'; there are layers, " in ran.err


def test_the_help_of_sql_names_every_view():
    told = run_cli("sql", "--help").text
    assert [name for name in (*TABLE_VIEWS, *SQL_VIEWS) if name not in told] == []


# What people and programs must not be tricked by


@pytest.fixture(scope="module")
def tricky(tmp_path_factory):
    """A lake with names that a spreadsheet would run and a terminal would obey."""
    root = tmp_path_factory.mktemp("tricky")
    folder = save_model(root / "=cmd()" / "@evil\x1b[31mred", 1)
    (folder / "config.json").write_text(json.dumps({"architectures": ['=HYPERLINK("http://x")\x1b]0;t\x07']}))
    assert run_cli("scan", folder, "--lake", root / "lake").code == 0
    return root / "lake"


def test_formulas_are_text_in_csv(tricky):
    query = (
        "SELECT repo_id, architecture, '-1+1' AS a, '+x' AS b, '@y' AS c, -1.5 AS number FROM repositories"
    )
    (_, row) = csv.reader(io.StringIO(run_cli("sql", query, "--lake", tricky, "--format", "csv").text))
    assert [cell[:2] for cell in row[:5]] == ["'=", "'=", "'-", "'+", "'@"]
    assert row[5] == "-1.5"


def test_control_characters_reach_no_terminal(tricky):
    for question in (("leaderboard",), ("sql", "FROM repositories"), ("status",)):
        shown = run_cli(*question, "--lake", tricky, "--format", "table").text
        assert CONTROL.search(shown) is None
    (stored,) = rows(tricky, "SELECT repo_id FROM repositories")
    shown = run_cli("show", stored["repo_id"], "--lake", tricky, "--format", "table").text
    assert CONTROL.search(shown) is None
    wrong = run_cli("show", "=cmd()/@evil", "--lake", tricky)
    assert wrong.code == 1
    assert CONTROL.search(wrong.err) is None


def test_a_reader_that_has_seen_enough_is_no_error(zoo_scan):
    for form in ("csv", "json", "table"):
        arguments = ("sql", "SELECT repeat('x', 150) AS x FROM range(1500)", "--lake", zoo_scan.lake)
        with ended(start_cli(*arguments, "--format", form)) as process:
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(PATIENCE) == 0


# Wrong questions


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nope FROM layers", "nope"),
        ("SELEC 1", "syntax error"),
        ("FROM no_such_table", "no_such_table"),
        ("SELECT 1/0::INT, 'x'::INT", "Could not convert string 'x'"),
        ("", "no answer"),
    ],
)
def test_wrong_sql_is_answered_in_duckdbs_words(ask_cli, query, said):
    ran = ask_cli("sql " + query)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("error: SQL: ")
    assert said in ran.err


def test_sql_comes_from_standard_input_or_is_asked_for(zoo_scan, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 41 + 1 AS answer"))
    assert run_cli("sql", "-", "--lake", zoo_scan.lake).text == "answer\n42\n"
    ran = run_cli("sql", "--lake", zoo_scan.lake)
    assert (ran.code, "give a QUERY" in ran.err) == (2, True)


def test_sql_leaves_the_lake_as_it_is(ask_cli, zoo_scan):
    before = {path: path.stat().st_mtime_ns for path in zoo_scan.lake.rglob("*")}
    ask_cli("sql DROP VIEW layers")
    ask_cli("sql CREATE TABLE layers2 AS FROM layers")
    assert {path: path.stat().st_mtime_ns for path in zoo_scan.lake.rglob("*")} == before
    assert rows(zoo_scan.lake, "SELECT 1 FROM layers LIMIT 1")


def test_an_unknown_model_is_met_with_the_nearest_names(ask_cli):
    for question in ("show acme/onne", "flags --repo acme/onne"):
        ran = ask_cli(question)
        assert (ran.code, ran.out) == (1, b"")
        assert "acme/onne is not in the lake; near it: acme/one" in ran.err


def test_a_model_that_could_not_be_scanned_is_said_to_be_that(ask_cli):
    ran = ask_cli("show bad/pickle")
    assert ran.code == 1
    assert "bad/pickle could not be scanned: bad/pickle@" in ran.err
    assert "never unpickled" in ran.err


def test_an_unknown_kind_of_finding_is_met_with_the_known_ones(ask_cli):
    ran = ask_cli("flags --kind nonfinit")
    assert ran.code == 1
    assert "no such kind of finding: nonfinit; choose one of" in ran.err
    assert "nonfinite, " in ran.err


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_a_file_that_cannot_be_written_is_the_users_error(ask_cli, tmp_path, form):
    ran = ask_cli("status", "--format", form, "-o", tmp_path / "no/such/folder.x")
    assert ran.code == 1
    assert "cannot write" in ran.err


def test_an_empty_lake_answers_every_question(tmp_path):
    folder = tmp_path / "acme/nothing"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    lake = tmp_path / "lake"
    assert run_cli("scan", folder, "--lake", lake).code == 3
    for question in (
        ("leaderboard",),
        ("flags",),
        ("status",),
        ("status", "--failures"),
        ("sql", "FROM models"),
    ):
        for form in ("csv", "json", "parquet", "table"):
            assert run_cli(*question, "--lake", lake, "--format", form).code == 0
    assert run_cli("show", "acme/one", "--lake", lake).err.endswith("which is empty: scan it first\n")
    assert run_cli("leaderboard", "--lake", lake, "--format", "csv").err == ""
    said = run_cli("leaderboard", "--lake", lake, "--format", "table").err
    assert said == f"no model yet; what failed: hubspectra status --failures --lake {lake}\n"


def test_no_progress_bar_stands_among_the_answers(ask_cli):
    ran = ask_cli("sql SELECT current_setting('enable_progress_bar') AS bar")
    assert ran.text == "bar\nFalse\n"


def test_the_version_is_that_of_the_package():
    from schemas.config import code_version

    assert code_version() in run_cli("--version").text


def test_a_question_from_a_process_of_its_own(zoo_scan):
    ran = finish(start_cli("show", "odd/nonfinite", HUBSPECTRA_LAKE=str(zoo_scan.lake)))
    assert (ran.code, ran.err) == (0, "")
    assert next(csv.DictReader(io.StringIO(ran.text)))["status_reason"] == "nonfinite"


def test_show_puts_the_worst_layer_first_and_leaves_skipped_ones_to_those_who_ask(ask_cli):
    shown = json.loads(ask_cli("show odd/nonfinite", "--format", "json").text)
    assert (shown[0]["status"], shown[0]["status_reason"]) == ("failed", "nonfinite")
    assert {row["status"] for row in shown} == {"failed", "ok"}
    everything = json.loads(ask_cli("show odd/nonfinite", "--all", "--format", "json").text)
    assert {row["status"] for row in everything} == {"failed", "ok", "skipped"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_sentence(tmp_path):
    """On the pipe that a shell redirected."""
    code = "import sys; sys.stdout = open('/dev/full', 'w'); from jobs.cli import main; main()"
    with ended(start_python(code, "columns")) as process:
        ran = finish(process)
    assert (ran.code, ran.err) == (
        1,
        "error: standard output: No space left on device; make room and run it again\n",
    )


def test_a_reader_that_went_away_is_no_error():
    with ended(start_cli("columns", "configs")) as process:
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(PATIENCE), said) == (0, "")
