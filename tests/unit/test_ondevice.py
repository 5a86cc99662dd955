"""The whole way with a device: rows as without one, in order, and what the host keeps for itself.

"cpu:0" is torch's CPU device: everything but the GPU itself is exercised.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from faulty import Flaky
from safetensors.numpy import save_file

from scanner.api import scan, spectrum
from scanner.ondevice import Elsewhere, ahead, device_seconds
from scanner.pipeline import run_unit, scan_unit
from scanner.planning import plan_repository
from scanner.reading import Job
from scanner.sources.local import LocalSource
from scanner.sources.memory import MemorySource
from scanner.spectra.device import Card, Solved, card
from schemas.config import MatrixRules, ScanConfig, SpectrumRules, WorkLimits
from schemas.errors import NumericsError, SourceError
from schemas.results import FailureKind
from schemas.rows import Failure, LayerMetrics

DEVICE = "cpu:0"
CONFIG = ScanConfig()
FROM_MACHINE = {"secs", "findings"}


def noise(*shape, seed=0, decay=0.1):
    values = np.random.default_rng(seed).standard_normal(shape)
    return (values * np.arange(1, shape[1] + 1).reshape(-1, *[1] * (len(shape) - 2)) ** -decay).astype(
        np.float32
    )


def state():
    return {
        "embed_tokens.weight": noise(800, 400),
        "layers.0.q_proj.weight": noise(400, 400, seed=1),
        "layers.0.up_proj.weight": noise(800, 400, seed=2),
        "layers.0.down_proj.weight": noise(400, 800, seed=3),
        "layers.0.norm.weight": np.ones(400, np.float32),
        "tiny.weight": noise(20, 20, seed=4),
        "layers.1.q_proj.weight": noise(400, 400, seed=5),
        "conv.weight": noise(160, 160, 3, 3, seed=6),
    }


def planned(source, config=CONFIG, **limits):
    return plan_repository(source, source.repository("owner/name"), config, WorkLimits(**limits)).units


def rows_of(tensors, device, config=CONFIG):
    return {row.tensor: row for row in scan(tensors, config=config, device=device)}


def assert_alike(row, other, columns, rel):
    for name in columns:
        found, expected = getattr(row, name), getattr(other, name)
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=rel, abs=1e-12)
        assert found == expected, name


COLUMNS = [field.name for field in fields(LayerMetrics) if field.name not in FROM_MACHINE]


def jobs_of(tensors):
    source = MemorySource(tensors)
    for unit in planned(source):
        for ref in unit.matrices:
            if ref.skip is None:
                buffer = bytearray(source.read(ref.tensor.file, ref.start, ref.stop))
                yield Job(ref, [buffer])


def test_a_scan_on_a_device_has_the_rows_of_a_scan_without():
    plain, found = rows_of(state(), "cpu"), rows_of(state(), DEVICE)
    assert list(found) == list(plain)
    for name, row in plain.items():
        assert_alike(found[name], row, COLUMNS, 1e-9)


def test_matrices_come_back_in_order_and_small_ones_are_solved_on_the_host(monkeypatch):
    sent = []
    solve = Card.solve
    monkeypatch.setattr(
        Card, "solve", lambda card, group, **how: sent.extend(group) or solve(card, group, **how)
    )
    found = list(ahead(jobs_of(state()), CONFIG, DEVICE))
    assert [job.ref.tensor.name for job, _ in found] == [name for name in state() if "norm" not in name]
    assert all(isinstance(ready, Solved) for _, ready in found)
    assert sorted(weights.shape for weights in sent) == sorted(
        job.ref.shape for job, _ in found if job.ref.tensor.name != "tiny.weight"
    )


def test_everything_may_go_to_the_device():
    found = [ready for _, ready in ahead(jobs_of(state()), CONFIG, DEVICE, host_seconds=-1.0)]
    assert all(isinstance(ready, Solved) for ready in found)


def test_a_nonfinite_matrix_fails_alone_and_its_entries_are_counted():
    tensors = state()
    tensors["layers.0.q_proj.weight"][0, :3] = np.nan
    rows = rows_of(tensors, DEVICE)
    bad = rows.pop("layers.0.q_proj.weight")
    assert (bad.status, bad.status_reason, bad.num_nonfinite) == ("failed", "nonfinite", 3)
    assert {row.status for name, row in rows.items() if "norm" not in name} == {"ok"}


def test_singular_values_and_beyond_the_gram_matrix_are_the_host_s():
    outlier = noise(400, 400).astype(np.float64)
    outlier += 1e7 * np.outer(np.ones(400), np.ones(400)) / 400
    row = rows_of({"w": outlier}, DEVICE)["w"]
    assert (row.spectrum_method, row.device) == ("svd_f64", "cpu")
    config = ScanConfig(spectrum=SpectrumRules(method="svd"))
    assert rows_of({"w": noise(400, 400)}, DEVICE, config)["w"].spectrum_method == "svd_f64"


def test_a_convolution_as_a_linear_map_is_the_host_s():
    config = ScanConfig(matrices=MatrixRules(conv_mode="fft"))
    found, plain = (
        rows_of({"conv.weight": noise(64, 64, 3, 3)}, device, config) for device in (DEVICE, "cpu")
    )
    assert_alike(found["conv.weight"], plain["conv.weight"], COLUMNS, 1e-12)


def test_a_convolution_too_deep_to_be_transformed_is_the_device_s():
    config = ScanConfig(matrices=MatrixRules(conv_mode="fft"))
    for shape, kind in (((64, 64, 3, 3), Elsewhere), ((64, 64, 2, 2, 2), Solved)):
        ((_, ready),) = ahead(jobs_of({"conv.weight": noise(*shape)}), config, DEVICE, host_seconds=0.0)
        assert isinstance(ready, kind)


SINGLE = ScanConfig(spectrum=SpectrumRules(precision="float32"))


def test_float32_is_named_and_close_where_it_is_certified():
    plain, found = rows_of(state(), "cpu"), rows_of(state(), DEVICE, SINGLE)
    named = {name for name, row in found.items() if row.spectrum_method == "gram_f32"}
    assert named
    for name in named:
        assert_alike(found[name], plain[name], ["alpha", "log_norm", "lambda_max"], 2e-5)
        assert found[name].D_ks == pytest.approx(plain[name].D_ks, abs=2e-5)
        assert_alike(found[name], plain[name], ["w_kurtosis", "w_std", "n_tail", "phase"], 1e-9)


def test_float32_that_is_not_certified_is_done_again_in_float64():
    outlier = noise(400, 400)
    outlier[:, 0] *= 100
    row = rows_of({"w": outlier}, DEVICE, SINGLE)["w"]
    assert row.lambda_max / row.xmin > 10
    assert row.spectrum_method == "gram_f64"
    assert_alike(row, rows_of({"w": outlier}, "cpu", SINGLE)["w"], COLUMNS, 1e-9)


def test_a_card_weak_in_float64_tries_float32_and_leaves_the_rest_to_the_host(monkeypatch):
    """The CPU poses as a card of one multiprocessor, on which float64 takes longer than on the host."""
    monkeypatch.setattr(card(DEVICE), "strong_float64", False)
    outlier = noise(400, 400)
    outlier[:, 0] *= 100
    found = {
        job.ref.tensor.name: ready for job, ready in ahead(jobs_of(state() | {"w": outlier}), CONFIG, DEVICE)
    }
    assert found["w"] == Elsewhere()
    assert found["layers.0.up_proj.weight"].spectrum.method == "gram_f32"


def test_no_float32_while_torch_takes_shorter_products_for_it():
    torch.set_float32_matmul_precision("high")
    try:
        methods = {row.spectrum_method for row in rows_of(state(), DEVICE, SINGLE).values()}
    finally:
        torch.set_float32_matmul_precision("highest")
    assert methods == {"gram_f64", None}


def test_the_policy_is_float64_where_it_is_strong():
    methods = {row.spectrum_method for row in rows_of(state(), DEVICE).values()}
    assert methods == {"gram_f64", None}


def test_the_unit_s_result_carries_what_is_to_be_told():
    """Eigenvalues at the end of the range are refused by the device with a sentence, then by the host."""
    source = MemorySource({"a": noise(400, 400), "b": noise(400, 400).astype(np.float64) * 1e150})
    (unit,) = planned(source)
    result = run_unit(source, unit, CONFIG, DEVICE)
    assert [row.status for row in result.rows] == ["ok", "failed"]
    (note,) = result.notes
    assert note.endswith("left to the CPU")
    assert run_unit(source, unit, CONFIG).notes == ()


def test_a_notebook_is_warned():
    with pytest.warns(RuntimeWarning, match=r"memory/state_dict b: .* left to the CPU"):
        rows = rows_of({"b": noise(400, 400).astype(np.float64) * 1e150}, DEVICE)
    assert rows["b"].status == "failed"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_was_read_before_a_final_error_is_kept(tmp_path, after):
    save_file({name: noise(400, 400) for name in "abc"}, tmp_path / "model.safetensors")
    (unit,) = planned(LocalSource(tmp_path))
    source = Flaky(tmp_path, after, SourceError(FailureKind.READ_ERROR, "gone"))
    found = list(scan_unit(source, unit, CONFIG, DEVICE))
    rows = [one for one in found if isinstance(one, LayerMetrics)]
    assert [row.status for row in rows] == ["ok"] * after + ["failed"] * (3 - after)
    assert sum(isinstance(one, Failure) for one in found) == 1


def test_one_spectrum_on_a_device():
    array = noise(64, 40)
    found, expected = spectrum(array, device=DEVICE), spectrum(array)
    np.testing.assert_allclose(found.evals, expected.evals, rtol=0, atol=1e-12 * expected.evals[-1])
    tensor = torch.from_numpy(array).to(torch.bfloat16)
    assert spectrum(tensor, device=DEVICE).evals[-1] == pytest.approx(spectrum(tensor).evals[-1], rel=1e-12)
    with pytest.raises(ValueError, match="runs on the CPU only"):
        spectrum(array, method="svd", device=DEVICE)
    with pytest.raises(NumericsError):
        spectrum(array * np.float32(np.nan), device=DEVICE)


def test_a_weak_card_is_estimated_slower_where_latency_or_float64_rules():
    (job,) = jobs_of({"w": noise(400, 400)})
    small, large = job.ref, replace(job.ref, shape=(4096, 4096))
    assert device_seconds(small, 60) < device_seconds(large, 60) < device_seconds(large, 10)
    assert device_seconds(small, 10_000) == pytest.approx(400 * 1.6e-5, rel=0.2)


def test_a_card_is_opened_once():
    assert card(DEVICE) is card(DEVICE)
    assert card(DEVICE).strong_float64
