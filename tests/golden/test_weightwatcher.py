"""Our WeightWatcher profile against WeightWatcher 0.7.7 itself, from an independent float64 SVD."""

import math
from pathlib import Path

import numpy as np
import pytest
from goldens import Golden, file_sha256, load, tensors_sha256
from numpy.typing import NDArray
from safetensors.numpy import load_file
from synthetic import tensors

from scanner.spectra.tailfit import fit_tail
from scanner.spectra.weightwatcher import compat_row, ww_has_row, ww_sides

RELATIVE = 1e-9
Tensors = dict[str, NDArray[np.float32]]

FIT_COLUMNS = {"alpha": "ww_alpha", "xmin": "ww_xmin", "xmax": "ww_xmax", "D": "ww_D", "sigma": "ww_sigma"}
COUNT_COLUMNS = {
    "num_pl_spikes": "ww_num_pl_spikes",
    "rank_loss": "ww_rank_loss",
    "weak_rank_loss": "ww_weak_rank_loss",
    "matrix_rank": "ww_matrix_rank",
}


def slice_singular_values(weight: NDArray[np.float32]) -> NDArray[np.float64]:
    slices = weight.astype(np.float64)
    slices = slices[None] if slices.ndim == 2 else np.moveaxis(slices, (2, 3), (0, 1))
    slices = slices.reshape(-1, *slices.shape[-2:])
    tall = slices if slices.shape[1] >= slices.shape[2] else slices.transpose(0, 2, 1)
    if tall.shape[1] > 2 * tall.shape[2]:
        tall = np.linalg.qr(tall, mode="r")
    return np.linalg.svd(tall, compute_uv=False)


def our_columns(weight: NDArray[np.float32]) -> dict[str, object]:
    N, M, slices = ww_sides(weight.shape)
    sigma = slice_singular_values(weight)
    row = compat_row(sigma, N, M, weight.ndim == 4)
    evals = sigma.ravel() ** 2 / (2.0 if weight.ndim == 4 else 1.0)
    alpha = -1.0 if row.ww_alpha is None else row.ww_alpha
    top = evals.max()
    fit = {name: getattr(row, ours) for name, ours in (FIT_COLUMNS | COUNT_COLUMNS).items()}
    if row.ww_status == "failed":
        fit |= dict.fromkeys(("alpha", "xmin", "D", "sigma", "num_pl_spikes"), -1)
    return fit | {
        "N": N,
        "M": M,
        "Q": N / M,
        "rf": slices,
        "num_evals": evals.size,
        "norm": evals.sum(),
        "log_norm": math.log10(evals.sum()),
        "spectral_norm": top,
        "log_spectral_norm": math.log10(top),
        "stable_rank": evals.sum() / top,
        "alpha_weighted": alpha * math.log10(top),
        "log_alpha_norm": alpha * math.log10(top) + math.log10(np.sum((evals / top) ** alpha)),
        "entropy": row.ww_entropy,
        "sv_min": row.ww_sv_min,
        "sv_max": math.sqrt(top),
        "warning": "over-trained" if alpha < 2.0 else "under-trained" if alpha > 6.0 else "",
        "status": row.ww_status,
    }


def differences(golden: Golden, weights: Tensors) -> list[str]:
    found = []
    for name, theirs in golden.layers.items():
        ours = our_columns(weights[f"{name}.weight"])
        floor = {"sv_min": 1e-14 * theirs["sv_max"]}
        for column, expected in theirs.items():
            if column == "name":
                continue
            got = ours[column]
            if isinstance(expected, float):
                same = got == pytest.approx(expected, rel=RELATIVE, abs=floor.get(column, 0.0))
            else:
                same = got == expected
            if not same:
                found.append(f"{name} {column}: expected {expected!r}, got {got!r}")
    return found


def matrices_with_row(weights: Tensors) -> set[str]:
    return {name.removesuffix(".weight") for name, w in weights.items() if ww_has_row(w.shape, name)}


@pytest.fixture(scope="module")
def minilm(minilm_file: Path) -> Tensors:
    return load_file(minilm_file)


def test_synthetic_layers_cover_every_rule() -> None:
    golden, weights = load("weightwatcher_synthetic"), tensors()
    assert tensors_sha256(weights) == golden.sha256
    assert set(golden.layers) == matrices_with_row(weights)
    assert differences(golden, weights) == []


@pytest.mark.parametrize("depth", [20, 56])
def test_cifar_resnets(models: Path, depth: int) -> None:
    file = models / "akamaster" / f"resnet{depth}-cifar10" / "model.safetensors"
    if not file.exists():
        pytest.skip(f"no {file}")
    golden, weights = load(f"weightwatcher_resnet{depth}"), load_file(file)
    assert file_sha256(file) == golden.sha256
    assert set(golden.layers) == matrices_with_row(weights)
    assert differences(golden, weights) == []


def test_minilm(minilm_file: Path, minilm: Tensors) -> None:
    golden = load("weightwatcher_minilm")
    assert file_sha256(minilm_file) == golden.sha256
    assert set(golden.layers) == matrices_with_row(minilm)
    assert differences(golden, minilm) == []


def test_absolute_cut_makes_weightwatcher_depend_on_scale_and_ours_not(minilm: Tensors) -> None:
    names = ("attention.output", "attention.self.key", "attention.self.query", "attention.self.value")
    names += ("intermediate", "output")
    expected_ours = (5.298, 2.576, 2.460, 4.015, 2.479, 3.248)
    expected_scaled = (None, 4.99, 3.57, None, 2.22, 3.67)
    for name, ours, scaled in zip(names, expected_ours, expected_scaled, strict=True):
        stem = name if name.startswith("attention.self") else f"{name}.dense"
        sigma = slice_singular_values(minilm[f"encoder.layer.0.{stem}.weight"])[0]
        assert fit_tail(sigma**2).alpha == pytest.approx(ours, abs=5e-4)
        for factor in (1e-3, 3e-4):
            evals = (factor * sigma) ** 2
            assert fit_tail(evals).alpha == pytest.approx(ours, abs=5e-4)
            compat = fit_tail(evals, "weightwatcher").alpha
            assert compat == (pytest.approx(scaled, abs=5e-3) if factor == 1e-3 else None)
