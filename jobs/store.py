"""The lake on disk: Parquet parts that appear whole or not at all, and are their own completion markers.

    lake.json                 what this folder is, and its schema version
    layers/KEY.parquet        all rows of one repository
    repositories/KEY.parquet  the plan's promise and the hub's facts, one row a component: it means "done"
    repositories/KEY.retry.parquet  the same with units given up for now: the next scan completes it
    failures/KEY.parquet      what failed, and what failed once and is resolved
    models/models.parquet     snapshot of the `models` view
    runs/SCAN.parquet         one row a scan
    staging/UNIT.parquet      finished units of an unfinished repository (UNIT.failures.parquet beside it)

KEY names repository, commit and config, so the same work always has the same name. A repository's own part
is written last: whatever a crash leaves behind is either complete or redone, and who sees a repository sees
all its layers.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from scanner.diagnosis.flags import judge, model_findings
from schemas.config import ScanConfig
from schemas.errors import LakeError
from schemas.refs import RepoRef
from schemas.rows import Failure, LayerMetrics, RepositoryRow, RunRow
from schemas.tables import SCHEMA_VERSION, SCHEMAS, from_table, to_table
from schemas.work import RepoPlan, UnitResult

PART_FOLDERS = ("layers", "repositories", "failures", "models", "runs")
_MARKER = "lake.json"
_EMPTY = "_empty.parquet"
_RETRY = ".retry"


def open_lake(path: Path) -> None:
    """Check that `path` is a lake this version can read. Raises LakeError saying what it is instead."""
    if not path.is_dir():
        raise LakeError(f"no lake at {path}: run `hubspectra scan TARGET --lake {path}` first")
    marker = path / _MARKER
    if not marker.is_file():
        raise LakeError(f"{path} is not a hubspectra lake: it has no {_MARKER}; give another --lake folder")
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{marker} is damaged: expected a JSON object with schema_version") from error
    if not isinstance(found, int) or found > SCHEMA_VERSION:
        raise LakeError(
            f"lake {path} has schema version {found}, this hubspectra reads up to {SCHEMA_VERSION}: upgrade"
        )


class Store:
    """The single writer of a lake; use `Store.writing(path)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._staging = path / "staging"

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
            store._close_lost_runs()
            yield store
        finally:
            lock.release()

    def done(self) -> frozenset[str]:
        """Keys of the repositories that need no more work."""
        names = (entry.name for entry in os.scandir(self.path / "repositories") if entry.name != _EMPTY)
        keys = (name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))
        return frozenset(key for key in keys if not key.endswith(_RETRY))

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
        units stay, so that the next scan redoes only what is missing.
        """
        key = plan.ref.part_key(config.fingerprint())
        in_memory = {result.unit_id for result in held}
        staged = [unit.unit_id for unit in plan.units if unit.unit_id not in in_memory]
        outcomes = [*map(self._unstage, staged), *((r.rows, r.failures) for r in held)]
        rows = judge(
            sorted((row for part, _ in outcomes for row in part), key=lambda row: row.matrix_index),
            config.thresholds,
        )
        rows = tuple(replace(row, scan_id=scan_id) for row in rows)
        failures = [*plan.failures, *(failure for _, part in outcomes for failure in part)]
        about = [_completed(row, rows, plan, config, scan_id) for row in plan.components]
        recorded = self.record(key, failures, scan_id)
        self._write("layers", self._part("layers", key), rows)
        retry = any(failure.retryable for failure in failures)
        self._publish(key, about, retry)
        if not retry:
            self._clear(staged)
        return rows, recorded

    def record(self, key: str, failures: Sequence[Failure], scan_id: str) -> tuple[Failure, ...]:
        """Write the failures of one repository or target; earlier ones that did not recur are resolved."""
        path = self._part("failures", key)
        earlier = {f.failure_id: f for f in self._read("failures", path)} if path.exists() else {}
        current = {f.failure_id: _seen_again(f, earlier.get(f.failure_id), scan_id) for f in failures}
        resolved = {i: replace(f, resolved=True) for i, f in earlier.items() if i not in current}
        if current or resolved:
            self._write("failures", path, [*resolved.values(), *current.values()])
        return tuple(current.values())

    def unresolved(self, ref: RepoRef, config: ScanConfig) -> tuple[Failure, ...]:
        """Failures of a committed repository that still stand."""
        path = self._part("failures", ref.part_key(config.fingerprint()))
        found = self._read("failures", path) if path.exists() else ()
        return tuple(failure for failure in found if not failure.resolved)

    def save_run(self, run: RunRow) -> None:
        """Write or overwrite the row of one scan."""
        self._write("runs", self.path / "runs" / f"{run.scan_id}.parquet", [run])

    def save_models(self, table: Any) -> None:
        """Replace the snapshot of the models view by an Arrow table of that schema."""
        _write_table(table.cast(SCHEMAS["models"]), self.path / "models" / "models.parquet")

    def _part(self, table: str, key: str) -> Path:
        return self.path / table / f"{key}.parquet"

    def _publish(self, key: str, about: Sequence[RepositoryRow], retry: bool) -> None:
        """Write the repository's part under its one name; a retried one changes its name by a rename."""
        done, unfinished = self._part("repositories", key), self._part("repositories", key + _RETRY)
        again = unfinished.exists()
        self._write("repositories", unfinished if retry or again else done, about)
        if again and not retry:
            unfinished.replace(done)

    def _unstage(self, unit_id: str) -> tuple[Sequence[LayerMetrics], Sequence[Failure]]:
        rows = self._read("layers", self._staging / f"{unit_id}.parquet")
        return rows, self._read("failures", self._staging / f"{unit_id}.failures.parquet")

    def _clear(self, unit_ids: Sequence[str]) -> None:
        for unit_id in unit_ids:
            (self._staging / f"{unit_id}.parquet").unlink(missing_ok=True)
            (self._staging / f"{unit_id}.failures.parquet").unlink(missing_ok=True)

    def _close_lost_runs(self) -> None:
        """We hold the lock, so a run that still says `running` died."""
        for path in (self.path / "runs").glob("[!_]*.parquet"):
            for run in self._read("runs", path):
                if run.status == "running":
                    self.save_run(replace(run, status="lost"))

    def _read(self, table: str, path: Path) -> Sequence[Any]:
        return from_table(table, pq.read_table(path, schema=SCHEMAS[table]))

    def _write(self, table: str, path: Path, rows: Sequence[Any]) -> None:
        _write_table(to_table(table, rows), path)


def _write_table(table: Any, path: Path) -> None:
    """Temp name, fsync, atomic rename: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as handle:
            pq.write_table(table, handle, compression="zstd")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise LakeError(f"cannot write {path}: {error.strerror}") from error


def _create(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        fresh = not any(path.iterdir())
        if not fresh:
            return
        for folder in (*PART_FOLDERS, "staging"):
            (path / folder).mkdir(exist_ok=True)
        for table in PART_FOLDERS:
            _write_table(to_table(table, []), path / table / _EMPTY)
        (path / _MARKER).write_text(
            json.dumps({"lake": "hubspectra", "schema_version": SCHEMA_VERSION}) + "\n"
        )
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
    mine = {m.index for u in plan.units for m in u.matrices if m.component == about.component and not m.skip}
    sizes = {
        (m.tensor.file.path, m.start): m.pair_bytes for u in plan.units for m in u.matrices if m.index in mine
    }
    return replace(
        about,
        scan_id=scan_id,
        bytes_read=sum(sizes.values()),
        secs=sum(row.secs or 0.0 for row in own),
        scanned_at=datetime.now(UTC),
        findings=model_findings(own, config.thresholds),
    )
