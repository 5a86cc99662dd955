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

import pytest

from jobs.cli import invoke
from jobs.engine.progress import Counts
from jobs.lake.leaderboard import ask

HUB_VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_TOKEN_PATH")
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
    for table, varying in _VARYING.items():
        known = ask(lake, f"SELECT * FROM {table} LIMIT 0").column_names
        left_out = ", ".join(name for name in (*varying, *ignore) if name in known)
        for one, two in ((lake, other), (other, lake)):
            here, there = (snapshot(each, table, left_out) for each in (one, two))
            query = f"SELECT repo_id FROM ({here} EXCEPT ALL {there})"
            found += [f"{table} {row['repo_id']} only in {one.name}" for row in rows(one, query)]
    return found


def snapshot(lake: Path, table: str, left_out: str) -> str:
    """A query for `table` of `lake` that can stand beside one of another lake."""
    from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS

    folder = "models" if table == "models" else table
    assert folder in (*TABLE_VIEWS, *SQL_VIEWS)
    return f"SELECT * EXCLUDE ({left_out}) FROM read_parquet('{lake}/{folder}/*.parquet', union_by_name=true)"
