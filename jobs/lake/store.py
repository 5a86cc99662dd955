"""The lake on disk: Parquet parts that appear whole or not at all, and are their own completion markers.

    lake.json                 what this folder is, its schema version, its live generation
    layers/KEY.parquet        all rows of one repository
    repositories/KEY.parquet  the plan's promise and the hub's facts, one row a component: it means "done"
    repositories/KEY.retry.parquet  the same with units given up for now: the next scan completes it
    failures/KEY.parquet      what failed, and what failed once and is resolved
    models/models.parquet     snapshot of the `models` view
    runs/SCAN.parquet         one row a scan
    staging/UNIT.parquet      finished units of an unfinished repository (UNIT.failures.parquet beside it)

KEY names repository, commit and config, so the same work always has the same name. A repository's own part
is written last: whatever a crash leaves behind is either complete or redone, and who sees a repository sees
all its layers. Small models that end within seconds of each other share a part of layers and one of
repositories, both named SCAN-00000.shared (gathering.py); one that failed has parts of its own. After a
compaction the parts of a table lie in a folder of their generation (generations.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from jobs.lake.files import write_part, write_table
from jobs.lake.gathering import Gathering, Model
from jobs.lake.generations import (
    EMPTY,
    KEY,
    PART_KEY,
    folder,
    loose,
    merged,
    open_lake,
    read_marker,
    shared,
    shared_part,
    sweep,
    write_marker,
)
from jobs.lake.halves import measured_first
from scanner.diagnosis.flags import judge, model_findings
from scanner.place import place
from schemas.config import ScanConfig
from schemas.errors import LakeError
from schemas.refs import RepoRef
from schemas.rows import Failure, LayerMetrics, RepositoryRow, RunRow
from schemas.tables import SCHEMAS, from_table, to_table
from schemas.work import RepoPlan, UnitResult

PART_FOLDERS = ("layers", "repositories", "failures", "models", "runs")
RETRY = ".retry"
"""Ends the name of a repository's part that the next scan is to complete."""


