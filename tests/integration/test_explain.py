"""`hubspectra explain`: one matrix read again, with and without a scan of it in the lake."""

import json

import numpy as np
import pytest
from running import run_cli
from safetensors.numpy import save_file

from jobs.hub.server import HubServer
from jobs.lake.leaderboard import ask

SHRUNK = "layers.3.weight"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """Eight like layers with heavy tails, one of them shrunk by a thousand, and one convolution."""
    root = tmp_path_factory.mktemp("explained")
    folder = root / "models/acme/model"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scale = np.arange(1, 81) ** -0.75
    tensors = {f"layers.{i}.weight": (rng.standard_normal((160, 80)) * scale).astype("f4") for i in range(8)}
    tensors[SHRUNK] *= 1e-3
    tensors["conv.weight"] = rng.standard_normal((24, 20, 3, 3)).astype("f4")
    tensors["bias"] = np.zeros(80, "f4")
    save_file(tensors, folder / "model.safetensors")
    return root


@pytest.fixture(scope="module")
def model(hub_folder):
    return hub_folder / "models/acme/model"


@pytest.fixture(scope="module")
def lake(model, tmp_path_factory):
    lake = tmp_path_factory.mktemp("lake") / "lake"
    assert run_cli("scan", model, "--lake", lake).code == 0
    return lake


def explained(*arguments):
    ran = run_cli("explain", *arguments, "--format", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.text)


def test_its_numbers_are_those_of_the_scan(model, lake):
    document = explained(model, SHRUNK, "--lake", lake)
    (stored,) = ask(lake, f"SELECT * FROM layers WHERE tensor = '{SHRUNK}'").to_pylist()
    for name in ("alpha", "xmin", "D_ks", "n_tail", "log_norm", "stable_rank", "mp_softrank"):
        assert document["row"][name] == pytest.approx(stored[name], rel=1e-12), name
    assert document["row"]["phase"] == stored["phase"]


def test_both_opinions_and_every_alternative_are_there(model, lake):
    document = explained(model, SHRUNK, "--lake", lake)
    estimates = {line["estimate"].strip(): line for line in document["estimates"]}
    ours, theirs = estimates["hubspectra hs1"], estimates["powerlaw 2.0.0, our xmin"]
    assert theirs["alpha"] == pytest.approx(ours["alpha"], rel=1e-6)
    assert theirs["n_tail"] == ours["n_tail"]
    assert {line["alternative"] for line in document["alternatives"]} == {
        "exponential",
        "stretched exponential",
        "lognormal",
        "truncated power law",
    }
    for line in document["alternatives"]:
        assert line["R"] == pytest.approx(line["R_powerlaw"], abs=0.5), line


def test_what_only_the_scan_knows_is_added(model, lake, tmp_path):
    alone = explained(model, SHRUNK, "--lake", tmp_path / "none")
    scanned = explained(model, SHRUNK, "--lake", lake)
    assert "scale_outlier" not in [finding["flag"] for finding in alone["findings"]]
    (outlier,) = [finding for finding in scanned["findings"] if finding["flag"] == "scale_outlier"]
    assert outlier["value"] < -5
    assert "siblings" in outlier["sentence"]


def test_thresholds_are_those_of_the_scan(model, tmp_path):
    (tmp_path / "strict.toml").write_text("[thresholds]\nks_max = 0.0\n")
    lake = tmp_path / "lake"
    assert run_cli("scan", model, "--lake", lake, "--config", tmp_path / "strict.toml").code == 0
    findings = explained(model, "layers.0.weight", "--lake", lake)["findings"]
    assert "fit_unreliable" in [finding["flag"] for finding in findings]


def test_from_a_hub_at_the_commit_that_was_scanned(hub_folder, tmp_path):
    with HubServer(hub_folder) as hub:
        endpoint = ("--endpoint", hub.endpoint, "--lake", tmp_path / "lake")
        assert run_cli("scan", "acme/model", *endpoint).code == 0
        document = explained("acme/model", "layers.0.weight", *endpoint)
    (stored,) = ask(tmp_path / "lake", "SELECT revision FROM repositories").to_pylist()
    assert document["revision"] == stored["revision"]


