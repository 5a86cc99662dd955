"""What the first use of an installation says: kernels are compiled then, and nothing else seems to happen."""

import os
from importlib.util import find_spec
from pathlib import Path

import click

_SENTENCE = "compiling the numerical kernels, once on this machine: half a minute"


def tell_of_first_use() -> None:
    """Must come before the kernels are imported."""
    found = find_spec("scanner.spectra")
    if found and found.origin and kernels_are_missing(Path(found.origin).parent):
        click.echo(_SENTENCE, err=True)


def kernels_are_missing(place: Path) -> bool:
    """Whether numba's cache beside the source is empty; unknown, and so no, where nobody may write there."""
    return os.access(place, os.W_OK) and not any(place.glob("__pycache__/*.nbi"))
