"""LoRA pairs from file to row: the numbers of the update, its scale, and nothing lost."""

import json
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import save_file

from scanner.api import read_matrices, scan, spectrum
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.local import LocalSource
from schemas.config import ScanConfig, TailRules, profile_config
from schemas.results import Role

TARGET = "base_model.model.model.layers.3.self_attn.q_proj"


def factors(m=96, n=64, r=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((r, n)).astype("f4"), rng.standard_normal((m, r)).astype("f4")


def save(folder, tensors, **config):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | config))
    return folder


def pair(a, b, name=TARGET):
    return {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}


def rows_of(folder, profile="default"):
    return {row.tensor.removeprefix(TARGET + "."): row for row in scan(folder, profile)}


@pytest.mark.parametrize("r", [1, 8, 24])
def test_a_pair_is_one_row_with_the_numbers_of_its_product(tmp_path, r):
    a, b = factors(r=r)
    rows = rows_of(save(tmp_path, pair(a, b), lora_alpha=16, r=r))
    row, other = rows["lora_A.weight"], rows["lora_B.weight"]
    evals = np.linalg.svd(16 / r * b.astype("f8") @ a, compute_uv=False)[:r] ** 2
    assert (row.status, row.role, row.counted, row.layer_index) == ("ok", Role.LORA, False, 3)
    assert (row.N, row.M, row.num_evals, row.kernel_size) == (96, 64, r, 1)
    assert (row.lora_rank, row.lora_scale, row.spectrum_method) == (r, 16 / r, "lora_qr")
    assert row.norm == pytest.approx(evals.sum(), rel=1e-12)
    assert row.log_spectral_norm == pytest.approx(np.log10(evals[0]), rel=1e-12)
    assert row.stable_rank == pytest.approx(evals.sum() / evals[0], rel=1e-12)
    assert (row.fit_status == "ok") is (r >= 20)
    assert (row.bulk_status, row.null_status, row.alt_status, row.phase) == ("off", "off", "off", None)
    assert (row.num_nonfinite, row.w_std, row.zero_frac) == (0, None, None)
    assert (other.status, other.status_reason, other.lora_rank) == ("skipped", "lora_pair", None)


def test_halving_alpha_shifts_log_norm_by_two_log_two(tmp_path):
    a, b = factors(768, 768)
    whole, half = (
        rows_of(save(tmp_path / str(alpha), pair(a, b), lora_alpha=alpha))["lora_A.weight"]
        for alpha in (16, 8)
    )
    assert half.log_norm - whole.log_norm == pytest.approx(-0.60206, abs=1e-6)
    assert half.stable_rank == pytest.approx(whole.stable_rank, rel=1e-12)


def test_factors_that_lie_far_apart_and_their_alphas_are_brought_together(tmp_path):
    """kohya in float16 with float32 scalars: the file holds all alphas first."""
    tensors, products = {}, {}
    for i in range(5):
        a, b = factors(40, 30, 4, seed=i)
        name = f"lora_unet_blocks_{i}_to_q"
        tensors |= {
            f"{name}.alpha": np.float32(2 + i),
            f"{name}.lora_up.weight": b.astype("f2"),
            f"{name}.lora_down.weight": a.astype("f2"),
        }
        products[f"{name}.lora_down.weight"] = (2 + i) / 4 * b.astype("f2").astype("f8") @ a.astype("f2")
    save_file({k: np.asarray(v) for k, v in tensors.items()}, tmp_path / "style.safetensors")
    rows = list(scan(tmp_path))
    assert {row.tensor for row in rows} == tensors.keys()
    done = {row.tensor: row.log_norm for row in rows if row.status == "ok"}
    assert done == pytest.approx({k: np.log10(np.sum(v**2)) for k, v in products.items()}, rel=1e-9)


def test_nothing_is_lost_and_a_bad_factor_costs_its_row(tmp_path):
    a, b = factors()
    broken = b.copy()
    broken[3, :2] = np.nan
    tensors = (
        pair(a, b, "x")
        | pair(a, broken, "y")
        | {"z.lora_A.weight": a, "w.lora_B.weight": np.ones((9, 9), "f4")}
    )
    rows = {row.tensor: row for row in scan(save(tmp_path, tensors, lora_alpha=8, r=8))}
    assert rows.keys() == tensors.keys()
    assert (rows["x.lora_A.weight"].status, rows["z.lora_A.weight"].spectrum_method) == ("ok", "gram_f64")
    bad = rows["y.lora_A.weight"]
    assert (bad.status, bad.status_reason, bad.num_nonfinite) == ("failed", "nonfinite", 2)


