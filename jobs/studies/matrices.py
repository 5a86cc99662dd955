"""Random matrices of known kind, and what the scanner says of one matrix."""

from collections.abc import Mapping

import numpy as np

from scanner.api import scan
from schemas.config import ScanConfig, Stages
from schemas.results import FloatArray
from schemas.rows import LayerMetrics

WITH_NULL = ScanConfig(stages=Stages(null_model=True))
"""The default and the permutation null, which finds correlation traps."""


def gaussian(rows: int, columns: int, seed: int) -> FloatArray:
    """Independent standard normal entries."""
    return np.random.default_rng(seed).standard_normal((rows, columns))


def student(rows: int, columns: int, freedom: float, seed: int) -> FloatArray:
    """Independent entries of Student's t."""
    return np.random.default_rng(seed).standard_t(freedom, (rows, columns))


def decaying(rows: int, columns: int, power: float, seed: int) -> FloatArray:
    """Gaussian rows whose covariance has the eigenvalues i^-power."""
    return gaussian(rows, columns, seed) * np.arange(1, columns + 1) ** (-power / 2)


def spiked(rows: int, columns: int, thetas: FloatArray, seed: int) -> FloatArray:
    """Gaussian plus rank-one terms theta sqrt(rows) u v^T of unit vectors."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((rows, columns))
    for theta in thetas:
        u, v = rng.standard_normal(rows), rng.standard_normal(columns)
        made += theta * np.sqrt(rows) * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    return made


def low_rank(rows: int, columns: int, rank: int, seed: int) -> FloatArray:
    """Product of two Gaussian matrices."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))


def measured(matrix: FloatArray, config: ScanConfig | None = None) -> LayerMetrics:
    """The row of one matrix, as any scan would store it."""
    (row,) = rows_of({"matrix.weight": matrix}, config)
    return row


def rows_of(tensors: Mapping[str, FloatArray], config: ScanConfig | None = None) -> list[LayerMetrics]:
    """The judged rows of a state dict."""
    return list(scan(tensors, config=config))
