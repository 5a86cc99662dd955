"""The C library's heap, asked to keep what is freed for the next matrix, and Arrow's for the next rows.

By default glibc returns blocks of megabytes to the kernel, which clears page by page what is wanted next: a
fifth of the CPU time of a scan of all-MiniLM, and as much of a compaction (measured 2026-11).
"""

import ctypes
import os
import sys
from collections.abc import Mapping

KEPT_BYTES = 256 << 20
"""Free memory that a worker keeps at most."""

_LARGE = 64 << 20
"""Blocks from here on are few, and returned at once; buffers and blocks of matrices are smaller."""

KEEPING = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_LARGE),
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
}
"""The environment of a process that keeps its memory from the start.

All threads share one heap, for those of threads are too small to keep a large buffer. A process that has had
threads can no longer be brought to that: Ray's workers have had many.
"""

ARROW = {"MIMALLOC_PURGE_DELAY": "10000"}
"""The environment in which Arrow's heap keeps what is freed for ten seconds; before pyarrow is imported."""

_NAMES = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""The same in glibc's malloc.h."""
_CHOICES = ("MALLOC_", "GLIBC_TUNABLES")


def keeping(environ: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """`KEEPING`, or nothing where a choice was made in this environment."""
    return {} if any(name.startswith(_CHOICES) for name in environ) else KEEPING


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Ask for that in this process, if its C library can; a choice made in the environment stands."""
    if sys.platform != "linux" or not keeping(environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_NAMES[name], int(value)) for name, value in KEEPING.items()])
