"""One LoRA pair -> one row: norms and ranks of the update, and a tail fit where its rank allows one."""

from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import numpy as np

from scanner.place import place
from scanner.spectra.lowrank import solve_product
from scanner.spectra.metrics import alpha_weighted, log_alpha_norm, norms
from scanner.spectra.tailfit import fit_tail
from scanner.weights.lora import LoraWeights
from schemas.config import ScanConfig, estimator_of
from schemas.errors import NumericsError
from schemas.refs import MatrixRef
from schemas.results import BlockStatus, FailureKind, FitStatus, RowStatus, Spectrum, TailFit
from schemas.rows import LayerMetrics

_OFF: dict[str, Any] = {
    name: BlockStatus.OFF for name in ("bulk_status", "null_status", "alt_status", "base_status")
}
"""A matrix whose rank is given has no bulk, and its shuffled entries no meaning."""


def measure_lora(ref: MatrixRef, weights: LoraWeights, config: ScanConfig) -> LayerMetrics:
    """Metrics of the update c B A. Raises NumericsError for NaN or Inf in a factor.

    Cost: two thin QR factorisations (see spectra.lowrank); the product is never formed. Columns of single
    entries (w_mean and the like) stay NULL; a row is never `counted`.
    """
    started = perf_counter()
    spectrum = product_spectrum(weights)
    return replace(
        place(ref, config),
        status=RowStatus.OK,
        num_evals=spectrum.evals.size,
        spectrum_method=spectrum.method,
        device=spectrum.device,
        estimator=estimator_of(config.tail),
        lora_scale=weights.scale,
        num_nonfinite=0,
        **_OFF,
        **_scores(spectrum, config),
        secs=perf_counter() - started,
    )


def product_spectrum(weights: LoraWeights) -> Spectrum:
    """Eigenvalues of the update c B A by its factors; see spectra.lowrank.

    Raises NumericsError: nonfinite for NaN or Inf in a factor, eigensolver_error where the product of finite
    ones overflows.
    """
    _require_finite(weights)
    try:
        return solve_product(weights.left, weights.right, weights.scale)
    except NumericsError as error:
        if error.kind is not FailureKind.NONFINITE:
            raise
        raise NumericsError(
            FailureKind.EIGENSOLVER_ERROR, "the product overflows float64: rescale the factors"
        ) from error


def _require_finite(weights: LoraWeights) -> None:
    factors = (weights.left, weights.right, np.array([weights.scale]))
    bad = sum(int(part.size - np.count_nonzero(np.isfinite(part))) for part in factors)
    if bad:
        total = sum(part.size for part in factors[:2])
        failure = NumericsError(
            FailureKind.NONFINITE, f"{bad} of {total} entries of the factors, or their scale, are NaN or Inf"
        )
        failure.num_nonfinite = bad
        raise failure


def _scores(spectrum: Spectrum, config: ScanConfig) -> dict[str, Any]:
    scale = norms(spectrum)
    if scale is None:
        return {"fit_status": FitStatus.TOO_FEW_EVALS, "status_reason": "zero_matrix"}
    tail = fit_tail(spectrum, rules=config.tail)
    fit = asdict(tail)
    del fit["estimator"]
    return (
        asdict(scale) | {"fit_status": fit.pop("status")} | fit | _weighted(spectrum, tail, scale.lambda_max)
    )


def _weighted(spectrum: Spectrum, tail: TailFit, lambda_max: float) -> dict[str, Any]:
    if tail.alpha is None:
        return {}
    return {
        "alpha_weighted": alpha_weighted(tail.alpha, lambda_max),
        "log_alpha_norm": log_alpha_norm(spectrum.evals, tail.alpha),
    }