@pytest.mark.parametrize("alpha", [float("nan"), [16], "16", -16])
def test_a_scale_that_means_nothing_costs_the_pair_and_says_why(tmp_path, alpha):
    """Any scale of ours would be a guess."""
    folder = save(tmp_path, pair(*factors()) | {"full.weight": factors()[0]}, lora_alpha=alpha)
    source = LocalSource(folder)
    plan = plan_repository(source, source.repository("owner/name"), ScanConfig())
    done = run_unit(source, plan.units[0], ScanConfig())
    rows = {row.tensor.removeprefix(TARGET + "."): row for row in done.rows}
    row = rows["lora_A.weight"]
    assert (row.status, row.status_reason, row.lora_scale, row.norm) == ("failed", "lora_scale", None, None)
    assert rows["full.weight"].status == "ok"
    (failure,) = done.failures
    assert (failure.failure_id, failure.kind) == (row.failure_id, "lora_scale")
    assert failure.message.startswith("adapter_config.json: lora_alpha is ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "adapter_config.json is not JSON"),
        ('{"lora_alpha": 16', "adapter_config.json is not JSON"),
        ("[16]", "adapter_config.json is JSON, but no object"),
        ("null", "adapter_config.json is JSON, but no object"),
        ("[" * 100_000, "adapter_config.json is not JSON"),
        ('{"x": 1' + " " * (1 << 20) + "}", "adapter_config.json has 1048584 bytes"),
        ('{"lora_alpha": 16, "use_rslora": "true"}', "adapter_config.json: use_rslora is 'true'"),
        (
            '{"lora_alpha": 16, "alpha_pattern": [["q", 8]]}',
            "adapter_config.json: alpha_pattern is [['q', 8]]",
        ),
    ],
)
@pytest.mark.parametrize("stored", [{}, {f"{TARGET}.alpha": np.asarray(np.float32(4))}])
def test_a_config_that_cannot_be_read_is_not_taken_for_none(tmp_path, text, why, stored):
    """Without a config the scale is 1, or a stored alpha over r; one that is there might say otherwise."""
    folder = save(tmp_path, pair(*factors()) | {"full.weight": factors()[0]} | stored)
    (folder / "adapter_config.json").write_text(text)
    found = scan(folder)
    rows = {row.tensor.removeprefix(TARGET + "."): row for row in found}
    row = rows["lora_A.weight"]
    assert (row.status, row.status_reason, row.lora_scale) == ("failed", "lora_scale", None)
    assert rows["full.weight"].status == "ok"
    (failure,) = found.failures
    assert failure.message.startswith(why)


@pytest.mark.parametrize("settings", [{"use_rslora": None, "alpha_pattern": None}, {"alpha_pattern": {}}])
def test_what_a_config_leaves_open_is_no_fault(tmp_path, settings):
    rows = rows_of(save(tmp_path, pair(*factors()), lora_alpha=16, **settings))
    assert rows["lora_A.weight"].lora_scale == 2


def test_a_stored_alpha_below_zero_is_no_scale(tmp_path):
    tensors = pair(*factors(), "x") | {"x.alpha": np.asarray(np.float32(-4))}
    rows = {row.tensor: row for row in scan(save(tmp_path, tensors))}
    assert (rows["x.lora_A.weight"].status, rows["x.lora_A.weight"].status_reason) == ("failed", "lora_scale")


def test_two_adapters_may_share_one_alpha(tmp_path):
    a, b = factors()
    names = [f"x.lora_{side}.{adapter}.weight" for adapter in ("one", "two") for side in "AB"]
    tensors = dict(zip(names, (a, b, a, b), strict=True)) | {"x.alpha": np.asarray(np.float32(4))}
    rows = [row for row in scan(save(tmp_path, tensors)) if row.status == "ok"]
    assert [(row.tensor, row.lora_scale) for row in rows] == [(names[0], 0.5), (names[2], 0.5)]


def test_an_untrained_adapter_is_a_zero_matrix(tmp_path):
    a, b = factors()
    row = rows_of(save(tmp_path, pair(a, 0 * b), lora_alpha=8))["lora_A.weight"]
    assert (row.status, row.status_reason, row.norm, row.flags) == (
        "ok",
        "zero_matrix",
        None,
        ("zero_matrix",),
    )


def test_a_product_beyond_float64_has_no_nan_entries(tmp_path):
    a, b = (1e200 * factor.astype("f8") for factor in factors())
    row = rows_of(save(tmp_path, pair(a, b), lora_alpha=8))["lora_A.weight"]
    assert (row.status, row.status_reason, row.flags) == ("failed", "eigensolver_error", ())


