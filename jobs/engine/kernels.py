"""Whether the compiled kernels are there: the first scan of an installation makes them, and begins late."""

import os
from pathlib import Path

import scanner

FIRST_USE = "the numerical kernels are being compiled, once on this machine: about half a minute"


def are_missing(package: Path = Path(scanner.__file__).parent) -> bool:
    """Whether numba's cache beside the source is empty; unknown, and so no, where nobody may write there."""
    place = package / "spectra"
    return os.access(place, os.W_OK) and not any(place.glob("__pycache__/*.nbi"))
