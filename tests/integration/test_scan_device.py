"""A scan into a lake with a device, torch's CPU standing in for a GPU, against one without."""

import numpy as np
import pytest
from running import Notes, rows
from safetensors.numpy import save_file

from jobs.engine.driver import Request, run_scan
from schemas.config import ScanConfig
from schemas.work import Target

COLUMNS = "tensor, status, spectrum_method, device, alpha, n_tail, lambda_max, w_kurtosis"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "acme" / "wide"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    tensors = {f"layers.{k}.weight": random.standard_normal((400, 400)).astype("f4") for k in range(5)}
    tensors["layers.5.weight"] = random.standard_normal((400, 400)) * 1e150
    save_file(tensors, folder / "model.safetensors")
    return folder


def scan(model, lake, device):
    request = Request(
        targets=(Target(repo_id="acme/wide", root=str(model)),),
        lake=lake,
        config=ScanConfig(),
        engine="local",
        device=device,
    )
    told = Notes()
    run_scan(request, told)
    return told.notes, rows(lake, f"SELECT {COLUMNS} FROM layers ORDER BY matrix_index")


def test_the_lake_is_the_same_and_what_the_device_left_to_the_cpu_is_said(model, tmp_path):
    plain_notes, plain = scan(model, tmp_path / "plain", "cpu")
    notes, found = scan(model, tmp_path / "device", "cpu:0")
    assert len(found) == 6
    for row, expected in zip(found, plain, strict=True):
        numbers = {k: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for k, v in expected.items()}
        assert row == numbers
    (said,) = set(notes) - set(plain_notes)
    assert said.startswith("acme/wide layers.5.weight: ")
    assert said.endswith("left to the CPU")
