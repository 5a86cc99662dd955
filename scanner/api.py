"""The science in a notebook: matrices, spectra, fits and whole scans without Ray or a lake."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from scanner.bases import Bases
from scanner.diagnosis.flags import judge
from scanner.pipeline import read_row, scan_unit
from scanner.place import place
from scanner.planning import plan_repository
from scanner.sources.base import Source
from scanner.sources.memory import MemorySource, as_stored
from scanner.sources.targets import open_source, parse_targets
from scanner.spectra import eigen
from scanner.spectra.device import card
from scanner.weights import decode
from scanner.weights.opened import open_weights
from scanner.weights.tensors import Upload, on_device
from schemas.config import ScanConfig, profile_config
from schemas.errors import NumericsError, ScanError
from schemas.events import Note
from schemas.refs import Buffer, MatrixRef
from schemas.results import FailureKind, FloatArray, Spectrum
from schemas.rows import Failure, LayerMetrics
from schemas.work import RepoPlan, Target

StateDict = Mapping[str, Any]


class Matrix:
    """One weight matrix as read: `name`, `part`, `role`, `layer_index`, stored `dtype`, and its `values`.

    A LoRA pair is the product of its factors, under the name of the A factor.
    """

    def __init__(self, ref: MatrixRef, *buffers: Buffer) -> None:
        self.ref = ref
        self.name = ref.tensor.name
        self.part = ref.part
        self.role = ref.role
        self.layer_index = ref.layer_index
        self.dtype = ref.tensor.dtype
        self.weights = open_weights(ref, buffers)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (out, in, k...) for a convolution."""
        return self.weights.shape

    @property
    def values(self) -> FloatArray:
        """The entries as float64, a fresh array."""
        return self.weights.block(slice(None), slice(None))

    def __repr__(self) -> str:
        part = f" {self.part}" if self.part else ""
        return (
            f"Matrix({self.name + part!r}, shape={self.shape}, dtype={self.dtype}, role={self.role.value!r})"
        )


class Rows(Iterator[LayerMetrics]):
    """The rows of a scan, made as they are asked for.

    `failures` has, for the repositories whose rows have come, what could not be read or computed: the rows of
    the lake's table of that name. A failed row names its own by `failure_id`; a file whose header is bad has
    no rows and is only there.
    """

    def __init__(self, start: Callable[[list[Failure]], Iterator[LayerMetrics]]) -> None:
        self.failures: list[Failure] = []
        self._rows = start(self.failures)

    def __next__(self) -> LayerMetrics:
        """The next row."""
        return next(self._rows)


def spectrum(weights: Any, *, method: str = "gram", device: str = "cpu") -> Spectrum:
    """Eigenvalues of W^T W of a numpy array, a torch tensor or a Matrix, exact in float64.

    2-D: one matrix. 3-D to 5-D: a convolution (out, in, k...), its kernel positions pooled. `method` svd
    also resolves eigenvalues below 1e-16 of the largest. See scanner.spectra.eigen.solve.
    """
    if isinstance(weights, Matrix):
        weights = weights.weights
    else:
        weights = _StoredArray(*as_stored(weights))
        if len(weights.shape) < 2 or 0 in weights.shape:
            raise ValueError(f"a spectrum needs a non-empty matrix, got shape {weights.shape}")
    return eigen.solve(weights, method=method) if device == "cpu" else _on_card(weights, method, device)


def read_matrices(target: str | Path | StateDict, **options: Any) -> Iterator[Matrix]:
    """Iterate over the weight matrices of a path, a hub repository or a state dict.

    Streams: one matrix is in memory at a time. `endpoint` and `token` are for the hub. Tensors that are no
    matrices (see `scan`, which reports them) are passed over; a file that can't be read is a RuntimeWarning.
    """
    for source, where in _opened(target, **options):
        plan = _planned(source, where, profile_config("default"))
        for text in _unread(plan):
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        for ref in plan.live:
            yield Matrix(ref, *read_row(source, ref))


def scan(
    target: str | Path | StateDict,
    profile: str = "default",
    *,
    config: ScanConfig | None = None,
    device: str = "cpu",
    **options: Any,
) -> Rows:
    """Iterate over the rows of `layers` for a path, a hub repository or a state dict.

    Rows come repository by repository, judged: siblings are compared before any row of a repository is
    yielded. Skipped and failed tensors are rows too; why rows failed, and files without any row, are in
    `failures` of what is returned. A file that can't be read is a RuntimeWarning too, and so is what
    `device`, a torch device or "cpu" for numpy, leaves to the CPU. Raises ScanError when a repository can't
    be read.
    """
    settled = config or profile_config(profile)

    def rows(failures: list[Failure]) -> Iterator[LayerMetrics]:
        for source, where in _opened(target, **options):
            done = _scanned(source, where, settled, device, partial(_sibling, source, **options))
            failures += done.failures
            for text in done.warnings:
                warnings.warn(text, RuntimeWarning, stacklevel=3)
            yield from done.rows

    return Rows(rows)


