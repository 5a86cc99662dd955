"""Rows to begin with: a test names what it is about and leaves the rest as it is here."""

from datetime import UTC, datetime

from schemas.rows import Failure, LayerMetrics

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ROW = LayerMetrics(
    repo_id="owner/name",
    revision="0" * 40,
    file="model.safetensors",
    tensor="x.weight",
    matrix_index=0,
    role="q",
    is_last=False,
    dtype="F32",
    shape=(1000, 1000),
    status="ok",
)
"""A row of which only the place is known."""


def failure(message: str = "it broke", *, retryable: bool = False, **about: str) -> Failure:
    known = {"failure_id": "f" * 16, "repo_id": "owner/name", "stage": "read", "kind": "stalled"}
    return Failure(message=message, retryable=retryable, first_at=NOW, last_at=NOW, **(known | about))
