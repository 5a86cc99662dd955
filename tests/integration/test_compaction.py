"""A lake before, during and after a compaction holds the same rows, each once, whoever asks and whoever is killed."""

import json
import os
import shutil
import signal
from dataclasses import replace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from biglake import ROWS, reference, write_parts
from running import differences, ended, finish, rows, run_cli, start_cli, start_python
from zoo import save_model

from jobs.lake import decoding, merging, snapshot
from jobs.lake.compaction import LOOSE_PARTS, compact, is_due
from jobs.lake.files import write_part
from jobs.lake.generations import TABLES, folder, merged, read_marker, shared_part, sweep
from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS, ask, connect, save_snapshot, view_sql
from jobs.lake.store import Store
from schemas.config import ScanConfig
from schemas.errors import LakeError
from schemas.tables import SCHEMAS

MODELS = 12


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A lake of small parts, of which a few are half done."""
    lake = tmp_path_factory.mktemp("parts") / "lake"
    write_parts(lake, range(MODELS))
    return lake


@pytest.fixture
def lake(parts, tmp_path):
    return shutil.copytree(parts, tmp_path / "lake")


def compacted(lake):
    ran = run_cli("compact", "--lake", lake, "--format", "json")
    assert ran.code == 0, ran.err
    return {row["table"]: row for row in json.loads(ran.text)}


def contents(lake, *views):
    """Every view as a list of JSON lines, which are equal where and only where the rows are."""
    with connect(lake) as connection:
        return {
            view: sorted(connection.sql(f"SELECT to_json(v)::VARCHAR FROM {view} AS v").fetchall())
            for view in views or (*TABLE_VIEWS, *SQL_VIEWS)
        }


def places_of(folder):
    """Whether measured, repository and number of every row of merged files, each file in its order."""
    columns = ["status", "repo_id", "matrix_index"]
    files = [pq.read_table(path, columns=columns).to_pydict().values() for path in merged(folder)]
    return [[(status == "ok", *place) for status, *place in zip(*file, strict=True)] for file in files]


def assert_ordered(folder, models):
    """Every row is in one file, measured rows apart from the others, each file sorted by model."""
    files = places_of(folder)
    assert all(file == sorted(file) and len({measured for measured, *_ in file}) == 1 for file in files)
    assert len({place for file in files for place in file}) == sum(map(len, files)) == models * ROWS


def generation(lake):
    return read_marker(lake)[1]


# The same rows


def test_every_view_answers_as_before(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    before = contents(lake)
    assert all(before[view] for view in ("layers", "repositories", "failures", "runs", "models", "flags"))
    table = compacted(lake)
    assert contents(lake) == before
    assert differences(lake, zoo_scan.lake) == []
    assert {name: row["parts"] for name, row in table.items()} == dict.fromkeys(TABLES, 0)
    assert {name: row["merged_files"] for name, row in table.items()} == dict.fromkeys(TABLES, 1) | {
        "layers": 2
    }


def test_types_stay_those_that_are_declared(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    before = {view: ask(lake, f"FROM {view}").schema for view in TABLE_VIEWS}
    compacted(lake)
    assert {view: ask(lake, f"FROM {view}").schema for view in TABLE_VIEWS} == before


def test_a_second_compaction_joins_old_files_and_new_parts_in_one_order(lake):
    compacted(lake)
    write_parts(lake, range(MODELS, 2 * MODELS))
    before = contents(lake, "layers", "repositories", "models")
    assert compacted(lake)["layers"]["merged_files"] == 2
    assert contents(lake, "layers", "repositories", "models") == before
    assert_ordered(lake / f"layers/{generation(lake):06}", 2 * MODELS)


def test_chunks_that_end_anywhere_in_a_file_lose_no_row(lake, monkeypatch):
    compacted(lake)
    write_parts(lake, range(MODELS, 2 * MODELS))
    before = contents(lake, "layers")
    monkeypatch.setattr(merging, "CHUNK", ROWS * 3 // 2)
    monkeypatch.setattr(decoding, "_BATCH", ROWS * 3 // 4)
    with Store.writing(lake) as store:
        compact(store)
    assert contents(lake, "layers") == before
    assert len(merged(lake / "layers/000002")) == 4, "two for each lane"
    assert_ordered(lake / "layers/000002", 2 * MODELS)


def test_files_merged_by_an_older_version_are_halved(lake, monkeypatch):
    """It wrote a model's rows in one run, measured or not."""
    with monkeypatch.context() as older, Store.writing(lake) as store:
        older.setattr(merging, "halves", lambda table: (table, table.slice(0, 0)))
        compact(store)
    assert len({measured for measured, *_ in places_of(lake / "layers/000001")[0]}) == 2
    write_parts(lake, range(MODELS, 2 * MODELS))
    before = contents(lake, "layers")
    with Store.writing(lake) as store:
        compact(store)
    assert contents(lake, "layers") == before
    assert_ordered(lake / "layers/000002", 2 * MODELS)


