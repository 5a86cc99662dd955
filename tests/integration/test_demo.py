"""The demo as a newcomer runs it: fresh, then again."""

from pathlib import Path

import pytest
from running import Ran, finish, rows, start_cli

from jobs.verbs.demo import BASE, COLLAPSED

ORIGINAL, COLLAPSE, UNTRAINED = BASE, f"{BASE}-finetune-collapsed", f"{BASE}-untrained"


@pytest.fixture(scope="module")
def folder(minilm_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder: Path) -> Ran:
    return finish(start_cli("demo", "--folder", folder))


def test_everything_is_read_and_adds_up(first: Ran, folder: Path) -> None:
    assert first.code == 0, first.err
    assert "matrices planned 520 = 195 layers + 325 skipped + 0 failed" in first.err
    query = "SELECT count(*) AS n, count(*) FILTER (status = 'ok') AS ok FROM layers"
    assert rows(folder / "lake", query) == [{"n": 520, "ok": 195}]


def test_it_is_scanned_by_ray_over_http(first: Ran, folder: Path) -> None:
    assert "engine ray" in first.err
    [row] = rows(folder / "lake", "SELECT DISTINCT source FROM repositories")
    assert row["source"].startswith("http://127.0.0.1:")


def test_the_untrained_and_the_collapsed_model_are_shown_as_such(first: Ran, folder: Path) -> None:
    found = rows(
        folder / "lake",
        "SELECT repo_id, flag, tensor FROM flags WHERE flag IN ('untrained_like', 'scale_outlier') ORDER BY 1",
    )
    assert found == [
        {"repo_id": COLLAPSE, "flag": "scale_outlier", "tensor": COLLAPSED},
        {"repo_id": UNTRAINED, "flag": "untrained_like", "tensor": None},
    ]
    shown = " ".join(first.text.split())
    assert "looks untrained" in shown
    assert "10^5.8 below the median of its 6 siblings" in shown


def test_five_models_make_a_ranked_stratum(first: Ran, folder: Path) -> None:
    ranked = rows(folder / "lake", "SELECT stratum_rank, repo_id FROM leaderboard ORDER BY 1")
    assert [row["stratum_rank"] for row in ranked] == [1, 2, 3, 4, 5]
    assert ranked[-1]["repo_id"] == UNTRAINED


def test_a_narrower_storage_type_hardly_moves_alpha(first: Ran, folder: Path) -> None:
    alphas = rows(
        folder / "lake",
        "SELECT dtype_main, alpha_mean FROM models WHERE NOT contains(repo_id, '-un') ORDER BY 1",
    )
    assert {row["dtype_main"] for row in alphas} == {"BF16", "F16", "F32"}
    spread = max(r["alpha_mean"] for r in alphas) - min(r["alpha_mean"] for r in alphas)
    assert spread < 0.01


def test_a_second_run_finds_everything_done(first: Ran, folder: Path) -> None:
    again = finish(start_cli("demo", "--folder", folder))
    assert again.code == 0, again.err
    assert "(5 already in the lake, 0 with failures)" in again.err
    assert "0.0 MB read" in again.err


def test_a_missing_model_says_what_to_install(tmp_path: Path) -> None:
    wrong = tmp_path / "empty"
    wrong.mkdir()
    ran = finish(start_cli("demo", "--model", wrong, "--folder", tmp_path / "demo"))
    assert ran.code == 1
    assert "model.safetensors" in ran.err