class Store:
    """The single writer of a lake; use `Store.writing(path)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = read_marker(path)[1]
        self._staging = path / "staging"
        self._waiting = Gathering()

    @classmethod
    @contextmanager
    def writing(cls, path: Path) -> Iterator["Store"]:
        """Create or open the lake at `path` and hold its lock.

        Raises LakeError when the folder holds something else, a newer lake, or another scan's lock. The
        lock dies with its process, however that ends.
        """
        _create(path)
        open_lake(path)
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise LakeError(
                f"another scan is writing to {path}: wait for it, stop it, or give another --lake folder"
            ) from error
        try:
            store = cls(path)
            sweep(path, store.generation)
            store._forget_half_published()
            store._close_lost_runs()
            ended = False
            try:
                yield store
                ended = True
            finally:
                with nullcontext() if ended else suppress(LakeError):  # an earlier error has the word
                    store.flush()
        finally:
            lock.release()

    def done(self) -> frozenset[str]:
        """Keys of the repositories that need no more work."""
        parts = self.folder("repositories")
        keys = (name for name in loose(parts) if not name.endswith(RETRY))
        return frozenset(keys) | frozenset(_keys_in(*shared(parts), *merged(parts)))

    def staged(self) -> frozenset[str]:
        """Ids of the finished units of unfinished repositories."""
        names = (path.name.removesuffix(".parquet") for path in self._staging.glob("*.parquet"))
        return frozenset(name for name in names if "." not in name)

    def stage(self, result: UnitResult) -> None:
        """Keep one unit's outcome until its repository is complete."""
        self._write("failures", self._staging / f"{result.unit_id}.failures.parquet", result.failures)
        self._write("layers", self._staging / f"{result.unit_id}.parquet", result.rows)

    def commit(
        self, plan: RepoPlan, held: Sequence[UnitResult], config: ScanConfig, scan_id: str
    ) -> tuple[tuple[LayerMetrics, ...], tuple[Failure, ...]]:
        """Publish a repository whose units are all staged or `held` in memory; returns rows and failures.

        Rows are judged here, where all siblings are known. Staged units of a repository with given-up
        units stay, so that the next scan redoes only what is missing. A small one of which there is nothing
        else in the lake may wait for others: `flush` is due within seconds.
        """
        key = plan.ref.part_key(config.fingerprint())
        in_memory = {result.unit_id for result in held}
        staged = [unit.unit_id for unit in plan.units if unit.unit_id not in in_memory]
        outcomes = [*map(self._unstage, staged), *((r.rows, r.failures) for r in held)]
        skipped = (place(ref, config) for ref in plan.skipped)
        found = chain(skipped, *(part for part, _ in outcomes))
        rows = judge(sorted(found, key=lambda row: row.matrix_index), config.thresholds)
        failures = [*plan.failures, *(failure for _, part in outcomes for failure in part)]
        about = tuple(_completed(row, rows, plan, config, scan_id) for row in plan.components)
        model = Model(key=key, rows=rows, about=about, scan_id=scan_id)
        if model.small and not staged and not failures and not self._met(key):
            self._gather(model)
            return rows, ()
        recorded = self.record(key, failures, scan_id)
        self._publish(model, retry=any(failure.retryable for failure in failures))
        if not any(failure.retryable for failure in failures):
            self._clear(staged)
        return rows, recorded

    def flush(self, waited: float = 0.0) -> None:
        """Write the small models that wait, if the first of them has waited so many seconds."""
        if self._waiting.waited(waited):
            models = self._waiting.taken()
            if len(models) == 1:
                self._publish(models[0], retry=False)
            else:
                self._publish_together(models)

    def record(self, key: str, failures: Sequence[Failure], scan_id: str) -> tuple[Failure, ...]:
        """Write the failures of one repository or target; earlier ones that did not recur are resolved."""
        earlier = {f.failure_id: f for f in self._recorded(key)}
        current = {f.failure_id: _seen_again(f, earlier.get(f.failure_id), scan_id) for f in failures}
        resolved = {i: replace(f, resolved=True) for i, f in earlier.items() if i not in current}
        if current or resolved:
            self._write("failures", self.part("failures", key), [*resolved.values(), *current.values()])
        return tuple(current.values())

    def unresolved(self, ref: RepoRef, config: ScanConfig) -> tuple[Failure, ...]:
        """Failures of a committed repository that still stand."""
        found = self._recorded(ref.part_key(config.fingerprint()))
        return tuple(failure for failure in found if not failure.resolved)

    def save_run(self, run: RunRow) -> None:
        """Write or overwrite the row of one scan."""
        self._write("runs", self.part("runs", run.scan_id), [run])

    def move_on(self) -> None:
        """Make the next generation of parts, which must be complete and durable, the live one."""
        version, _ = read_marker(self.path)
        write_marker(self.path, self.generation + 1, version)
        self.generation += 1
        self.__dict__.pop("_merged_failures", None)

    def folder(self, table: str) -> Path:
        """Where the live parts of a table lie."""
        return folder(self.path, table, self.generation)

    def part(self, table: str, key: str) -> Path:
        """The part of a table that is named by `key`."""
        return self.folder(table) / f"{key}.parquet"

    def _recorded(self, key: str) -> Sequence[Failure]:
        """Failures of a part, which may have been merged with others."""
        path = self.part("failures", key)
        return self._read("failures", path) if path.exists() else self._merged_failures.get(key, ())

    @cached_property
    def _merged_failures(self) -> dict[str, list[Failure]]:
        found: dict[str, list[Failure]] = {}
        for path in merged(self.folder("failures")):
            table = pq.read_table(path)
            rows = from_table("failures", table.select(SCHEMAS["failures"].names))
            for key, row in zip(table.column(PART_KEY).to_pylist(), rows, strict=True):
                found.setdefault(key, []).append(row)
        return found

    def _met(self, key: str) -> bool:
        """Whether an earlier scan left something of this model: a part of its own is to replace it."""
        parts = (self.part("layers", key), self.part("repositories", key + RETRY))
        return bool(self._recorded(key)) or any(part.exists() for part in parts)

    def _gather(self, model: Model) -> None:
        self._waiting.add(model)
        if self._waiting.full:
            self.flush()

    def _publish(self, model: Model, retry: bool) -> None:
        """Write a model's parts under their one name; a retried one changes its name by a rename."""
        write_part(_layers([model]), self.part("layers", model.key))
        done, unfinished = self.part("repositories", model.key), self.part("repositories", model.key + RETRY)
        again = unfinished.exists()
        self._write("repositories", unfinished if retry or again else done, model.about)
        if again and not retry:
            unfinished.replace(done)

    def _publish_together(self, models: Sequence[Model]) -> None:
        """Write one part a table for several models, the layers first."""
        folders = self.folder("layers"), self.folder("repositories")
        named = ([shared_part(each, models[0].scan_id, n) for each in folders] for n in count())
        layers, repositories = next(parts for parts in named if not any(part.exists() for part in parts))
        write_part(_layers(models), layers)
        self._write("repositories", repositories, [row for model in models for row in model.about])

    def _forget_half_published(self) -> None:
        """A scan that died between the two parts left layers of models that are to be scanned again."""
        for part in shared(self.folder("layers")):
            if not (self.folder("repositories") / part.name).exists():
                part.unlink()

    def _unstage(self, unit_id: str) -> tuple[Sequence[LayerMetrics], Sequence[Failure]]:
        rows = self._read("layers", self._staging / f"{unit_id}.parquet")
        return rows, self._read("failures", self._staging / f"{unit_id}.failures.parquet")

    def _clear(self, unit_ids: Sequence[str]) -> None:
        for unit_id in unit_ids:
            (self._staging / f"{unit_id}.parquet").unlink(missing_ok=True)
            (self._staging / f"{unit_id}.failures.parquet").unlink(missing_ok=True)

    def _close_lost_runs(self) -> None:
        """We hold the lock, so a run that still says `running` died."""
        for scan_id in loose(self.folder("runs")):
            for run in self._read("runs", self.part("runs", scan_id)):
                if run.status == "running":
                    self.save_run(replace(run, status="lost"))

    def _read(self, table: str, path: Path) -> Sequence[Any]:
        return from_table(table, pq.read_table(path, schema=SCHEMAS[table]))

    def _write(self, table: str, path: Path, rows: Sequence[Any]) -> None:
        write_part(to_table(table, rows), path)