def share_parts(lake, together):
    """The same rows, but in parts of several models that lie apart by name."""
    for table in ("layers", "repositories"):
        place = folder(lake, table, generation(lake))
        own = sorted(place.glob("owner*.parquet"))
        stride = len(own) // together
        for first in range(stride):
            rows = pa.concat_tables(map(pq.read_table, own[first::stride]), promote_options="default")
            write_part(rows, shared_part(place, "scan", first))
        for part in own:
            part.unlink()


@pytest.mark.parametrize(("groups", "models"), [(1, 1), (2, 1), (3, 5), (16, MODELS)])
def test_models_of_shared_parts_come_in_one_order_with_all_their_values(lake, monkeypatch, groups, models):
    """Whatever pieces and chunks they are held and written in, and beside files that were merged before."""
    compacted(lake)
    write_parts(lake, range(MODELS, 2 * MODELS))
    share_parts(lake, 3)
    before = contents(lake, "layers", "repositories")
    monkeypatch.setattr(merging, "_GROUPS", groups)
    monkeypatch.setattr(merging, "CHUNK", ROWS * models)
    with Store.writing(lake) as store:
        compact(store)
    assert contents(lake, "layers", "repositories") == before
    assert_ordered(lake / "layers/000002", 2 * MODELS)


def test_a_large_file_is_not_written_again_for_few_rows(lake):
    compacted(lake)
    old = merged(lake / "layers/000001")
    write_parts(lake, range(MODELS, MODELS + 2))
    before = contents(lake, "layers")
    assert compacted(lake)["layers"]["merged_files"] == 4
    carried = merged(lake / "layers/000002")[:2]
    assert [path.read_bytes() for path in carried] == [path.read_bytes() for path in old]
    assert contents(lake, "layers") == before


def test_nothing_to_merge_changes_nothing(lake):
    compacted(lake)
    compacted(lake)
    assert generation(lake) == 1


def test_a_dry_run_tells_and_leaves_all_alone(lake):
    before = sorted(path.relative_to(lake) for path in lake.rglob("*"))
    ran = run_cli("compact", "--lake", lake, "--dry-run", "--format", "json")
    assert (ran.code, generation(lake)) == (0, 0)
    assert {row["table"]: row["parts"] for row in json.loads(ran.text)}["layers"] == MODELS
    assert f"{2 * MODELS} parts to merge; nothing was changed" in ran.err
    assert sorted(path.relative_to(lake) for path in lake.rglob("*")) == before


def test_parts_of_an_older_version_get_the_columns_they_lack(lake):
    for part in list((lake / "repositories").glob("owner*.parquet"))[::2]:
        whole = pq.read_table(part, schema=SCHEMAS["repositories"])
        pq.write_table(whole.drop_columns("scores"), part)
    before = contents(lake, "repositories")
    compacted(lake)
    assert contents(lake, "repositories") == before


def test_columns_of_a_newer_version_are_kept(lake):
    for part in list((lake / "layers").glob("owner*.parquet"))[::2]:
        table = pq.read_table(part)
        pq.write_table(table.append_column("of_tomorrow", table.column("alpha")), part)
    before = rows(lake, "SELECT count(of_tomorrow) AS n, sum(of_tomorrow) AS s FROM layers")
    compacted(lake)
    (after,) = rows(lake, "SELECT count(of_tomorrow) AS n, sum(of_tomorrow) AS s FROM layers")
    assert after["n"] == before[0]["n"] > 0
    assert after["s"] == pytest.approx(before[0]["s"])


