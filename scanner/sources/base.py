"""The one interface behind which a hub, a folder and a state dict look alike."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from schemas.refs import Buffer, FileRef, Repository

Span = tuple[int, int]
"""Absolute byte offsets (start, stop) in a file."""

READ = (".safetensors", ".json")
"""Endings of the files that a scan may read; others are at most listed."""

COMMIT = re.compile(r"[0-9a-f]{40}")
"""A whole commit hash, which is what repositories are pinned to."""


class Source(Protocol):
    """Pins repositories and reads byte ranges of their files. Not thread-safe: one per worker thread."""

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """Pin `repo_id` to a commit and list its files. Raises SourceError."""

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Return exactly the bytes start..stop of `file`. Raises SourceError."""

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield one buffer for each span, in order; spans ascend and do not overlap.

        A whole file in one pass where that is cheaper than one request a span. Raises SourceError.
        """

    def waits(self, file: FileRef, spans: Sequence[Span]) -> bool:
        """Whether to read them is to wait, for a network or a disk: then a thread may read ahead."""

    def close(self) -> None:
        """Release connections; the source can be used again afterwards."""
