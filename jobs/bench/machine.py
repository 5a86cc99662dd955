"""What figures depend on: processor, memory, BLAS libraries, versions, threads."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

_LIBRARIES = ("hubspectra", "numpy", "scipy", "numba", "torch", "ray", "duckdb", "pyarrow", "huggingface_hub")
_PEERS = ("weightwatcher", "powerlaw")
_THREADS = "OMP_NUM_THREADS"


def machine() -> dict[str, Any]:
    """The machine and its software, as plain JSON values."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "blas": sorted({_library(found) for found in threadpool_info()}),
        "threads": int(os.environ.get(_THREADS, "0")) or None,
        "load": load(),
        "versions": {name: found for name in (*_LIBRARIES, *_PEERS) if (found := _version(name))},
        "command": " ".join(["hubspectra", *sys.argv[1:]]),
    }


def load() -> float:
    """Load average of the last minute: above the threads in use, others were working too."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _library(found: dict[str, Any]) -> str:
    parts = (found["internal_api"], found.get("version"), found.get("architecture"))
    return f"{' '.join(str(part) for part in parts if part)}, {found['num_threads']} thread"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
