"""Heavy-tailed spectra of neural-network weights: read matrices, compute spectra, fit tails, scan models.

    from scanner import fit_tail, read_matrices, scan, spectrum

Importing this package imports neither torch nor numba: they come with the first call that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanner.api import Matrix, compare, read_matrices, scan, spectrum
    from scanner.spectra.tailfit import fit_tail

__all__ = ["Matrix", "compare", "fit_tail", "read_matrices", "scan", "spectrum"]

_HOMES = {"fit_tail": "scanner.spectra.tailfit"} | dict.fromkeys(
    ("Matrix", "compare", "read_matrices", "scan", "spectrum"), "scanner.api"
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scanner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
