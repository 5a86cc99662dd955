"""Where a row is: the columns that are known before anything is measured, all that a skipped row has."""

from typing import Any

from schemas.config import ScanConfig, code_version
from schemas.refs import MatrixRef
from schemas.results import Role, RowStatus
from schemas.rows import LayerMetrics


def place(ref: MatrixRef, config: ScanConfig) -> LayerMetrics:
    """The row of `ref` before anything is measured: where it is, and why it is skipped if it is."""
    return LayerMetrics(**columns_of(ref, config))


def columns_of(ref: MatrixRef, config: ScanConfig) -> dict[str, Any]:
    """The columns of `place` that have a value, for a row that is to have more."""
    tensor, file, repo = ref.tensor, ref.tensor.file, ref.tensor.file.repo
    return {
        "repo_id": repo.repo_id,
        "revision": repo.revision,
        "file": file.path,
        "tensor": tensor.name,
        "file_sha256": file.sha256,
        "component": ref.component,
        "part": ref.part,
        "expert_id": ref.expert_id,
        "slice_id": ref.slice_id,
        "layer_index": ref.layer_index,
        "matrix_index": ref.index,
        "role": ref.role,
        "is_last": ref.is_last,
        "dtype": tensor.dtype,
        "quant_method": ref.quant_method,
        "shape": tensor.shape,
        "conv_mode": _conv_mode(ref, config),
        "config_fingerprint": config.fingerprint(),
        "code_version": code_version(),
        "status": RowStatus.SKIPPED if ref.skip else RowStatus.OK,
        "status_reason": ref.skip or ref.note,
        "lora_rank": ref.lora.rank if ref.lora else None,
        **_sides(ref),
    }


def _sides(ref: MatrixRef) -> dict[str, Any]:
    if len(ref.shape) < 2 or min(ref.shape[:2]) == 0:
        return {}
    m, n = sorted(ref.shape[:2])
    return {"N": n, "M": m, "Q": n / m, "kernel_size": ref.slices}


def _conv_mode(ref: MatrixRef, config: ScanConfig) -> str | None:
    if len(ref.shape) > 2:
        pooled = "fft" if config.matrices.transforms(ref.shape) else "pool"
        return pooled if ref.slice_id is None else "slice"
    of_conv = ref.role is Role.CONV or (ref.lora is not None and len(ref.tensor.shape) > 2)
    return "flatten" if of_conv else None