def test_people_read_a_page(model, tmp_path):
    ran = run_cli("explain", model, "layers.0", "--lake", tmp_path / "none")
    assert ran.code == 0
    for piece in ("hubspectra hs1", "WeightWatcher's rule", "truncated power law", "160 x 80", "Phase"):
        assert piece in ran.text, piece


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("tensor", ["layers.0.weight", "conv.weight"])
def test_the_plot(model, tmp_path, ending, magic, tensor):
    path = tmp_path / f"plot.{ending}"
    assert run_cli("explain", model, tensor, "--plot", path, "--lake", tmp_path / "none").code == 0
    content = path.read_bytes()
    assert content.startswith(magic)
    assert len(content) > 5000


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ("layers.", "could be any of 8"),
        ("layer.0.wait", "no tensor 'layer.0.wait' with a spectrum; there are layers.0.weight"),
        ("bias", "bias has no spectrum: a vector, scalar"),
    ],
)
def test_a_tensor_that_is_not_meant_clearly(model, tensor, said, tmp_path):
    ran = run_cli("explain", model, tensor, "--lake", tmp_path / "none")
    assert ran.code == 1
    assert said in ran.err


def test_a_repository_that_is_not_there(tmp_path):
    with HubServer(tmp_path) as hub:
        ran = run_cli("explain", "acme/none", "w", "--endpoint", hub.endpoint, "--lake", tmp_path / "none")
    assert ran.code == 1
    assert "acme/none: " in ran.err


def test_a_plot_that_cannot_be_written(model, tmp_path):
    plot = tmp_path / "no/such/folder/plot.png"
    ran = run_cli("explain", model, "layers.0.weight", "--plot", plot, "--lake", tmp_path / "none")
    assert ran.code == 1
    assert "cannot write the plot" in ran.err


def test_a_document_that_cannot_be_written(model, tmp_path):
    ran = run_cli("explain", model, "layers.0.weight", "-o", tmp_path / "no/x.json", "--lake", tmp_path)
    assert (ran.code, ran.out) == (1, b"")
    assert "x.json: No such file" in ran.err


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Updates of rank 4 and 32 of a projection, and one that was never trained."""
    folder = tmp_path_factory.mktemp("adapted") / "adapter"
    folder.mkdir()
    rng = np.random.default_rng(1)
    tensors = {}
    for name, rank, gain in (("few", 4, 1), ("many", 32, 1), ("none", 4, 0), ("thin", 1, 1)):
        scale = np.arange(1, rank + 1)[:, None] ** -1.0
        tensors[f"{name}.q_proj.lora_A.weight"] = (scale * rng.standard_normal((rank, 96))).astype("f4")
        tensors[f"{name}.q_proj.lora_B.weight"] = (gain * rng.standard_normal((64, rank))).astype("f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 8}')
    return folder, tensors


@pytest.mark.parametrize(("name", "rank"), [("few", 4), ("many", 32)])
def test_a_lora_pair_is_explained_as_its_product(adapter, tmp_path, name, rank):
    folder, tensors = adapter
    lake = tmp_path / "lake"
    assert run_cli("scan", folder, "--lake", lake).code == 0
    tensor = f"{name}.q_proj.lora_A.weight"
    document = explained(folder, tensor, "--lake", lake)
    row = document["row"]
    (stored,) = ask(lake, f"SELECT * FROM layers WHERE tensor = '{tensor}'").to_pylist()
    product = 8 / rank * tensors[tensor.replace("_A", "_B")].astype("f8") @ tensors[tensor]
    assert row["norm"] == pytest.approx(np.linalg.norm(product) ** 2, rel=1e-10)
    shared = row.keys() & {key for key, value in stored.items() if value is not None} - {"findings", "flags"}
    for key in shared - {"secs", "scan_id", "config_fingerprint", "shape"}:
        assert row[key] == stored[key], key
    named = {line["estimate"] for line in document["estimates"]}
    assert {"hubspectra hs1", "WeightWatcher's rule"} <= named if rank == 32 else not named


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("few", "Update of rank 4, scaled by 2: Frobenius norm"),
        ("many", "hubspectra hs1"),
        ("thin", "stable rank 1.0, effective rank 1.0."),
        ("none", "Update of rank 4, scaled by 2: all zero."),
    ],
)
def test_people_read_of_an_update_and_see_it(adapter, tmp_path, name, said):
    plot = tmp_path / "plot.png"
    ran = run_cli("explain", adapter[0], f"{name}.q_proj", "--plot", plot, "--lake", tmp_path / "none")
    assert (ran.code, said in ran.text) == (0, True), ran
    assert plot.stat().st_size > 5000
    assert "Warning" not in ran.err