def test_a_tail_that_ends_at_xmax_is_named(tmp_path):
    rules = ScanConfig(tail=TailRules(xmax="max"))
    rows = scan(save(tmp_path, pair(*factors(r=24)), lora_alpha=8), config=rules)
    assert {row.estimator for row in rows if row.status == "ok"} == {"hs1-xmax"}


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_column_is_nan(tmp_path, scale):
    a, b = factors(r=24)
    row = rows_of(save(tmp_path, pair(a, b), lora_alpha=scale), "full")["lora_A.weight"]
    for field in fields(row):
        value = getattr(row, field.name)
        assert not isinstance(value, float) or np.isfinite(value), field.name


def test_weightwatchers_profile_takes_the_factors_as_they_are(tmp_path):
    rows = rows_of(save(tmp_path, pair(*factors(r=9)), lora_alpha=8), "weightwatcher")
    assert {(row.lora_rank, row.status, row.ww_status) for row in rows.values()} == {(None, "ok", "success")}
    assert profile_config("weightwatcher").matrices.as_stored


def test_a_notebook_gets_the_product(tmp_path):
    a, b = factors()
    (matrix,) = read_matrices(save(tmp_path, pair(a, b), lora_alpha=4, r=8))
    product = 0.5 * b.astype("f8") @ a
    assert (matrix.shape, matrix.role) == ((96, 64), Role.LORA)
    np.testing.assert_allclose(matrix.values, product, rtol=1e-12)
    np.testing.assert_allclose(spectrum(matrix).evals[-1], np.linalg.norm(product, 2) ** 2)


def test_real_adapters(models):
    """Adapters of rank 2 and alpha 4 on the queries of RoBERTa: one row a pair, its scale 2."""
    for step in (500, 2400):
        folder = models / "subro608" / f"roberta-lora-step{step}"
        rows = [row for row in scan(folder) if row.role == Role.LORA]
        done = [row for row in rows if row.status == "ok"]
        assert (len(rows), len(done)) == (24, 12)
        assert {(row.N, row.M, row.lora_rank, row.lora_scale) for row in done} == {(768, 768, 2, 2.0)}
        dense = {m.name: np.linalg.norm(m.values) ** 2 for m in read_matrices(folder) if m.role == Role.LORA}
        assert {row.tensor: row.norm for row in done} == pytest.approx(dense, rel=1e-10)


def blocks(scale, *modules, r=4, side=48):
    """LoRA pairs of `modules` in eight blocks; `scale` is their factor, by module and block."""
    tensors = {}
    for i in range(8):
        for module in modules:
            a, b = factors(side, side, r, seed=i)
            tensors |= pair(np.float32(scale(module, i)) * a, b, f"base_model.model.layers.{i}.{module}")
    return tensors


def outliers(folder):
    return {row.tensor for row in scan(folder) if "scale_outlier" in row.flags}


def test_updates_of_one_kind_are_siblings_and_those_of_another_are_not(tmp_path):
    gains = {"q_proj": 1.0, "k_proj": 1.0, "v_proj": 1e-2}
    tensors = blocks(lambda module, i: gains[module] * (1e-2 if i == 5 else 1), *gains)
    found = outliers(save(tmp_path, tensors, lora_alpha=4))
    assert found == {f"base_model.model.layers.5.{module}.lora_A.weight" for module in gains}


def test_updates_are_compared_with_updates_of_their_rank_alone(tmp_path):
    """Not with full matrices, and not with factors whose other half is missing."""
    tensors = blocks(lambda *_: 1e-2, "q_proj", r=4)
    wide = {
        name.replace("layers", "more"): tensor
        for name, tensor in blocks(lambda *_: 10, "q_proj", r=8).items()
    }
    full = {f"base_model.model.layers.{i}.q_proj.weight": 10 * factors(48, 48, 48, i)[1] for i in range(8)}
    lone = {
        f"base_model.model.lone.{i}.q_proj.lora_B.weight": 10 * factors(48, 48, 48, i)[1] for i in range(8)
    }
    rows = list(scan(save(tmp_path, tensors | wide | full | lone, lora_alpha=4)))
    assert {row.tensor for row in rows if "scale_outlier" in row.flags} == set()
    assert {row.scale_peers for row in rows if row.status == "ok"} == {8}


def test_an_outlying_update_says_what_it_was_compared_with(tmp_path):
    tensors = blocks(lambda _, i: 1e-2 if i == 5 else 1, "q_proj")
    (row,) = (
        row for row in scan(save(tmp_path, tensors, lora_alpha=4)) if row.layer_index == 5 and row.flags
    )
    assert "of its 8 siblings (lora of q, rank 4, 48 x 48)" in row.findings[-1].sentence
