"""Threads and kernels of the BLAS, decided before numpy is imported."""

from collections.abc import MutableMapping
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One BLAS thread a worker: more only wait for each other."""

CORETYPE = "OPENBLAS_CORETYPE"
_WIDE = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})


def prefer_wide_kernels(environ: MutableMapping[str, str], cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Ask OpenBLAS for its AVX-512 kernels on an AMD processor that has the instructions.

    The OpenBLAS of the numpy and scipy wheels takes AVX2 kernels on AMD processors newer than itself: Gram
    matrices at half the speed, eigenvalues at 0.8 of it (measured 2026-11). A choice already made stands.
    Does nothing for numpy once it is imported, nor on another maker's or operating system's machine.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    first = dict(_entries(text.split("\n\n", 1)[0]))
    if first.get("vendor_id") == "AuthenticAMD" and _WIDE.issubset(first.get("flags", "").split()):
        environ.setdefault(CORETYPE, "SkylakeX")


def _entries(processor: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in processor.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]
