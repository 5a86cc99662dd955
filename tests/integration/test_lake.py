"""The lake as users and other programs meet it: what is refused, what a reader sees, what the files say."""

import json
import shutil

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from running import ended, finish, rows, run_cli, start_cli, start_python, until
from zoo import save_model

from jobs.hub.server import HubServer
from jobs.lake.generations import EMPTY, open_lake
from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS, ask, connect
from jobs.lake.store import Store
from schemas.errors import LakeError, UsageError
from schemas.tables import SCHEMA_VERSION, SCHEMAS

QUESTIONS = (
    ["leaderboard"],
    ["show", "acme/one"],
    ["flags"],
    ["sql", "SELECT 1"],
    ["status"],
    ["sql", "--print-views"],
)


def scan_into(lake, zoo):
    return run_cli("scan", zoo / "acme/one", "--lake", lake)


def refused(lake):
    with pytest.raises(LakeError) as caught:
        open_lake(lake)
    return str(caught.value)


def counts(connection):
    """Rows of each view."""
    return {
        view: connection.sql(f"SELECT count(*) FROM {view}").fetchall() for view in (*TABLE_VIEWS, *SQL_VIEWS)
    }


# What is refused


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_question_to_no_lake_says_how_to_make_one(tmp_path, question):
    ran = run_cli(*question, "--lake", tmp_path / "none")
    assert (ran.code, ran.out) == (1, b"")
    assert f"no lake at {tmp_path / 'none'}: run `hubspectra scan" in ran.err
    assert not (tmp_path / "none").exists()