def test_a_column_of_few_models_is_in_the_files_that_hold_its_values(lake, monkeypatch):
    """Row groups of one model each: the columns of a file only grow, and all its rows have them."""
    monkeypatch.setattr(merging, "CHUNK", 1)
    monkeypatch.setattr(merging, "LANES", 1)
    parts = sorted((lake / "layers").glob("owner*.parquet"))
    for part, name in zip(parts[4:6], ("d_alpha", "rel_delta"), strict=True):
        table, field = pq.read_table(part), SCHEMAS["layers"].field(name)
        pq.write_table(table.append_column(field, table.column("alpha").cast(field.type)), part)
    before = contents(lake, "layers")
    with Store.writing(lake) as store:
        compact(store)
    files = [pq.read_table(path) for path in merged(lake / "layers/000001")]
    *measured, others = files
    assert contents(lake, "layers") == before
    assert len(set(others["repo_id"].to_pylist())) == MODELS
    assert [len(set(file["repo_id"].to_pylist())) for file in measured] == [4, 1, MODELS - 5]
    held = [{"d_alpha", "rel_delta"} & set(file.column_names) for file in measured]
    assert held == [set(), {"d_alpha"}, {"rel_delta"}]
    assert len(others.column_names) < len(measured[0].column_names) / 2


@pytest.mark.parametrize("empty", [1, MODELS])
def test_models_without_layers_are_merged_too(lake, empty):
    for part in sorted((lake / "layers").glob("owner*.parquet"))[:empty]:
        pq.write_table(SCHEMAS["layers"].empty_table(), part)
    before = contents(lake, "layers", "repositories")
    with Store.writing(lake) as store:
        compact(store)
    assert contents(lake, "layers", "repositories") == before
    assert len(merged(lake / "layers/000001")) == 2 * (empty < MODELS)


