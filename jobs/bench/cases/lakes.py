"""Questions to a large lake, and the compactions that make one."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.children import Child, command_seconds, this_command
from jobs.bench.lake import ROWS, TOGETHER, grown, interleaved, name_of, scattered
from jobs.bench.options import Options
from jobs.bench.pairs import figure, wall_seconds
from jobs.bench.result import Result
from jobs.lake import questions
from jobs.lake.compaction import compact
from jobs.lake.leaderboard import ask
from jobs.lake.merging import merge, pieces_of
from jobs.lake.store import Store

_ROWS, _ROWS_QUICK = 10_000_000, 1_000_000
_MERGED, _MERGED_QUICK = 1_000_000, 120_000
_PARTS = {
    "parts of 1 model": (1, 2),
    "parts of 12 models": (12, 2),
    "parts of 48 models": (TOGETHER, 2),
    "parts of 48 models, every tensor a matrix": (TOGETHER, 5),
}
"""Models of a part, and how many of five tensors are matrices: two, as in all-MiniLM-L6-v2 (39 of 104).

Two cores leave shared parts of some 4,000 rows, many workers of 16,000.
"""
_BY_FAMILY = (
    "SELECT architecture, count(*) AS layers, quantile_cont(alpha, [0.1, 0.5, 0.9]) AS alpha FROM layers "
    "JOIN repositories USING (repo_id, revision, config_fingerprint) WHERE counted GROUP BY architecture"
)
_BY_ROLE = "SELECT role, count(*), median(alpha) FROM layers WHERE status = 'ok' GROUP BY role"


def ask_a_large_lake(options: Options) -> Iterator[Result]:
    """The command line's questions to a compacted lake, in wall time on all cores.

    Whole commands, from the interpreter's start on, find no byte of the lake in the page cache; the questions
    alone are asked again and again in one process.
    """
    rows = _ROWS_QUICK if options.quick else _ROWS
    with TemporaryDirectory() as folder:
        lake, model = grown(Path(folder), rows), name_of(rows // ROWS // 2)
        for name, arguments in _commands(model).items():
            command = this_command(*arguments, "--lake", str(lake))
            seconds = [_cold_seconds(lake, command) for _ in range(options.pairs)]
            yield figure(f"{name}, whole command, cold, {rows:,} rows", seconds, "wall s", at_most=1.0)
        for name, question in _questions(lake, model).items():
            question()
            seconds = [wall_seconds(question) for _ in range(options.few)]
            yield figure(f"{name}, {rows:,} rows", seconds, "wall s")


def merge_parts(options: Options) -> Iterator[Result]:
    """Small parts into large files, and large files into one order: wall time on all cores, in one process.

    Parts of one model are what large models, retries and early versions left, shared ones what a scan of
    small models leaves; files that a growing lake merges again are most of a compaction's work over time.
    """
    models = (_MERGED_QUICK if options.quick else _MERGED) // ROWS
    with TemporaryDirectory() as folder, Child(os.cpu_count() or 1) as compactor:
        for name, (together, matrices) in _PARTS.items():
            lake = scattered(Path(folder), models, together, matrices)
            costs = [compactor.call(_compaction, lake) for _ in range(options.pairs + 1)][1:]
            yield _speed(name, models * ROWS, costs)
        files = interleaved(Path(folder), scattered(Path(folder), models, TOGETHER))
        costs = [compactor.call(_merge, files) for _ in range(options.pairs + 1)][1:]
        yield _speed("merged files", models * ROWS, costs)


def _speed(name: str, rows: int, costs: Sequence[tuple[float, float]]) -> Result:
    """Of wall and CPU seconds."""
    note = f"{rows / statistics.median(cpu for _, cpu in costs):,.0f} rows per CPU s"
    speeds = [rows / wall for wall, _ in costs]
    return figure(f"{name}, {rows:,} rows", speeds, "rows/s", at_least=1e6, note=note)


def _compaction(lake: Path) -> tuple[float, float]:
    """Wall and CPU seconds to compact a copy of a lake, of links: no file of a lake is written in place."""
    with TemporaryDirectory(dir=lake.parent) as folder:
        copy = shutil.copytree(lake, Path(folder) / "lake", copy_function=os.link)
        with Store.writing(copy) as store:
            return _seconds(lambda: compact(store))


def _merge(files: Sequence[Path]) -> tuple[float, float]:
    with TemporaryDirectory() as folder:
        return _seconds(lambda: merge([p for file in files for p in pieces_of(file)], Path(folder)))


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    busy = time.process_time()
    wall = wall_seconds(work)
    return wall, time.process_time() - busy


def _cold_seconds(lake: Path, command: Sequence[str]) -> float:
    """Seconds on the clock of a command, after the system was asked to forget the files of the lake."""
    for path in lake.rglob("*.parquet") if hasattr(os, "posix_fadvise") else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return wall_seconds(lambda: command_seconds(command))


def _commands(model: str) -> dict[str, Sequence[str]]:
    return {
        "leaderboard's top 100": ("leaderboard", "--limit", "100"),
        "one model's layers": ("show", model, "--all"),
        "percentiles of alpha by family": ("sql", _BY_FAMILY),
    }


def _questions(lake: Path, middle: str) -> dict[str, Callable[[], object]]:
    return {
        "leaderboard": lambda: questions.leaderboard(lake, 100, brief=True),
        "one model's layers": lambda: questions.layers(lake, middle, 1000, brief=True, everything=False),
        "one model's findings": lambda: questions.flags(lake, None, middle, 1000, brief=False),
        "median alpha by role": lambda: ask(lake, _BY_ROLE),
    }
