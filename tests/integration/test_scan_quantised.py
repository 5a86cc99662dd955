"""Quantised models scanned: rows of the weights that the codes mean, beside the same weights stored plainly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from running import rows, run_cli
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = Path(__file__).parents[1] / "golden/quantised.safetensors"
EXACT = ("packed4_asymmetric", "fp8_channel", "mxfp4", "mxfp6", "nf4_nested", "int8_channel")


def save(folder, tensors, config, shards=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards is None:
        save_file(tensors, folder / "model.safetensors")
        return
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / shard)
    index = {name: shard for shard, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def gptq(index=None):
    rng = np.random.default_rng(0)
    inner, outer, groups = 128, 64, 4
    tensors = {
        "layer.qweight": torch.from_numpy(rng.integers(-(2**31), 2**31, (inner // 8, outer)).astype("i4")),
        "layer.qzeros": torch.from_numpy(rng.integers(-(2**31), 2**31, (groups, outer // 8)).astype("i4")),
        "layer.scales": torch.from_numpy(rng.random((groups, outer)).astype("f2")),
        "layer.g_idx": torch.from_numpy((np.arange(inner) // 32).astype("i4") if index is None else index),
    }
    words, zeros = (tensors[f"layer.{part}"].numpy().view("u4") for part in ("qweight", "qzeros"))
    shifts = 4 * np.arange(8, dtype="u4")
    q = ((words[:, None] >> shifts[:, None]) & 15).reshape(inner, outer).astype(float)
    z = ((zeros[..., None] >> shifts) & 15).reshape(groups, outer).astype(float)
    group = np.arange(inner) // 32
    scales = tensors["layer.scales"].numpy().astype(float)
    return tensors, torch.from_numpy(((q - (z[group] + 1) % 16) * scales[group]).T.copy())


CONFIG = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    root = tmp_path_factory.mktemp("quantised")
    models = root / "models"
    with safe_open(GOLDEN, "pt") as golden:
        bits = json.loads(golden.metadata()["bits"])
        for name in EXACT:
            parts = [key for key in golden.keys() if key.startswith(f"{name}.")]
            tensors = {f"layer.{key.removeprefix(f'{name}.')}": golden.get_tensor(key) for key in parts}
            config = {"config_groups": {"g": {"weights": {"num_bits": bits.get(name)}}}}
            save(models / "coded" / name, tensors, {"quantization_config": config})
            save(models / "plain" / name, {"layer.weight": golden.get_tensor(f"expected.{name}")}, {})
    tensors, weights = gptq()
    save(models / "coded/gptq", tensors, CONFIG)
    save(models / "plain/gptq", {"layer.weight": weights}, {})
    names = sorted(tensors)
    shards = {"model-1-of-2.safetensors": names[1:2], "model-2-of-2.safetensors": [names[0], *names[2:]]}
    save(models / "coded/split", tensors, CONFIG, shards)
    save(models / "plain/split", {"layer.weight": weights}, {})
    bad, _ = gptq(np.full(128, 9, "i4"))
    save(models / "broken/gptq", bad, CONFIG)
    assert run_cli("scan", models, "--lake", root / "lake").code == 3
    return root / "lake"


@pytest.mark.parametrize("name", [*EXACT, "gptq", "split"])
def test_a_row_of_codes_is_that_of_their_weights(lake, name):
    coded, plain = (
        rows(lake, f"FROM layers WHERE repo_id = '{owner}/{name}' AND status = 'ok'")
        for owner in ("coded", "plain")
    )
    (coded,), (plain,) = coded, plain
    assert (coded["N"], coded["M"], coded["num_evals"]) == (plain["N"], plain["M"], plain["num_evals"])
    for column in ("log_norm", "log_spectral_norm", "stable_rank", "alpha_hill", "w_std"):
        assert coded[column] == pytest.approx(plain[column], rel=1e-6), column
    assert coded["quant_method"] is not None
    assert plain["quant_method"] is None


def test_companions_are_skipped_and_nothing_is_lost(lake):
    reasons = rows(lake, "SELECT DISTINCT status_reason FROM layers WHERE status = 'skipped'")
    assert reasons == [{"status_reason": "quant_companion"}]
    wrong = "FROM models WHERE num_matrices <> num_ok + num_skipped + num_failed"
    assert rows(lake, wrong) == []


def test_every_code_is_a_parameter_and_no_scale_is(lake):
    sizes = "SELECT repo_id, params, coverage_params FROM models WHERE status = 'ok' ORDER BY repo_id"
    found = {row["repo_id"]: row for row in rows(lake, sizes)}
    for name in [*EXACT, "gptq", "split"]:
        coded, plain = found[f"coded/{name}"], found[f"plain/{name}"]
        assert (coded["params"], coded["coverage_params"]) == (plain["params"], 1.0)


def test_contents_that_do_not_fit_are_a_failure_by_name(lake):
    (failure,) = rows(lake, "FROM failures")
    assert (failure["repo_id"], failure["tensor"]) == ("broken/gptq", "layer.qweight")
    assert failure["kind"] == "quant_layout_unknown"
    assert "g_idx points outside the 4 groups" in failure["message"]


def test_rounding_is_no_collapse_and_strata_stay_apart(lake):
    query = "SELECT DISTINCT split_part(repo_id, '/', 1) AS kind, stratum_key LIKE '%quantised%' AS coded FROM models"
    found = {row["kind"]: row["coded"] for row in rows(lake, f"{query} WHERE status = 'ok'")}
    assert found == {"coded": True, "plain": False}
    assert rows(lake, "FROM flags WHERE flag = 'rank_collapse' AND repo_id LIKE 'coded/%'") == []