def test_a_damaged_part_is_named_and_the_lake_stays_as_it_was(lake):
    part = next((lake / "layers").glob("owner*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    ran = run_cli("compact", "--lake", lake)
    assert (ran.code, generation(lake)) == (1, 0)
    assert part.name in ran.err


def test_a_damaged_shared_part_is_named_too(lake):
    share_parts(lake, 3)
    part = next((lake / "layers").glob("*.shared.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    with Store.writing(lake) as store, pytest.raises(LakeError, match=part.name):
        compact(store)
    assert generation(lake) == 0


def test_no_lake_is_made(tmp_path):
    ran = run_cli("compact", "--lake", tmp_path / "none")
    assert ran.code == 1
    assert not (tmp_path / "none").exists()


# Scans of a compacted lake


def test_scan_compact_scan_again_retry_and_compact(tmp_path):
    """Nothing is read twice, and what failed gives way to what did not."""
    for seed, name in enumerate(("one", "two", "three")):
        save_model(tmp_path / "models/acme" / name, seed)
    broken = tmp_path / "models/acme/two/model.safetensors"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    lake, other = tmp_path / "lake", tmp_path / "other"
    assert run_cli("scan", tmp_path / "models", "--lake", lake).code == 3
    before = contents(lake, "failures", "models")
    assert before["failures"]
    compacted(lake)
    assert contents(lake, "failures", "models") == before
    again = run_cli("scan", tmp_path / "models", "--lake", lake)
    assert "3 already in the lake" in again.err
    assert "0.0 MB read" in again.err
    broken.write_bytes(whole)
    assert "2 already in the lake" in run_cli("scan", tmp_path / "models", "--lake", lake).err
    compacted(lake)
    assert run_cli("scan", tmp_path / "models", "--lake", other).code == 0
    assert rows(lake, "SELECT DISTINCT repo_id FROM models WHERE status = 'ok' ORDER BY ALL") == [
        {"repo_id": f"acme/{name}"} for name in ("one", "three", "two")
    ]
    assert len(rows(lake, "FROM runs")) == 3


def test_a_failure_met_again_after_compactions_is_one_row(tmp_path):
    lake, missing = tmp_path / "lake", tmp_path / "gone/acme/one"
    save_model(tmp_path / "models/acme/one", 1)
    missing.mkdir(parents=True)
    (missing / "config.json").write_text("{}")
    for attempt in (1, 2, 3):
        assert run_cli("scan", missing, tmp_path / "models/acme/one", "--lake", lake).code == 3
        compacted(lake)
        found = rows(lake, "SELECT count(*) AS n, max(attempt) AS attempt FROM failures WHERE NOT resolved")
        assert found[0]["n"] == 1, attempt


def test_what_may_be_tried_again_is_carried_over_and_replaced(tmp_path):
    """Parts that the next scan completes are not merged; a compaction after it merges what replaced them."""
    save_model(tmp_path / "models/acme/good", 1)
    save_model(tmp_path / "models/acme/torn", 2)
    lake = tmp_path / "lake"
    for name in ("good", "torn"):
        assert run_cli("scan", tmp_path / "models/acme" / name, "--lake", lake).code == 0
    torn = next((lake / "repositories").glob("acme--torn*.parquet"))
    torn.rename(torn.with_suffix(".retry.parquet"))
    before = contents(lake)
    table = compacted(lake)
    assert (table["layers"]["kept"], table["repositories"]["kept"]) == (1, 1)
    assert contents(lake) == before
    assert "1 already in the lake" in run_cli("scan", tmp_path / "models", "--lake", lake).err
    assert compacted(lake)["layers"] == table["layers"] | {"kept": 0, "mbytes": pytest.approx(0.1, abs=0.1)}
    assert rows(lake, "SELECT count(*) AS n, count(DISTINCT (repo_id, tensor)) AS k FROM layers") == [
        {"n": 6, "k": 6}
    ]


def test_a_scan_compacts_a_lake_of_many_parts_unless_told_not_to(tmp_path):
    save_model(tmp_path / "models/acme/one", 1)
    lake, scan = tmp_path / "lake", ("scan", tmp_path / "models", "--lake", tmp_path / "lake")
    assert run_cli(*scan).code == 0
    with Store.writing(lake) as store:
        (run,) = store._read("runs", next((lake / "runs").glob("[!_]*.parquet")))
        for number in range(LOOSE_PARTS):
            store.save_run(replace(run, scan_id=f"19700101-{number:04}"))
        assert is_due(store)
    assert run_cli(*scan, "--no-compact").code == 0
    assert generation(lake) == 0
    assert run_cli(*scan).code == 0
    assert generation(lake) == 1
    assert rows(lake, "SELECT count(*) AS n FROM runs") == [{"n": LOOSE_PARTS + 3}]
    assert snapshot.is_current(lake)


# The snapshot of the models


def test_the_snapshot_answers_for_the_view_while_it_is_current_and_only_then(zoo_scan, tmp_path):
    lake = shutil.copytree(zoo_scan.lake, tmp_path / "lake")
    assert snapshot.is_current(lake)
    place = snapshot.place(lake)
    true = contents(lake, "models", "leaderboard")
    marked = pq.read_table(place)
    marked = marked.set_column(0, marked.schema.field(0), [["from the snapshot"] * marked.num_rows])
    pq.write_table(marked, place)
    seen = "SELECT DISTINCT scan_id = 'from the snapshot' AS stored FROM models"
    assert rows(lake, seen) == [{"stored": True}]
    with duckdb.connect() as other:
        other.execute(view_sql(lake))
        assert other.sql(seen).fetchall() == [(False,)]
    os.utime(next((lake / "layers").glob("[!_]*.parquet")))
    assert rows(lake, seen) == [{"stored": False}]
    assert contents(lake, "models", "leaderboard") == true


@pytest.mark.parametrize("change", ["commit", "removal", "edit", "compaction", "unstamped", "gone"])
def test_a_stale_snapshot_is_never_shown(lake, change):
    with Store.writing(lake) as store:
        save_snapshot(store)
    assert snapshot.is_current(lake)
    key, place = reference(0).part_key(ScanConfig().fingerprint()), snapshot.place(lake)
    match change:
        case "commit":
            write_parts(lake, range(MODELS, MODELS + 1))
        case "removal":
            (lake / f"repositories/{key}.parquet").unlink()
        case "edit":
            part = lake / f"layers/{key}.parquet"
            pq.write_table(pq.read_table(part).slice(1), part)
        case "compaction":
            with Store.writing(lake) as store:
                compact(store)
        case "unstamped":
            pq.write_table(pq.read_table(place).slice(1).replace_schema_metadata(None), place)
        case "gone":
            place.unlink()
    assert not snapshot.is_current(lake)
    with duckdb.connect() as other:
        other.execute(view_sql(lake))
        expected = other.sql("SELECT repo_id, num_ok FROM models ORDER BY ALL").fetchall()
    found = rows(lake, "SELECT repo_id, num_ok FROM models ORDER BY ALL")
    assert [tuple(row.values()) for row in found] == expected


@pytest.mark.parametrize(
    ("large", "at_rest", "question", "renewed"),
    [
        (0, 0.0, "SELECT count(*) AS n FROM leaderboard", True),
        (0, 0.0, "SELECT count(*) AS n FROM layers", False),
        (0, 0.0, "SHOW TABLES", False),
        (0, 600.0, "SELECT count(*) AS n FROM models", False),
        (1_000_000_000, 0.0, "SELECT count(*) AS n FROM models", False),
    ],
)
def test_a_question_renews_the_snapshot_of_a_large_lake_at_rest(
    lake, monkeypatch, large, at_rest, question, renewed
):
    monkeypatch.setattr(snapshot, "LARGE", large)
    monkeypatch.setattr(snapshot, "AT_REST", at_rest)
    true = contents(lake, "models")
    assert not snapshot.is_current(lake)
    answer = rows(lake, question)
    assert (snapshot.is_current(lake), rows(lake, question)) == (renewed, answer)
    assert contents(lake, "models") == true
    assert list((lake / "models").glob("*.tmp")) == []


# Readers and kills

COUNT = "SELECT count(*) AS n, count(DISTINCT (repo_id, revision, matrix_index)) AS k FROM layers"


def test_a_reader_sees_each_row_once_while_compactions_run(lake):
    expected = [{"n": MODELS * ROWS, "k": MODELS * ROWS}]
    seen = set()
    with ended(start_cli("compact", "--lake", lake)) as process:
        while process.poll() is None:
            before = generation(lake)
            assert rows(lake, COUNT) == expected
            seen.add(before)
        assert finish(process).code == 0
    assert rows(lake, COUNT) == expected
    assert (0 in seen, generation(lake)) == (True, 1)


def test_a_reader_that_has_begun_goes_on_until_its_parts_are_swept(lake):
    connection = connect(lake)
    (before,) = connection.sql(COUNT).fetchall()
    compacted(lake)
    assert connection.sql(COUNT).fetchall() == [before]
    with Store.writing(lake) as store:
        assert sweep(lake, store.generation, grace=0.0) == 2 * MODELS
    with pytest.raises(duckdb.IOException, match="No files found"):
        connection.sql(COUNT).fetchall()
    assert rows(lake, COUNT) == [dict(zip(("n", "k"), before, strict=True))]


def test_a_folder_half_swept_is_an_error_and_not_a_part_of_the_rows(lake):
    printed = view_sql(lake)
    compacted(lake)
    (lake / "layers/_empty.parquet").unlink()
    with duckdb.connect() as other, pytest.raises(duckdb.IOException, match=r"_empty\.parquet"):
        other.execute(printed)


KILLED = """
import os, signal, sys
from pathlib import Path
from jobs.lake.compaction import compact
from jobs.lake.generations import sweep
from jobs.lake.leaderboard import save_snapshot
from jobs.lake.store import Store

left = int(sys.argv[2])

def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

with Store.writing(Path(sys.argv[1])) as store:
    sys.addaudithook(count)
    compact(store)
    save_snapshot(store)
    sweep(store.path, store.generation, grace=0.0)
sys.stderr.write(str(left))
"""
"""Dies at the given step of its work on the file system, told by Python's own audit events."""

PLENTY = 100_000


def test_a_kill_at_any_step_loses_nothing_and_the_next_compaction_succeeds(lake, tmp_path):
    expected = contents(lake, "layers", "repositories", "models")
    whole = shutil.copytree(lake, tmp_path / "whole")
    with ended(start_python(KILLED, whole, PLENTY)) as process:
        steps = PLENTY - int(finish(process).err.rsplit(maxsplit=1)[-1])
    assert steps > 20
    generations = set()
    for step in sorted({1 + i * (steps - 1) // 11 for i in range(12)}):
        each = shutil.copytree(lake, tmp_path / f"lake-{step}")
        with ended(start_python(KILLED, each, step)) as process:
            assert finish(process).code == -signal.SIGKILL, step
        assert contents(each, "layers", "repositories", "models") == expected, step
        generations.add(generation(each))
        compacted(each)
        assert contents(each, "layers", "repositories", "models") == expected, step
        assert {path.name for path in (each / "layers").iterdir() if path.name.isdigit()} == {"000001"}
    assert generations == {0, 1}
