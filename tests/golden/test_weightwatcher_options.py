"""The options of WeightWatcher 0.7.7 against WeightWatcher itself, from weights on disk to the SQL view."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens import Golden, load, tensors_sha256
from safetensors.numpy import save_file
from synthetic import tensors

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.lake.leaderboard import ask
from scanner.sources.targets import parse_targets
from scanner.spectra.eigen import DenseWeights
from scanner.spectra.vectors import vector_entropies
from schemas.config import ScanConfig, Stages, WeightWatcherRules, profile_config

PROFILE = profile_config("weightwatcher")
OWN_RULES = {"sv_min", "name", "slice_id", "N", "M", "Q"}


def rows_of(lake: Path, config: ScanConfig, *targets: Path) -> dict[str, dict[str, Any]]:
    request = Request(
        targets=parse_targets([str(target) for target in targets]), lake=lake, config=config, engine="local"
    )
    with quiet_progress() as display:
        run_scan(request, display)
    rows = ask(lake, "SELECT * FROM weightwatcher").to_pylist()
    sliced = config.matrices.conv_mode == "slice"
    return {
        row["longname"].removesuffix(".weight") + (f":{row['slice_id'] or 0}" if sliced else ""): row
        for row in rows
    }


def differences(golden: Golden, ours: dict[str, dict[str, Any]]) -> list[str]:
    assert ours.keys() == golden.layers.keys()
    found = []
    for name, theirs in golden.layers.items():
        for column in theirs.keys() - OWN_RULES & ours[name].keys():
            expected, got = theirs[column], ours[name][column]
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-9)
            if got != expected:
                found.append(f"{name} {column}: expected {expected!r}, got {got!r}")
    return found


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ww") / "ww" / "synthetic"
    folder.mkdir(parents=True)
    assert tensors_sha256(tensors()) == load("weightwatcher_synthetic_clip").sha256
    save_file(tensors(), folder / "model.safetensors")
    return folder


def clipped() -> ScanConfig:
    return replace(PROFILE, weightwatcher=WeightWatcherRules(fix_fingers="clip_xmax"))


def test_clip_xmax(synthetic: Path, tmp_path: Path) -> None:
    ours = rows_of(tmp_path / "lake", clipped(), synthetic)
    assert differences(load("weightwatcher_synthetic_clip"), ours) == []
    assert {row["num_fingers"] for row in ours.values()} == {0, 1}


def test_clip_xmax_of_minilm(minilm_file: Path, tmp_path: Path) -> None:
    ours = rows_of(tmp_path / "lake", clipped(), minilm_file)
    assert differences(load("weightwatcher_minilm_clip"), ours) == []
    assert sum(row["num_fingers"] > 0 for row in ours.values()) > 3


def test_without_clipping_there_are_no_fingers(synthetic: Path, tmp_path: Path) -> None:
    ours = rows_of(tmp_path / "lake", PROFILE, synthetic)
    assert {(row["num_fingers"], row["raw_alpha"]) for row in ours.values()} == {(None, None)}


def test_xmin_peak_has_numbers_where_weightwatcher_fails(synthetic: Path, tmp_path: Path) -> None:
    assert {row["status"] for row in load("weightwatcher_synthetic_peak").layers.values()} == {"failed"}
    config = replace(
        PROFILE,
        weightwatcher=WeightWatcherRules(fix_fingers="xmin_peak"),
        stages=Stages(estimators=True),
    )
    ours = rows_of(tmp_path / "lake", config, synthetic)
    query = (
        "SELECT tensor, alpha_peak_compat FROM layers WHERE alpha_peak_compat IS NOT NULL AND len(shape) = 2"
    )
    published = {row["tensor"]: row["alpha_peak_compat"] for row in ask(tmp_path / "lake", query).to_pylist()}
    assert {"dense_tall.weight", "dense_square.weight", "dense_thin.weight"} <= published.keys()
    for tensor in ("dense_tall", "dense_square", "dense_thin"):
        assert ours[tensor]["alpha"] == pytest.approx(published[f"{tensor}.weight"], rel=1e-12)
        assert ours[tensor]["status"] == "success"


def test_slices(synthetic: Path, tmp_path: Path) -> None:
    config = replace(PROFILE, matrices=replace(PROFILE.matrices, conv_mode="slice"))
    ours = rows_of(tmp_path / "lake", config, synthetic)
    assert differences(load("weightwatcher_synthetic_slice"), ours) == []


def test_detx(synthetic: Path, tmp_path: Path) -> None:
    golden = load("weightwatcher_synthetic_detx")
    assert differences(golden, rows_of(tmp_path / "lake", PROFILE, synthetic)) == []


def test_what_weightwatcher_draws_or_searches_is_ours_under_its_names(
    synthetic: Path, tmp_path: Path
) -> None:
    config = replace(PROFILE, stages=Stages(null_model=True, vectors=True))
    pointwise = tmp_path / "ww" / "pointwise"
    pointwise.mkdir(parents=True)
    entries = np.random.default_rng(0).standard_normal((80, 64, 1, 1)).astype(np.float32)
    save_file({"pointwise.weight": 0.1 * entries}, pointwise / "model.safetensors")
    ours = rows_of(tmp_path / "lake", config, synthetic, pointwise)
    stored = ask(tmp_path / "lake", "SELECT * FROM layers WHERE ww_status IS NOT NULL").to_pylist()
    with_null = [row for row in stored if row["null_status"] == "ok" and row["bulk_status"] == "ok"]
    assert {"pointwise.weight", "conv_3x3_wide.weight", "dense_tall.weight"} <= {
        row["tensor"] for row in with_null
    }
    for row in with_null:
        view = ours[row["tensor"].removesuffix(".weight")]
        scale = 0.5 if len(row["shape"]) == 4 else 1.0
        mean = row["N"] if scale < 1 else row["norm"] / row["num_evals"]
        expected = {
            "num_spikes": row["num_spikes"],
            "mp_softrank": row["mp_softrank"],
            "sigma_mp": row["sigma2_mp"] ** 0.5,
            "bulk_max": row["lambda_plus"] / mean,
            "max_rand_eval": row["rand_lambda_max"] * scale,
            "ww_softrank": row["rand_softrank"],
            "ww_maxdist": (row["lambda_max"] - row["rand_lambda_max"]) * scale,
            "rand_distance": row["rand_distance_ww"],
            "num_traps": row["num_traps"],
            "tail_mean_vec_entropy": row["vec_entropy_tail"],
            "bulk_mean_vec_entropy": row["vec_entropy_bulk"],
        }
        assert {name: view[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_weightwatchers_fft_is_of_real_parts_and_of_each_channel_pair() -> None:
    """Why conv_mode fft does not repeat its numbers: they are not singular values of the convolution.

    It transforms in float32, hence the tolerance.
    """
    golden, state = load("weightwatcher_synthetic_fft"), tensors()
    for name in ("conv_3x3_stem", "conv_2x2_wide", "conv_3x3_wide", "conv_depthwise"):
        kernel = state[f"{name}.weight"].astype(np.float64)
        grids = np.fft.fft2(kernel, (32, 32)).real * np.sqrt(0.5)
        kept = min(kernel.shape[2:]) * kernel.shape[0] * kernel.shape[1]
        sigma = np.sort(np.linalg.svd(grids, compute_uv=False), axis=None)[-kept:]
        theirs = golden.layers[name]
        assert (len(sigma), sigma[-1]) == (theirs["num_evals"], pytest.approx(theirs["sv_max"], rel=1e-6))
        assert (sigma**2).sum() == pytest.approx(theirs["norm"], rel=1e-6)
        assert theirs["norm"] < 0.75 * 1024 * (kernel**2).sum() / 2


def test_vector_entropies() -> None:
    """WeightWatcher rounds the eigenvalue at xmin to either side, and takes a square's left vectors."""
    golden, state = load("weightwatcher_synthetic_vectors"), tensors()
    compared = 0
    for name, theirs in golden.layers.items():
        weight = state[f"{name}.weight"].astype(np.float64)
        if weight.ndim != 2 or theirs["bulk_mean_vec_entropy"] is None or "few_evals" in name:
            continue
        expected = pytest.approx((theirs["tail_mean_vec_entropy"], theirs["bulk_mean_vec_entropy"]), abs=1e-6)
        taken = DenseWeights(weight.T if weight.shape[0] == weight.shape[1] else weight)
        sides = [vector_entropies(taken, theirs["xmin"] * side) for side in (1.0, 1.0 + 1e-6)]
        assert expected in [(fit.vec_entropy_tail, fit.vec_entropy_bulk) for fit in sides], name
        compared += 1
    assert compared > 5
