"""Models made for measuring: random weights of real shapes, as safetensors files on disk."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Shape = tuple[int, ...]


def write_model(folder: Path, shards: Sequence[Iterable[Shape]]) -> Path:
    """Write float32 tensors, one file a shard, with the index that names them; returns `folder`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weight_map: dict[str, str] = {}
    for k, shapes in enumerate(shards):
        file = f"model-{k + 1:05}-of-{len(shards):05}.safetensors"
        state = {
            f"layers.{k}.block{i:05}.weight": rng.standard_normal(shape, dtype=np.float32)
            for i, shape in enumerate(shapes)
        }
        save_file(state, folder / file)
        weight_map |= dict.fromkeys(state, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