def _keys_in(*paths: Path) -> Iterator[str]:
    for path in paths:
        try:
            names = pq.read_table(path, columns=list(KEY)).to_pydict()
        except pa.ArrowException as error:
            raise LakeError(f"cannot read {path}: {error}") from error
        for repo_id, revision, fingerprint in set(zip(*names.values(), strict=True)):
            yield RepoRef(repo_id, revision).part_key(fingerprint)


def _layers(models: Sequence[Model]) -> Any:
    """Rows as of their scan; a copy of each row with one other field would cost more than all else."""
    rows = measured_first(row for model in models for row in model.rows)
    table, scan_id = to_table("layers", rows), models[0].scan_id
    column = table.schema.get_field_index("scan_id")
    stamp = pa.array([scan_id] * table.num_rows, pa.string())
    return table.set_column(column, table.schema.field(column), stamp)


def _create(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        fresh = not any(path.iterdir())
        if not fresh:
            return
        for name in (*PART_FOLDERS, "staging"):
            (path / name).mkdir(exist_ok=True)
        for table in PART_FOLDERS:
            write_table(to_table(table, []), path / table / EMPTY)
        write_marker(path, 0)
    except OSError as error:
        raise LakeError(f"cannot create a lake at {path}: {error.strerror}") from error


def _seen_again(failure: Failure, earlier: Failure | None, scan_id: str) -> Failure:
    failure = replace(failure, scan_id=scan_id)
    if earlier is None:
        return failure
    return replace(failure, attempt=earlier.attempt + 1, first_at=earlier.first_at)


def _completed(
    about: RepositoryRow, rows: Sequence[LayerMetrics], plan: RepoPlan, config: ScanConfig, scan_id: str
) -> RepositoryRow:
    own = [row for row in rows if row.component == about.component]
    mine = (matrix for matrix in plan.live if matrix.component == about.component)
    sizes = {(matrix.tensor.file.path, matrix.start): matrix.pair_bytes for matrix in mine}
    return replace(
        about,
        scan_id=scan_id,
        bytes_read=sum(sizes.values()),
        secs=sum(row.secs or 0.0 for row in own),
        scanned_at=datetime.now(UTC),
        findings=model_findings(own, config.thresholds, whole=not about.num_files_failed),
    )
