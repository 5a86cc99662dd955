"""Small models to scan: sound ones, odd ones, and one of each kind of broken file."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def save_model(folder: Path, seed: int, **more: np.ndarray) -> Path:
    """A model of two heavy-tailed matrices and a bias, and what else is given."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors = {
        "layers.0.weight": random.standard_t(3, (60, 40)).astype("f4"),
        "layers.1.weight": random.standard_t(3, (50, 30)).astype("f2"),
        "layers.1.bias": np.zeros(50, "f4"),
        **more,
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def save_raw(folder: Path, header: dict[str, Any], body: int, length: int | None = None) -> None:
    """A safetensors file of this header, `body` zero bytes, and perhaps a lie about the header's length."""
    folder.mkdir(parents=True)
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + text + bytes(body))


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def save_files(folder: Path, **contents: bytes) -> None:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_bytes(content)


FAILURES = {
    ("bad/truncated", "model.safetensors", None): "bad_header",
    ("bad/long-header", "model.safetensors", None): "bad_header",
    ("bad/overlap", "model.safetensors", "v"): "bad_header",
    ("bad/outside", "model.safetensors", None): "bad_header",
    ("bad/dtype", "model.safetensors", "w"): "bad_header",
    ("bad/no-bytes", "model.safetensors", None): "bad_header",
    ("bad/pointer", "model.safetensors", None): "lfs_pointer",
    ("bad/pickle", None, None): "skipped_pickle",
    ("bad/gguf", None, None): "skipped_gguf",
    ("bad/nothing", None, None): "no_weights",
    ("bad/shard-gone", "model.safetensors.index.json", None): "index_mismatch",
    ("odd/nonfinite", "model.safetensors", "extra.weight"): "nonfinite",
    ("odd/huge", "model.safetensors", "extra.weight"): "eigensolver_error",
}
"""What must fail, where, and how."""

SOUND = ("acme/one", "acme/two", "odd/constant", "odd/zero")
_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 400\n".encode()


def build_zoo(root: Path) -> Path:
    """Write SOUND and the repositories of FAILURES, laid out owner/name."""
    for seed, name in enumerate(("acme/one", "acme/two")):
        save_model(root / name, seed)
        (root / name / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    broken = np.random.default_rng(9).normal(size=(30, 20)).astype("f4")
    broken[3, 4], broken[5, 6] = np.nan, np.inf
    save_model(root / "odd/nonfinite", 2, **{"extra.weight": broken})
    save_model(root / "odd/huge", 3, **{"extra.weight": np.full((30, 20), 1e200)})
    save_model(root / "odd/constant", 4, **{"extra.weight": np.eye(30, dtype="f4")})
    zeros = {"extra.weight": np.zeros((30, 20), "f4"), "none.weight": np.zeros((0, 20), "f4")}
    save_model(root / "odd/zero", 5, **zeros)
    bad = root / "bad"
    save_raw(bad / "truncated", {"w": entry("F32", [20, 20], 0, 1600)}, 1000)
    save_raw(bad / "long-header", {}, 0, length=10**9)
    overlapping = {"w": entry("F32", [10, 10], 0, 400), "v": entry("F32", [10, 10], 200, 600)}
    save_raw(bad / "overlap", overlapping, 600)
    outside = {"w": entry("F32", [10, 10], 0, 400), "v": entry("F32", [10, 10], 400, 800)}
    save_raw(bad / "outside", outside, 400)
    save_raw(bad / "dtype", {"w": entry("Q7", [10, 10], 0, 400)}, 400)
    save_files(bad / "no-bytes", model__safetensors=b"")
    save_files(bad / "pointer", model__safetensors=_POINTER)
    save_files(bad / "pickle", pytorch_model__bin=b"pickle", config__json=b"{}")
    save_files(bad / "gguf", model__gguf=b"GGUF", config__json=b"{}")
    save_files(bad / "nothing", config__json=b"{}")
    shards = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    save_model(bad / "shard-gone", 6)
    (bad / "shard-gone/model.safetensors").rename(bad / "shard-gone" / shards[0])
    names = ("layers.0.weight", "layers.1.weight", "layers.1.bias", "layers.2.weight")
    index = {"metadata": {}, "weight_map": {name: shards[name == names[3]] for name in names}}
    (bad / "shard-gone/model.safetensors.index.json").write_text(json.dumps(index))
    return root
