"""The C library's heap, asked to keep what is freed for the next matrix.

By default glibc returns blocks of megabytes to the kernel, which clears page by page what is wanted next: a
fifth of the CPU time of a scan of all-MiniLM (measured 2026-11).
"""

import ctypes
import os
import sys
from collections.abc import Mapping

KEPT_BYTES = 256 << 20
"""Free memory that a worker keeps at most."""

_LARGE = 64 << 20
"""Blocks from here on are few, and returned at once; buffers and blocks of matrices are smaller."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Names in glibc's malloc.h."""
_CHOICES = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Do so for this process, if its C library can; a choice made in the environment stands.

    All threads then share one heap, for those of threads are too small to keep a large buffer.
    """
    if sys.platform != "linux" or any(name.startswith(_CHOICES) for name in environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: KEPT_BYTES}
    return all([mallopt(name, value) for name, value in options.items()])
