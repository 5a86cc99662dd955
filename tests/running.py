"""The command line run in this process or as its own, what it shows, and lakes compared."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from jobs.cli import invoke
from jobs.engine.progress import Counts
from jobs.lake.leaderboard import ask, connect

PROXY_VARIABLES = tuple(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO"))
HUB_VARIABLES = (
    *("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"),
    *PROXY_VARIABLES,
    *map(str.lower, PROXY_VARIABLES),
)
PATIENCE = 120.0
"""Seconds after which a test that waits for another process gives up."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scan and the lake it wrote to."""

    lake: Path
    ran: Ran


class Notes:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def update(self, counts: Counts) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


class Terminal(io.StringIO):
    """Text that believes it is on a screen."""

    def isatty(self) -> bool:
        return True


def run_cli(*arguments: object) -> Ran:
    """Run the command line in this process; its standard output is a pipe to it."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = invoke([str(argument) for argument in arguments])
    return Ran(code, out.buffer.getvalue(), err.getvalue())


def start_cli(*arguments: object, **environment: str) -> subprocess.Popen:
    """Start the command line as a user would, in a process of its own and without the user's settings."""
    return start_python("from jobs.cli import main; main()", *arguments, **environment)


def start_python(code: str, *arguments: object, **environment: str) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if name not in HUB_VARIABLES}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> Ran:
    out, err = process.communicate(timeout=PATIENCE)
    return Ran(process.returncode, out.encode(), err)


@contextmanager
def ended(process: subprocess.Popen):
    """The process, which does not outlive the block."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(true: Callable[[], Any], what: str) -> Any:
    """Poll until `true()` is, and return it; fails naming `what`."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if found := true():
            return found
        time.sleep(0.005)
    pytest.fail(f"waited {PATIENCE:.0f} s in vain: {what}")


def rows(lake: Path, query: str) -> list[dict[str, Any]]:
    return ask(lake, query).to_pylist(maps_as_pydicts="strict")


TIMES = ("scan_id", "secs")
_VARYING = {
    "layers": TIMES,
    "repositories": (*TIMES, "scanned_at"),
    "models": (*TIMES, "scanned_at"),
    "failures": ("scan_id", "first_at", "last_at", "attempt"),
}


def differences(lake: Path, other: Path, ignore: Sequence[str] = ()) -> list[str]:
    """What one lake holds and the other does not, but for times, as table and repository."""
    found = []
    with connect(lake) as one, connect(other) as two:
        for table, varying in _VARYING.items():
            left_out = (*varying, *ignore)
            one.register("here", _contents(one, table, left_out))
            one.register("there", _contents(two, table, left_out))
            for place, mine, theirs in ((lake, "here", "there"), (other, "there", "here")):
                missing = one.sql(f"SELECT repo_id FROM (FROM {mine} EXCEPT ALL FROM {theirs})").fetchall()
                found += [f"{table} {repo_id} only in {place.name}" for (repo_id,) in missing]
    return found


def _contents(lake: duckdb.DuckDBPyConnection, table: str, left_out: Sequence[str]) -> pa.Table:
    """The live rows of a table, which after a compaction are no longer those of its folder."""
    held = lake.sql(f"FROM {table}").to_arrow_table()
    return held.select([name for name in held.column_names if name not in left_out])
