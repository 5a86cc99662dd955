"""The whole line held to golden numbers: weights on disk -> scan -> lake -> SQL."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens import file_sha256, load
from safetensors.numpy import save_file
from synthetic import tensors

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.lake.leaderboard import ask
from scanner.sources.targets import parse_targets
from schemas.config import profile_config

RELATIVE = 1e-9
CLOSE = (
    "alpha xmin xmax D sigma log_norm norm log_spectral_norm spectral_norm stable_rank alpha_weighted "
    "entropy sv_max"
).split()
EXACT = "rf num_evals num_pl_spikes rank_loss weak_rank_loss matrix_rank warning status".split()


def scanned(lake: Path, profile: str, *targets: Path) -> Path:
    request = Request(
        targets=parse_targets([str(target) for target in targets]),
        lake=lake,
        config=profile_config(profile),
        engine="local",
    )
    with quiet_progress() as display:
        run_scan(request, display)
    return lake


def view(lake: Path) -> dict[str, dict[str, Any]]:
    rows = ask(lake, "SELECT * FROM weightwatcher").to_pylist()
    return {row["longname"].removesuffix(".weight"): row for row in rows}


def same(ours: float | None, theirs: float | None) -> bool:
    return ours == (theirs if theirs is None else pytest.approx(theirs, rel=RELATIVE))


def differences(golden_name: str, lake: Path) -> list[str]:
    golden, ours = load(golden_name), view(lake)
    assert ours.keys() == golden.layers.keys()
    found = []
    for name, theirs in golden.layers.items():
        for column in CLOSE:
            if not same(ours[name][column], theirs[column]):
                found.append(f"{name} {column}: expected {theirs[column]!r}, got {ours[name][column]!r}")
        for column in EXACT:
            if ours[name][column] != theirs[column]:
                found.append(f"{name} {column}: expected {theirs[column]!r}, got {ours[name][column]!r}")
    return found


def test_synthetic_layers_of_every_rule(tmp_path: Path) -> None:
    (tmp_path / "ww" / "synthetic").mkdir(parents=True)
    save_file(tensors(), tmp_path / "ww" / "synthetic" / "model.safetensors")
    lake = scanned(tmp_path / "lake", "weightwatcher", tmp_path / "ww" / "synthetic")
    assert differences("weightwatcher_synthetic", lake) == []


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets(models: Path, tmp_path: Path, depth: int) -> None:
    folder = models / "akamaster" / f"resnet{depth}-cifar10"
    assert file_sha256(folder / "model.safetensors") == load(f"weightwatcher_resnet{depth}").sha256
    lake = scanned(tmp_path / "lake", "weightwatcher", folder)
    assert differences(f"weightwatcher_resnet{depth}", lake) == []


def test_minilm_and_its_published_summary(minilm_file: Path, tmp_path: Path) -> None:
    lake = scanned(tmp_path / "lake", "weightwatcher", minilm_file)
    assert differences("weightwatcher_minilm", lake) == []
    columns = "alpha alpha_weighted log_norm log_spectral_norm stable_rank".split()
    expected = [4.1171, 5.0648, 2.9307, 1.3941, 38.0629]
    query = f"SELECT {', '.join(f'avg({c})' for c in columns)} FROM weightwatcher"
    [means] = ask(lake, query).to_pylist()
    assert list(means.values()) == pytest.approx(expected, abs=5e-5)


def test_minilm_aggregates_of_the_default_estimator(minilm_file: Path, tmp_path: Path) -> None:
    lake = scanned(tmp_path / "lake", "default", minilm_file)
    [model] = ask(lake, "SELECT * FROM models").to_pylist(maps_as_pydicts="strict")
    expected = {
        "alpha_mean": 3.9568,
        "alpha_mean_star": 3.7235,
        "alpha_mean_all": 3.9064,
        "alpha_mean_numel": 3.7188,
        "alpha_median": 3.3904,
        "alpha_hill_mean": 2.0100,
        "alpha_trunc_mean": 3.1842,
        "alpha_weighted_mean": 4.6245,
        "alpha_weighted_mean_star": 5.0645,
        "alpha_weighted_sum": 171.107,
        "frac_2_4": 0.649,
        "frac_15_5": 0.838,
        "depth_slope": 1.05,
        "depth_rho": 0.43,
        "depth_roughness": 0.54,
    }
    tolerance = {"depth_slope": 5e-3, "depth_rho": 5e-3, "depth_roughness": 5e-3}
    for column, value in expected.items():
        assert model[column] == pytest.approx(value, abs=tolerance.get(column, 1e-3)), column
    assert (model["num_counted"], model["num_fit_unreliable"], model["num_ok"]) == (37, 12, 39)
    shares = {phase: round(share * 39) for phase, share in model["phase_shares"].items()}
    assert shares == {"HEAVY-TAILED": 25, "BULK-DECAY": 13, "RANDOM-LIKE": 1}


@pytest.fixture(scope="module")
def sample_lake(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = [
        models / owner for owner in ("akamaster", "antonioverdi", "derived", "KwangHoonAn", "DanSun18")
    ]
    return scanned(tmp_path_factory.mktemp("samples") / "lake", "default", *folders)


def flagged(lake: Path, flag: str) -> list[tuple[str, str | None]]:
    rows = ask(lake, "SELECT repo_id, tensor FROM flags WHERE flag = ? ORDER BY ALL", [flag]).to_pylist()
    return [(row["repo_id"], row["tensor"]) for row in rows]


def test_only_untrained_models_look_untrained(sample_lake: Path) -> None:
    assert flagged(sample_lake, "untrained_like") == [
        ("KwangHoonAn/resnet20-cifar10-pact-poor", None),
        ("derived/resnet56-random-init", None),
    ]


def test_collapsed_layers_and_no_others_are_scale_outliers(sample_lake: Path) -> None:
    lrr, dense = "antonioverdi/resnet56-cifar10-lrr010", "antonioverdi/resnet56-cifar10-dense"
    assert flagged(sample_lake, "scale_outlier") == [
        (dense, "layer1.3.conv1.weight"),
        (dense, "layer1.3.conv2.weight"),
        (lrr, "layer1.2.conv1.weight"),
        (lrr, "layer1.2.conv2.weight"),
        (lrr, "layer1.3.conv1.weight"),
        (lrr, "layer1.3.conv2.weight"),
        ("derived/resnet56-fault-scale-collapse", "layer3.4.conv1.weight"),
    ]


def test_damaged_tensors_cost_their_own_rows(sample_lake: Path) -> None:
    query = (
        "SELECT num_failed, num_ok, num_matrices = num_ok + num_skipped + num_failed AS adds_up FROM models "
        "WHERE repo_id = 'derived/resnet56-fault-nan-inf'"
    )
    assert ask(sample_lake, query).to_pylist() == [{"num_failed": 2, "num_ok": 53, "adds_up": True}]
    assert len(flagged(sample_lake, "nonfinite")) == 2


def test_zero_rank_is_named(sample_lake: Path) -> None:
    query = "SELECT tensor, rank0_frac FROM layers WHERE repo_id = ? AND phase = 'RANK-COLLAPSE'"
    rows = ask(sample_lake, query, ["derived/resnet56-fault-rank1"]).to_pylist()
    assert max(row["rank0_frac"] for row in rows) > np.float64(0.9)


def test_a_fine_tuned_head_settles_step_by_step(models: Path, tmp_path: Path) -> None:
    folders = [models / "subro608" / f"roberta-lora-step{step}" for step in (500, 1000, 1500, 2000, 2400)]
    lake = scanned(tmp_path / "lake", "weightwatcher", *folders)
    query = """SELECT alpha FROM weightwatcher WHERE contains(longname, 'classifier.dense')
        ORDER BY regexp_extract(repo_id, '[0-9]+$')::INT"""
    alphas = [row["alpha"] for row in ask(lake, query).to_pylist()]
    assert alphas == pytest.approx([3.77, 3.60, 3.49, 3.48, 3.48], abs=0.01)
