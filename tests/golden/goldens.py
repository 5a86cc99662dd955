"""Golden files: the layer tables of other programs, stored with the input they were made from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Golden:
    """One table: `layers` maps a layer's name (of a slice: name:slice) to its columns, `sha256` names the input."""

    source: str
    sha256: str
    versions: dict[str, str]
    layers: dict[str, dict[str, Any]]


def load(name: str) -> Golden:
    """Read the golden file `name`.json."""
    raw = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rows = (dict(zip(raw["columns"], row, strict=True)) for row in raw["layers"])
    return Golden(raw["source"], raw["sha256"], raw["versions"], {_key(row): row for row in rows})


def save(name: str, golden: Golden) -> None:
    """Write `golden` as JSON with one layer a line and floats at full precision."""
    columns = list(next(iter(golden.layers.values())))
    rows = ",\n".join(json.dumps([row[c] for c in columns]) for row in golden.layers.values())
    head = {"source": golden.source, "sha256": golden.sha256, "versions": golden.versions, "columns": columns}
    text = json.dumps(head, indent=1)[:-2] + ',\n "layers": [\n' + rows + "\n]}\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['name']}:{row['slice_id']}" if "slice_id" in row else str(row["name"])


def file_sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Hash names, dtypes, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name, values in tensors.items():
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