def compare(
    base: str | Path | StateDict,
    fine_tune: str | Path | StateDict,
    profile: str = "default",
    *,
    config: ScanConfig | None = None,
    device: str = "cpu",
    **options: Any,
) -> tuple[LayerMetrics, ...]:
    """Rows of a fine-tune, each held against the matrix of that name in `base`, judged.

    Both may be a path, a hub repository (owner/name@revision) or a state dict; neither's card is asked. See
    rel_delta, d_alpha, d_log_spectral_norm, subspace_overlap10, base_status and findings of the rows. Raises
    ScanError when either can't be read, ValueError when one names several models.
    """
    config = config or profile_config(profile)
    with ExitStack() as stack:
        source, where = _the_one(fine_tune, stack, options)
        other, there = _the_one(base, stack, options)
        done = _scanned(source, where, config, device, lambda _: other, given=there)
    for text in done.warnings:
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return done.rows


def _on_card(weights: eigen.Weights, method: str, device: str) -> Spectrum:
    if method != "gram":
        raise ValueError(f"method {method!r} runs on the CPU only; on {device} the method is gram")
    [answer] = card(device).solve([weights])
    if isinstance(answer, NumericsError):
        raise answer
    return answer.spectrum


class _Scanned(NamedTuple):
    """What came of one repository."""

    rows: tuple[LayerMetrics, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]


class _StoredArray:
    """Weights over an array in its stored type."""

    def __init__(self, dtype: str, array: Any) -> None:
        self._dtype, self._array = dtype, array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    def block(self, rows: slice, columns: slice) -> FloatArray:
        return decode.to_float64(self._array[rows, columns], self._dtype)

    def on_device(self, upload: Upload) -> Any:
        return on_device(self._array, self._dtype, upload)


def _scanned(
    source: Source,
    where: Target,
    config: ScanConfig,
    device: str,
    open_base: Callable[[Target], Source],
    given: Target | None = None,
) -> _Scanned:
    """One repository, its base's weights read through `open_base`, its rows judged."""
    bases = Bases(open_base, config, given)
    plan = _sound(bases.plan(source, where, source.repository(where.repo_id, where.revision)))
    outcomes = [
        out
        for unit in plan.units
        for out in scan_unit(source, unit, config, device, bases.source(where, unit))
    ]
    skipped = (place(ref, config) for ref in plan.skipped)
    rows = chain(skipped, (out for out in outcomes if isinstance(out, LayerMetrics)))
    return _Scanned(
        rows=judge(sorted(rows, key=lambda row: row.matrix_index), config.thresholds),
        failures=(*plan.failures, *(out for out in outcomes if isinstance(out, Failure))),
        warnings=(*_unread(plan), *(out.text for out in outcomes if isinstance(out, Note))),
    )


def _unread(plan: RepoPlan) -> tuple[str, ...]:
    """What of the repository has no row, and why; a base that can't be had is in the rows' base_status."""
    return tuple(f"{about.file}: {about.message}" for about in plan.failures if not about.only_of_base)


def _sibling(source: Source, where: Target, **options: Any) -> Source:
    """Where a base named by a card is read: beside a local model, or on the hub that `source` reads."""
    return source if where.root is None else open_source(where, **options)


def _the_one(
    target: str | Path | StateDict, stack: ExitStack, options: Mapping[str, Any]
) -> tuple[Source, Target]:
    """The source and the target of a model that is one, closed with `stack`."""
    if isinstance(target, Mapping):
        return MemorySource(target), Target(repo_id="memory/state_dict")
    found = parse_targets([str(target)])
    if len(found) != 1:
        raise ValueError(f"{target} holds {len(found)} models; name one of them")
    source = open_source(found[0], **options)
    stack.callback(source.close)
    return source, found[0]


def _planned(source: Source, where: Target, config: ScanConfig) -> RepoPlan:
    """The plan of a repository on its own."""
    return _sound(plan_repository(source, source.repository(where.repo_id, where.revision), config))


def _sound(plan: RepoPlan) -> RepoPlan:
    """A plan of which at least one file is readable."""
    if plan.failures and not plan.planned:
        first = plan.failures[0]
        raise ScanError(FailureKind(first.kind), first.message, file=first.file)
    return plan


def _opened(target: str | Path | StateDict, **options: Any) -> Iterator[tuple[Source, Target]]:
    if isinstance(target, Mapping):
        yield MemorySource(target), Target(repo_id="memory/state_dict")
        return
    for where in parse_targets([str(target)]):
        source = open_source(where, **options)
        try:
            yield source, where
        finally:
            source.close()
