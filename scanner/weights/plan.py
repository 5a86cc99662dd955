"""Matrices -> work units, bounded by bytes and by arithmetic, named by what they hold."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod

from schemas.config import ScanConfig, WorkLimits
from schemas.refs import MatrixRef, RepoRef, WorkUnit

GRAM_RATE = 4.5e10
EIGEN_RATE = 4e10
EIGEN_SQUARE = 3e-9
SVD_FACTOR = 3.5
ROW_SECONDS = 3e-4
PAIR_FACTOR = 2.5
"""Measured 2026-11 on one core of an AVX-512 machine: N M^2 / GRAM_RATE, 4/3 M^3 / EIGEN_RATE +
EIGEN_SQUARE M^2 for one of eight, an SVD SVD_FACTOR times both (2.7 to 5.5), and all else of a row; within
1.4 of the measured eigenvalue times for M = 64 .. 4096. A pair adds PAIR_FACTOR rows: 2.2 to 2.4 for
M = 768 .. 2048, 1.8 to 3.3 below."""

SHUFFLE_SECONDS = 4e-8
FITS_SECONDS = 1e-3
REPLICATE_SECONDS, REPLICATE_EVAL = 8e-6, 2.5e-8
VECTORS_FACTOR, VECTOR_SECONDS = 2.5, 4e-5
COMPLEX_FACTOR = 10.0
GRID = 32
"""What stages add, measured likewise for M = 16 .. 1024 and convolutions of 9 slices: an entry shuffled, the
rivals of the power law (or the refits of the estimators), a replicate and its share of an eigenvalue,
eigenvectors in spectra and each one's entropy, a transform and its complex solve in real ones (7 to 16); the
grid of conv_mode fft."""


def cost(row: MatrixRef, method: str) -> float:
    """Estimated seconds of one core to analyse `row`, without the stages that a config may add."""
    m, n = sorted(row.shape[:2])
    if row.lora:
        return 2 * (m + n) * row.lora.rank**2 / EIGEN_RATE + ROW_SECONDS
    spectrum = row.slices * _solve_seconds(n, m)
    own = spectrum * (SVD_FACTOR if method == "svd" else 1.0) + ROW_SECONDS
    return own + (PAIR_FACTOR * (spectrum + ROW_SECONDS) if row.partner else 0.0)


def row_cost(row: MatrixRef, config: ScanConfig) -> float:
    """Estimated seconds of one core to analyse `row` with all that `config` asks for."""
    own = cost(row, config.spectrum.method)
    return own + _more_spectra(row, config) + _more_fits(row, config)


def _more_spectra(row: MatrixRef, config: ScanConfig) -> float:
    """Seconds of stages that solve, or shuffle, the matrix again, or its windows, or its transform."""
    m, n = sorted(row.shape[:2])
    stages, pairs = config.stages, 2 if row.partner else 1
    spectrum = row.slices * _solve_seconds(n, m)
    more = 0.0
    if config.matrices.transforms(row.shape):
        more = (2 * pairs - 1) * (_frequencies(row) * COMPLEX_FACTOR * _solve_seconds(n, m) - spectrum)
        spectrum += more
    if stages.null_model:
        more += pairs * (spectrum + SHUFFLE_SECONDS * m * n * row.slices)
    if stages.vectors:
        more += VECTORS_FACTOR * spectrum
    if stages.cka and row.partner:
        more += 3 * n * m**2 / GRAM_RATE
    return more + (_windows(row) if stages.estimators else 0.0)


def _more_fits(row: MatrixRef, config: ScanConfig) -> float:
    """Seconds of stages that look at the eigenvalues or vectors alone."""
    stages, evals = config.stages, min(row.shape[:2]) * row.slices
    more = FITS_SECONDS * (stages.alternatives + stages.estimators)
    more += stages.bootstrap * (REPLICATE_SECONDS + REPLICATE_EVAL * evals)
    return more + (VECTOR_SECONDS * evals if stages.vectors else 0.0)


def _windows(row: MatrixRef) -> float:
    """Seconds for the square windows of the fixed-aspect estimator."""
    m, n = sorted(row.shape[:2])
    side = min(m, 256)
    count = prod(1 if length == side else max(2, min(4, -(-length // side))) for length in (m, n))
    return row.slices * count * _solve_seconds(side, side)


def _solve_seconds(n: int, m: int) -> float:
    return n * m**2 / GRAM_RATE + 4 / 3 * m**3 / EIGEN_RATE + EIGEN_SQUARE * m**2


def _frequencies(row: MatrixRef) -> int:
    """Frequencies of a convolution on its grid that are solved: half of them, for the kernel is real."""
    *others, last = (max(GRID, side) for side in row.shape[2:])
    return prod(others) * (last // 2 + 1)


def peak_bytes(row: MatrixRef, block: int) -> int:
    """Bytes a worker needs beyond the stored matrices it holds: Gram matrix, LAPACK's copy, one block."""
    m, n = sorted(row.shape[:2])
    if row.lora:
        return 8 * 3 * (m + n) * row.lora.rank
    own = 8 * row.slices * (2 * m**2 + min(block, n) * m)
    return own + (8 * row.slices * 2 * m**2 if row.partner else 0)


