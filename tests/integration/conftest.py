"""Models to scan, ways to run the command line, and an environment without traces of the user's own Hub."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars
from running import HUB_VARIABLES, Scanned, run_cli
from safetensors.numpy import save_file
from zoo import build_zoo


@pytest.fixture(autouse=True)
def scrubbed_hub_environment(monkeypatch, tmp_path_factory):
    """No endpoint, token, cache or progress bar of the user; the client has read some of them at import."""
    home = tmp_path_factory.mktemp("hf-home")
    for name in HUB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    disable_progress_bars()


@pytest.fixture
def hub_root(tmp_path) -> Path:
    """A folder of small repositories, ready for HubServer."""
    return build_hub_root(tmp_path / "hub")


@pytest.fixture(scope="session")
def make_hub_root() -> Callable[[Path], Path]:
    """The builder behind `hub_root`, for fixtures of a wider scope."""
    return build_hub_root


@pytest.fixture
def clean_hub(hub):
    """What a test did to its module's `hub` ends with it."""
    yield
    hub.clear()


def build_hub_root(root: Path) -> Path:
    """Write acme/{base,tuned,sharded} and gated, private, disabled and renamed repositories into `root`."""
    random = np.random.default_rng(0)
    for name, likes in (("base", 3), ("tuned", 5)):
        folder = new_repo(root, name, likes=likes, downloads=likes * 10)
        save_file(weights(random), folder / "model.safetensors", {"format": "pt"})
    (root / "models/acme/tuned/README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: acme/base\npipeline_tag: feature-extraction\n"
        "tags: [tiny, 2024]\nmodel-index:\n- name: tuned\n  results: []\n---\n# Tuned\n"
    )
    sharded = new_repo(root, "sharded", likes=1, lastModified="2031-01-01T00:00:00.000Z")
    shards = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    for layer, shard in enumerate(shards):
        save_file({f"layers.{layer}.weight": random.normal(size=(16, 8)).astype("f4")}, sharded / shard)
    index = {f"layers.{layer}.weight": shard for layer, shard in enumerate(shards)}
    (sharded / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1024}, "weight_map": index})
    )
    (sharded / "sub/deep").mkdir(parents=True)
    (sharded / "sub/deep/note.txt").write_text("deep")
    for name, settings in (
        ("gated", {"gated": "auto"}),
        ("closed", {"gated": "manual"}),
        ("secret", {"private": True}),
        ("off", {"disabled": True}),
        ("old", {"renamed_to": "acme/base"}),
    ):
        folder = new_repo(root, name, **settings)
        save_file(weights(random), folder / "model.safetensors")
    table = root / "datasets/acme/table"
    table.mkdir(parents=True)
    (table / "data.csv").write_text("a,b\n1,2\n")
    return root


def new_repo(root: Path, name: str, **settings: object) -> Path:
    folder = root / "models/acme" / name
    folder.mkdir(parents=True)
    (folder / ".hub.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 16})
    )
    return folder


def weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "embed.weight": random.normal(size=(32, 16)).astype("f4"),
        "layer.weight": random.normal(size=(16, 16)).astype("f2"),
        "layer.bias": np.zeros(16, "f4"),
    }


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """The key and the certificate of an https server at 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "cert.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *curve, *name, "-days", "2", "-keyout", key, "-out", pem]
    subprocess.run(command, check=True, capture_output=True)
    return key, pem


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    return build_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def zoo_scan(zoo, tmp_path_factory) -> Scanned:
    """The zoo scanned in this process."""
    lake = tmp_path_factory.mktemp("scan") / "in-process"
    return Scanned(lake, run_cli("scan", zoo, "--lake", lake, "--engine", "local"))


@pytest.fixture(scope="session")
def local_ray():
    """One Ray of two cores and two GPUs, which Ray takes our word for; RayActors finds it running."""
    ray = pytest.importorskip("ray")
    from jobs.engine.actors import worker_environment

    ray.init(
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        runtime_env={"env_vars": worker_environment()},
    )
    yield ray
    ray.shutdown()
