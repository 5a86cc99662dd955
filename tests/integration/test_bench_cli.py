"""`hubspectra bench`: its list, a real case, what it writes."""

import json
import os

import pytest
from running import run_cli

from jobs.bench.children import Child
from jobs.bench.lake import ROWS, grown, name_of
from jobs.bench.registry import CASES
from jobs.bench.result import NotRunError
from jobs.lake.leaderboard import ask


def test_the_list_names_every_case():
    done = run_cli("bench", "--list", "--format", "json")
    assert [row["case"] for row in json.loads(done.text)] == list(CASES)


def test_a_case_writes_table_json_and_page(tmp_path):
    json_file, page = tmp_path / "docs" / "b.json", tmp_path / "docs" / "b.md"
    done = run_cli(
        "bench", "startup", "--pairs", "2", "--format", "csv", "--json", str(json_file), "--page", str(page)
    )
    assert done.code == 0, done.err
    written = json.loads(json_file.read_text())
    (row,) = written["results"]
    assert (row["case"], row["pairs"], row["target"]) == ("startup", 2, "<= 0.4")
    assert row["low"] <= row["value"] <= row["high"]
    assert written["machine"]["threads"] == 1
    assert "## startup" in page.read_text()
    assert done.text.startswith("case,name,verdict")
    assert "hubspectra --help" in done.err


def test_a_page_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").touch()
    page = tmp_path / "file" / "b.md"
    done = run_cli("bench", "resnet", "--quick", "--models", str(tmp_path), "--page", str(page))
    assert done.code == 1
    assert f"cannot write {page}" in done.err


def test_an_unknown_case_is_named_with_the_known_ones():
    done = run_cli("bench", "nonsense")
    assert done.code == 1
    assert "no case nonsense" in done.err
    assert "tail-fit" in done.err


def test_models_that_are_not_there_are_a_reason_not_an_error(tmp_path):
    done = run_cli("bench", "resnet", "--quick", "--models", str(tmp_path), "--format", "json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.text)
    assert row["verdict"] == "not run"
    assert "pip install" in row["note"] or "--models" in row["note"]


def test_a_child_has_its_own_number_of_threads():
    name = "OMP_NUM_THREADS"
    with Child(threads=2) as two, Child(threads=1) as one:
        assert (two.call(os.getenv, name), one.call(os.getenv, name)) == ("2", "1")


def test_a_child_that_dies_says_so():
    with Child() as child, pytest.raises(NotRunError, match="died"):
        child.call(os._exit, 1)


def test_a_grown_lake_answers_like_a_scanned_one(tmp_path):
    lake = grown(tmp_path, 3 * ROWS)
    counted = ask(
        lake, "SELECT repo_id, count(*) AS n FROM layers GROUP BY repo_id ORDER BY repo_id"
    ).to_pylist()
    assert counted == [{"repo_id": name, "n": ROWS} for name in ("bench/base", *map(name_of, range(3)))]
    alphas = ask(lake, "SELECT count(DISTINCT alpha) AS n FROM layers WHERE alpha IS NOT NULL").to_pylist()
    assert alphas[0]["n"] > ROWS
    assert ask(lake, "SELECT count(*) AS n FROM models").to_pylist() == [{"n": 4}]
