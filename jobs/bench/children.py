"""Work in a process of its own: another number of threads, a memory mark of its own, a cold start."""

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from jobs.bench.result import NotRunError
from jobs.engine.blas import ONE_THREAD

T = TypeVar("T")


class Child:
    """A fresh process that calls top-level functions, one after the other, and keeps what they imported."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` there. Raises NotRunError when the process dies, for want of memory perhaps."""
        try:
            with _environment(dict.fromkeys(ONE_THREAD, str(self._threads))):
                return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise NotRunError(f"the process of {function.__name__} died; is there enough memory?") from error

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def command_seconds(command: Sequence[str]) -> float:
    """CPU seconds, user and system, of a command from its start to its end. Raises CalledProcessError."""
    before = _children_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "100"})
    return _children_seconds() - before


def this_command(*arguments: str) -> list[str]:
    """The command line of hubspectra in this interpreter."""
    return [sys.executable, "-c", "from jobs.cli import main; main()", *arguments]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables while a process is being started; they are inherited, then put back."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