def test_a_folder_that_holds_something_else_is_left_alone(zoo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    for ran in (scan_into(folder, zoo), run_cli("status", "--lake", folder)):
        assert ran.code == 1
        assert "is not a hubspectra lake: it has no lake.json" in ran.err
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_a_lake_of_a_newer_version_is_neither_read_nor_written(zoo, zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    (lake / "lake.json").write_text(json.dumps({"lake": "hubspectra", "schema_version": SCHEMA_VERSION + 1}))
    before = sorted(path.relative_to(lake) for path in lake.rglob("*"))
    for ran in (scan_into(lake, zoo), run_cli("leaderboard", "--lake", lake)):
        assert ran.code == 1
        assert f"schema version {SCHEMA_VERSION + 1}" in ran.err
        assert f"reads up to {SCHEMA_VERSION}: upgrade" in ran.err
    assert sorted(path.relative_to(lake) for path in lake.rglob("*")) == before


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"schema_version": "one"}', "\x00"])
def test_a_damaged_marker_is_named(zoo, zoo_scan, tmp_path, marker):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    (lake / "lake.json").write_text(marker)
    assert "lake" in refused(lake)
    ran = scan_into(lake, zoo)
    assert (ran.code, "Traceback" in ran.err) == (1, False)


def test_a_damaged_part_is_named_with_the_lake(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    part = next((lake / "layers").glob("[!_]*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    ran = run_cli("leaderboard", "--lake", lake)
    assert ran.code == 1
    assert f"lake {lake} is damaged" in ran.err
    assert part.name in ran.err


def test_a_file_is_no_lake(zoo, tmp_path):
    (tmp_path / "file").write_text("")
    assert scan_into(tmp_path / "file", zoo).code == 2
    assert scan_into(tmp_path / "file/below", zoo).code == 1


def test_a_lake_in_use_is_refused_and_its_scan_goes_on(zoo, tmp_path):
    lake = tmp_path / "lake"
    with Store.writing(lake) as store:
        ran = scan_into(lake, zoo)
        assert store.done() == frozenset()
    assert ran.code == 1
    assert f"another scan is writing to {lake}: wait for it, stop it, or give another --lake" in ran.err
    assert scan_into(lake, zoo).code == 0


def test_two_commands_on_one_lake(tmp_path):
    save_model(tmp_path / "hub/acme/slow", 1)
    save_model(tmp_path / "hub/acme/other", 2)
    lake = tmp_path / "lake"
    with HubServer(tmp_path / "hub", test_control=True) as hub:
        hub.fault(match="/slow/", on="cdn", delay=600.0)
        arguments = ("--lake", lake, "--endpoint", hub.endpoint, "--engine", "local")
        with ended(start_cli("scan", "acme/slow", *arguments)) as first:
            until(lambda: any(e["on"] == "cdn" for e in list(hub.log)) or first.poll() is not None, "a read")
            second = run_cli("scan", "acme/other", *arguments)
            asked = run_cli("status", "--lake", lake, "--format", "json")
    assert (second.code, second.out) == (1, b"")
    assert "another scan is writing" in second.err
    assert not any("other" in entry["path"] for entry in hub.log)
    assert [row["status"] for row in json.loads(asked.text)] == ["running"]


def test_the_lock_of_a_dead_scan_holds_nobody_up(zoo, tmp_path):
    lake = tmp_path / "lake"
    assert scan_into(lake, zoo).code == 0
    assert (lake / ".lock").exists()
    with FileLock(lake / ".lock", timeout=0):
        assert scan_into(lake, zoo).code == 1
    assert scan_into(lake, zoo).code == 0


def test_a_lake_that_cannot_be_written_is_the_users_error(zoo):
    ran = scan_into("/proc/lake", zoo)
    assert ran.code == 1
    assert "cannot create a lake at /proc/lake" in ran.err


# What readers see


SLOWLY = """
import time
from jobs.lake import gathering

class Gathering(gathering.Gathering):
    def taken(self):
        time.sleep(0.1)
        return super().taken()

gathering.ROWS, gathering.Gathering = 6, Gathering
from jobs.cli import main
main()
"""
"""Writes a part for every few rows, with time for a reader before each."""


def test_readers_see_whole_repositories_while_a_scan_runs(tmp_path):
    names = [f"m{i:02}" for i in range(30)]
    for seed, name in enumerate(names):
        save_model(tmp_path / "models/acme" / name, seed)
    lake, seen = tmp_path / "lake", set()
    query = """SELECT count(*) AS models,
        count(*) FILTER (num_matrices <> num_ok + num_skipped + num_failed OR num_ok = 0) AS broken FROM models"""
    with ended(start_python(SLOWLY, "scan", tmp_path / "models", "--lake", lake, "-q")) as process:
        until(lambda: (lake / "lake.json").exists() or process.poll() is not None, "a lake")
        while process.poll() is None:
            (found,) = rows(lake, query)
            assert found["broken"] == 0
            seen.add(found["models"])
        assert finish(process).code == 0
    assert rows(lake, query) == [{"models": len(names), "broken": 0}]
    assert seen - {0, len(names)}, "no reader came while the scan ran"


def test_the_snapshot_of_the_models_is_the_view(zoo_scan):
    snapshot = f"SELECT * FROM read_parquet('{zoo_scan.lake}/models/models.parquet')"
    assert rows(zoo_scan.lake, f"({snapshot}) EXCEPT ALL FROM models") == []
    assert rows(zoo_scan.lake, f"FROM models EXCEPT ALL ({snapshot})") == []


# What the files say


@pytest.mark.parametrize("table", ["layers", "repositories", "models", "failures", "runs"])
def test_every_part_has_the_declared_columns_in_which_it_has_a_value(zoo_scan, table):
    parts = list((zoo_scan.lake / table).glob("*.parquet"))
    assert len(parts) >= 2
    for part in parts:
        found = pq.read_table(part)
        whole = part.name in (EMPTY, "models.parquet") or found.num_rows == 0
        held = [f for f in SCHEMAS[table] if whole or f.name in found.column_names]
        assert found.schema.equals(pa.schema(held)), part.name
        assert whole or all(column.null_count < found.num_rows for column in found.columns), part.name


def test_views_printed_for_another_client_answer_as_here(zoo_scan):
    printed = run_cli("sql", "--print-views", "--lake", zoo_scan.lake)
    assert printed.code == 0
    with duckdb.connect() as other, connect(zoo_scan.lake) as here:
        other.execute(printed.text)
        assert counts(other) == counts(here)


@pytest.mark.parametrize(
    "query",
    [
        'SELECT count(*) AS n FROM "Layers"',
        "SELECT count(*) AS n FROM (repositories JOIN layers USING (repo_id, revision, config_fingerprint))",
        "SELECT count(DISTINCT matrix) AS n FROM (SELECT (repo_id, revision, component, matrix_index) AS matrix "
        "FROM runs, layers)",
        "FROM query('SELECT count(*) AS n ' || 'FRO' || 'M layers')",
        "WITH runs AS (FROM main.layers) SELECT count(*) AS n FROM runs",
    ],
)
def test_a_view_is_there_however_it_is_named(zoo_scan, query):
    assert rows(zoo_scan.lake, query) == rows(zoo_scan.lake, "SELECT count(*) AS n FROM layers")


@pytest.mark.parametrize(
    "query", ["SHOW TABLES", "SELECT view_name AS name FROM duckdb_views() WHERE NOT internal"]
)
def test_the_list_of_views_is_whole(zoo_scan, query):
    assert {row["name"] for row in rows(zoo_scan.lake, query)} == {*TABLE_VIEWS, *SQL_VIEWS}


def test_a_view_that_is_not_there_is_a_wrong_query(zoo_scan):
    """`lake` and `query` are variables of the code that asks, and no tables."""
    for name in ("lake", "query", "leyers"):
        with pytest.raises(UsageError, match=f"Table with name {name} does not exist"):
            ask(zoo_scan.lake, f"FROM {name}")


LATER = {"layers": {"w_kurtosis", "ww_num_fingers", "d_num_traps"}, "failures": {"http_status"}}


def without_later_columns(path):
    table = pq.read_table(path)
    pq.write_table(
        table.drop_columns([name for name in table.column_names if name in LATER[path.parent.name]]), path
    )


def test_a_lake_from_before_some_columns_answers_with_null(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    for path in [path for table in LATER for path in lake.glob(f"{table}/*.parquet")]:
        without_later_columns(path)
    with connect(lake) as older, connect(zoo_scan.lake) as newer:
        assert counts(older) == counts(newer)
    for table, later in LATER.items():
        found = ask(lake, f"FROM {table}")
        assert {field.name: field.type for field in found.schema} == {f.name: f.type for f in SCHEMAS[table]}
        assert all(found[name].null_count == found.num_rows for name in later)


def test_parts_of_today_may_join_a_lake_from_before_some_columns(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    without_later_columns(lake / "layers" / "_empty.parquet")
    count = "SELECT count(w_kurtosis) AS n FROM layers"
    assert rows(lake, count) == rows(zoo_scan.lake, count)


def test_a_lake_can_be_moved_and_its_folder_may_hold_a_quote(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "it's mine")
    assert run_cli("leaderboard", "--lake", lake).out == run_cli("leaderboard", "--lake", zoo_scan.lake).out
