"""Errors as rows."""

import hashlib
from datetime import UTC, datetime

from scanner.text import printable
from schemas.errors import ScanError
from schemas.results import Stage
from schemas.rows import Failure

_MAX_MESSAGE = 512


def failure_of(
    error: ScanError, stage: Stage, repo_id: str, revision: str | None = None, tensor: str | None = None
) -> Failure:
    """The stored form of an error; its id is the same whenever the same thing fails in the same place."""
    now = datetime.now(UTC)
    tensor = tensor or error.tensor
    place_of = "\0".join(str(x) for x in (repo_id, revision, error.file, tensor, stage, error.kind))
    return Failure(
        failure_id=hashlib.blake2b(place_of.encode(), digest_size=8).hexdigest(),
        repo_id=repo_id,
        revision=revision,
        file=error.file,
        tensor=tensor,
        stage=stage,
        kind=error.kind,
        message=printable(error.message)[:_MAX_MESSAGE],
        retryable=error.retryable,
        http_status=error.http_status,
        first_at=now,
        last_at=now,
    )
