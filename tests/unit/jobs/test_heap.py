"""A worker's heap keeps what is freed, and so asks the kernel for no page twice."""

import ctypes
import os
import re
import resource
import subprocess
import sys

import pyarrow as pa
import pytest

from jobs.engine.heap import ARROW, KEEPING, keep_freed_memory, keeping

HAS_MALLOPT = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
BYTES = 40 << 20

PAGES_OF_TEN = f"""
import resource, sys
from jobs.engine.heap import keep_freed_memory
if sys.argv[1] == "keeping":
    assert keep_freed_memory({{}})
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [b"x" * {BYTES} for _ in range(2)]
del blocks
before = pages()
for _ in range(10):
    blocks = [b"x" * {BYTES} for _ in range(2)]
    del blocks
print(pages() - before)
"""


def pages_of_ten(how):
    command = [sys.executable, "-c", PAGES_OF_TEN, how]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=plain).stdout)


@pytest.mark.skipif(not HAS_MALLOPT, reason="this C library's heap takes no options")
def test_blocks_of_megabytes_are_used_again():
    every_time = 20 * BYTES // resource.getpagesize()
    assert pages_of_ten("keeping") < every_time / 5
    assert pages_of_ten("as usual") > every_time / 2


@pytest.mark.parametrize("choice", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_choice_stands(choice):
    assert not keep_freed_memory({choice: "1"})
    assert keeping({choice: "1"}) == {}
    assert keeping({"MALLOC": "1"}) == KEEPING


HEAP_OF_ARROW = """
from jobs.cli.entry import invoke
invoke(["--help"])
import pyarrow
"""


def delay_of_arrow(**environ):
    """What Arrow's heap says of itself in a process of the command line."""
    env = {name: value for name, value in os.environ.items() if name not in ARROW}
    env |= {"MIMALLOC_VERBOSE": "1", "ARROW_DEFAULT_MEMORY_POOL": "mimalloc", **environ}
    command = [sys.executable, "-c", HEAP_OF_ARROW]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    (delay,) = re.findall(r"option 'purge_delay': (\d+)", said.stdout + said.stderr)
    return delay


@pytest.mark.skipif("mimalloc" not in pa.supported_memory_backends(), reason="Arrow has another heap")
def test_the_command_line_has_arrow_keep_what_is_freed():
    (name, delay) = next(iter(ARROW.items()))
    assert delay_of_arrow() == delay
    assert delay_of_arrow(**{name: "7"}) == "7"