def plan_units(
    repo: RepoRef, rows: Sequence[MatrixRef], config: ScanConfig, limits: WorkLimits
) -> tuple[WorkUnit, ...]:
    """Cut the rows of a repository, in order, into units: each is in one, and a skipped one in none.

    Rows that share bytes stay together; a single matrix larger than the bounds is a unit of its own.
    """
    live = [row for row in rows if not row.skip]
    return tuple(_unit(repo, group, work, config) for group, work in _groups(live, config, limits))


def _groups(
    rows: Sequence[MatrixRef], config: ScanConfig, limits: WorkLimits
) -> Iterator[tuple[tuple[MatrixRef, ...], float]]:
    """Groups of rows, each with its estimated seconds."""
    group: list[MatrixRef] = []
    size = work = 0.0
    for _, same_bytes in groupby(rows, key=lambda r: (r.tensor.file.path, r.start, r.stop)):
        batch = tuple(same_bytes)
        batch_size = max(row.pair_bytes for row in batch)
        batch_work = sum(row_cost(row, config) for row in batch)
        if group and (size + batch_size > limits.unit_bytes or work + batch_work > limits.unit_cost):
            yield tuple(group), work
            group, size, work = [], 0.0, 0.0
        group += batch
        size, work = size + batch_size, work + batch_work
    if group:
        yield tuple(group), work


def _unit(repo: RepoRef, rows: tuple[MatrixRef, ...], work: float, config: ScanConfig) -> WorkUnit:
    seen = {(r.tensor.file.path, r.start): r.pair_bytes for r in rows}
    return WorkUnit(
        unit_id=_unit_id(repo, rows, config.fingerprint()),
        repo=repo,
        matrices=rows,
        nbytes=sum(seen.values()),
        cost=work,
    )


def _against(row: MatrixRef) -> tuple[object, ...] | None:
    """What a row is compared with: another commit of the base is other work."""
    base = row.base
    if base.repo is None:
        return None
    held = (base.matrix.tensor.file.content_id, base.matrix.start) if base.matrix else None
    return base.status.value, base.repo.repo_id, base.repo.revision, held


def _unit_id(repo: RepoRef, rows: Sequence[MatrixRef], fingerprint: str) -> str:
    digest = hashlib.blake2b(f"{fingerprint}\0{repo.repo_id}\0{repo.revision}".encode(), digest_size=12)
    for row in rows:
        place = (
            row.tensor.file.content_id,
            row.tensor.file.path,
            row.tensor.name,
            row.start,
            row.stop,
            row.slice_id,
            row.component,
            row.part,
            row.lora and (row.lora.rank, row.lora.gain),
            _against(row),
        )
        digest.update(repr(place).encode())
    return digest.hexdigest()
