"""Published numbers: facts with a source, kept outside this project and read where they are present."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.studies.study import NotAvailable

Rows = Sequence[Mapping[str, str]]

FOLDER = "HUBSPECTRA_REFERENCE"
_DATA = "github.com/CalculatedContent/ww-trends-2020@efe4723"


def published(name: str) -> Rows:
    """Rows of a table of published numbers. Raises NotAvailable when it is not here."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
    path = Path(os.environ.get(FOLDER, beside)) / name
    if not path.is_file():
        raise NotAvailable(f"needs {name} (numbers of {_DATA}) in the folder named by {FOLDER}")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
