"""One matrix -> one row of `layers`: the science composed, without I/O."""

from collections.abc import Callable
from math import sqrt
from time import perf_counter
from typing import Any

import numpy as np

from scanner.anatomy import Anatomy, anatomy, spectrum_of
from scanner.place import columns_of
from scanner.spectra import eigen
from scanner.spectra.alternatives import fit_alternatives
from scanner.spectra.bootstrap import bootstrap_p
from scanner.spectra.bulk import BulkFit, fit_bulk
from scanner.spectra.certificate import certified_singular_values
from scanner.spectra.device import Solved
from scanner.spectra.erg import fit_erg
from scanner.spectra.estimators import farms_alpha, fit_clipped, fit_peak
from scanner.spectra.metrics import Norms, alpha_weighted, log_alpha_norm, norms
from scanner.spectra.moments import Moments
from scanner.spectra.null import compare_to_null, null_seed, randomised
from scanner.spectra.phases import classify
from scanner.spectra.quantiles import esd_quantiles
from scanner.spectra.vectors import vector_entropies
from scanner.spectra.weightwatcher import compat_row, ww_has_row, ww_sides
from schemas.config import ESTIMATOR, ScanConfig, estimator_of
from schemas.records import blank, remade
from schemas.refs import MatrixRef
from schemas.results import (
    BlockStatus,
    FitStatus,
    Role,
    RowStatus,
    Spectrum,
    TailFit,
)
from schemas.rows import LayerMetrics

_state: Callable[[Any], Any] = object.__getstate__
_UNCOUNTED = frozenset({Role.EMBED, Role.POS_EMBED, Role.LM_HEAD, Role.LORA})


def measure(
    ref: MatrixRef,
    weights: eigen.Weights,
    config: ScanConfig,
    solved: Solved | None = None,
    keep: Callable[[Anatomy], None] | None = None,
) -> LayerMetrics:
    """Every metric of one matrix. Raises NumericsError with the row's place when the solver is defeated.

    `solved` is what a device, or a solve in company, made of it; `keep` is given what was taken apart, with
    its Gram matrix if the host made one. Cost: without `solved` the eigenvalues (see spectra.eigen.solve);
    all else is O(n log n) in their number and one pass over the entries.
    """
    started = perf_counter() - (solved.secs if solved else 0.0)
    method = "svd" if wants_svd(ref, config) else None
    own = anatomy(weights, config, method, with_gram=keep is not None, solved=solved)
    compat = _weightwatcher(ref, weights, own.spectrum, config)
    if compat is None:
        exact = anatomy(weights, config, "svd")
        own = Anatomy(exact.moments, exact.spectrum, exact.tail, own.gram)
        compat = _weightwatcher(ref, weights, own.spectrum, config) or {}
    if keep is not None:
        keep(own)
    moments, spectrum, tail = own.moments, own.spectrum, own.tail
    row = blank(LayerMetrics)
    row |= columns_of(ref, config)
    row |= {
        "status": RowStatus.OK,
        "num_evals": spectrum.evals.size,
        "spectrum_method": spectrum.method,
        "device": spectrum.device,
        "estimator": estimator_of(config.tail),
        "counted": tail.status == FitStatus.OK and ref.role not in _UNCOUNTED,
        **_base(ref),
        **_entries(moments),
        **_scores(spectrum, tail, config),
        **_rivals(spectrum, tail, config),
        **_estimates(weights, spectrum, tail, config),
        **_bootstrap(ref, spectrum, tail, config),
        **_shapes(weights, spectrum, tail, config),
        **null_block(ref, weights, own, config),
        **compat,
        "secs": perf_counter() - started,
    }
    return remade(LayerMetrics, row.values())


def _base(ref: MatrixRef) -> dict[str, Any]:
    """What the row is held against; its numbers are scanner.pairs' part."""
    base = ref.base
    return {
        "base_status": base.status,
        "base_repo_id": base.repo.repo_id if base.repo else None,
        "base_revision": base.repo.revision if base.repo else None,
        "base_tensor": base.matrix.tensor.name if base.matrix else None,
    }


def _entries(moments: Moments) -> dict[str, Any]:
    return {
        "num_nonfinite": moments.num_nonfinite,
        "zero_frac": moments.zero_frac,
        "w_mean": moments.mean,
        "w_std": moments.std,
        "w_abs_max": moments.abs_max,
        "w_kurtosis": moments.kurtosis,
    }


def _scores(spectrum: Spectrum, tail: TailFit, config: ScanConfig) -> dict[str, Any]:
    scale = norms(spectrum)
    bulk = fit_bulk(spectrum, config.bulk)
    statuses = {"fit_status": tail.status, "bulk_status": bulk.status}
    if scale is None:
        return statuses | {"status_reason": "zero_matrix"}
    return {
        **statuses,
        **_columns(scale),
        **_columns(bulk),
        **_columns(tail),
        **_derived(spectrum, scale, bulk, tail, config),
    }


def _columns(record: Any) -> dict[str, Any]:
    """The fields of a result record by name, as pickle reads them; `asdict` would copy every value."""
    found: dict[str, Any] = _state(record)[1]
    found.pop("status", None)
    found.pop("estimator", None)
    return found


