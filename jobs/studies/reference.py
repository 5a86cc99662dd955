"""Published numbers, facts with a source, and the folders outside this project where studies find data."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.studies.study import NotAvailable

Rows = Sequence[Mapping[str, str]]

FOLDER = "HUBSPECTRA_REFERENCE"
_DATA = "github.com/CalculatedContent/ww-trends-2020@efe4723"


def outside(variable: str, name: str) -> Path:
    """The folder that an environment variable names, else `name` beside the checkout; it may not be there."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / name
    return Path(os.environ.get(variable, beside))


def published(name: str) -> Rows:
    """Rows of a table of published numbers. Raises NotAvailable when it is not here."""
    path = outside(FOLDER, "reference") / name
    if not path.is_file():
        raise NotAvailable(f"needs {name} (numbers of {_DATA}) in the folder named by {FOLDER}")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