def _derived(
    spectrum: Spectrum, scale: Norms, bulk: BulkFit, tail: TailFit, config: ScanConfig
) -> dict[str, Any]:
    share = config.thresholds.rank0_share
    phase = classify(scale, bulk, tail, spectrum.evals.size, share)
    erg = _columns(fit_erg(spectrum.evals, tail, scale.norm)) if config.stages.erg else {}
    if tail.alpha is None:
        return {"phase": phase} | erg
    return erg | {
        "phase": phase,
        "alpha_weighted": alpha_weighted(tail.alpha, scale.lambda_max),
        "log_alpha_norm": log_alpha_norm(spectrum.evals, tail.alpha),
    }


def _rivals(spectrum: Spectrum, tail: TailFit, config: ScanConfig) -> dict[str, Any]:
    if not config.stages.alternatives:
        return {"alt_status": BlockStatus.OFF}
    fit = fit_alternatives(spectrum.evals, tail, rules=config.tail)
    return {"alt_status": fit.status} | _columns(fit)


def _estimates(
    weights: eigen.Weights, spectrum: Spectrum, tail: TailFit, config: ScanConfig
) -> dict[str, Any]:
    if not config.stages.estimators:
        return {}
    peak = fit_peak(spectrum.evals, config.tail)
    clipped = fit_clipped(spectrum.evals, tail, config.tail)
    return _columns(peak) | _columns(clipped) | {"alpha_farms": farms_alpha(weights, config.tail)}


def _bootstrap(ref: MatrixRef, spectrum: Spectrum, tail: TailFit, config: ScanConfig) -> dict[str, Any]:
    if not config.stages.bootstrap or tail.estimator != ESTIMATOR or tail.status != FitStatus.OK:
        return {}
    reps, seed = config.stages.bootstrap, _seed(ref, config)
    fit = bootstrap_p(spectrum.evals, tail, config.tail, reps=reps, seed=seed)
    return {
        "p_boot": fit.p_boot,
        "boot_reps": fit.boot_reps,
        "alpha_boot_stderr": fit.boot_alpha_stderr,
    }


def _shapes(weights: eigen.Weights, spectrum: Spectrum, tail: TailFit, config: ScanConfig) -> dict[str, Any]:
    """The spectrum in a few numbers, and how localised its vectors are."""
    found: dict[str, Any] = {}
    if config.stages.quantiles:
        found["esd_quantiles"] = esd_quantiles(spectrum.evals, config.tail)
    if config.stages.vectors and tail.xmin is not None and not config.matrices.transforms(weights.shape):
        found |= _columns(vector_entropies(weights, tail.xmin))
    return found


def _seed(ref: MatrixRef, config: ScanConfig) -> int:
    """One seed a row, the same wherever it is computed."""
    repo, part = ref.tensor.file.repo, f"{ref.part} {ref.expert_id} {ref.slice_id}"
    return null_seed(config.stages.seed, repo.repo_id, repo.revision, ref.tensor.name, part)


def null_block(ref: MatrixRef, weights: eigen.Weights, own: Anatomy, config: ScanConfig) -> dict[str, Any]:
    """The null columns: the same statistics of the same entries, shuffled."""
    if not config.stages.null_model:
        return {"null_status": BlockStatus.OFF}
    seed = _seed(ref, config)
    shuffled = spectrum_of(randomised(weights, seed), config, method="gram")
    fit = compare_to_null(own.spectrum, shuffled, own.moments, config.bulk)
    known = {"rand_seed": seed} if fit.status == BlockStatus.OK else {}
    return {"null_status": fit.status} | known | _columns(fit)


def _ww_asks(ref: MatrixRef, config: ScanConfig) -> bool:
    """Whether the row is one of WeightWatcher's."""
    shape = ref.tensor.shape
    if config.profile != "weightwatcher" or ref.shape != shape or config.matrices.transforms(shape):
        return False
    return ww_has_row(shape, ref.tensor.name, pool=ref.slice_id is None)


def wants_svd(ref: MatrixRef, config: ScanConfig) -> bool:
    """Whether no other spectrum will do: of the config's own wish, or for options without a certificate."""
    fingers = config.weightwatcher.fix_fingers != "off" and _ww_asks(ref, config)
    return fingers or config.spectrum.method == "svd"


def _weightwatcher(
    ref: MatrixRef, weights: eigen.Weights, spectrum: Spectrum, config: ScanConfig
) -> dict[str, Any] | None:
    """WeightWatcher's columns; empty where it has no row, None where they are not certain without an SVD."""
    if not _ww_asks(ref, config):
        return {}
    n, m, kernel = ww_sides(ref.tensor.shape)
    conv, slice_of = len(ref.tensor.shape) == 4, 1 if ref.slice_id is None else kernel
    if spectrum.method == "svd_f64":
        sigma = np.sqrt(spectrum.evals[None] if spectrum.slices is None else spectrum.slices)
        fix_fingers = config.weightwatcher.fix_fingers
        return _columns(compat_row(sigma, n, m, conv, slice_of=slice_of, fix_fingers=fix_fingers))
    certain = certified_singular_values(weights, spectrum, sqrt(slice_of / 2.0) if conv else 1.0)
    if certain is None:
        return None
    row = compat_row(certain.sigma, n, m, conv, slice_of=slice_of, fitted=certain.fitted)
    return _columns(row) | {"hard_rank": certain.hard_rank}
