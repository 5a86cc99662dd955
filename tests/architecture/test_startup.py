"""What starting costs: heavy libraries wait for the call that needs them."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "ray",
    "duckdb",
    "pyarrow",
    "numpy",
    "scipy",
    "numba",
    "huggingface_hub",
    "matplotlib",
    "powerlaw",
    "starlette",
    "pydantic",
)


def loaded_after(code):
    """Names of HEAVY modules in a fresh interpreter that ran `code`."""
    report = f"\nimport sys\nsys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


CALL = """
from jobs.cli import cli
cli.main({arguments!r}, standalone_mode=False)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["scan", "--help"], ["leaderboard", "--help"], ["compare", "--help"]],
)
def test_help_needs_no_heavy_library(arguments):
    assert loaded_after(CALL.format(arguments=arguments)) == set()


def test_the_package_is_light_until_it_is_used():
    assert loaded_after("import scanner, schemas, jobs") == set()
    assert loaded_after("from scanner import scan") & {"torch", "numba", "ray", "duckdb", "pyarrow"} <= {
        "numba"
    }


def test_configs_and_targets_need_no_arrays():
    assert loaded_after(
        "from schemas.config import profile_config; profile_config('default').fingerprint()"
    ) <= {"numpy"}


def test_importing_changes_nothing_for_the_caller():
    code = """
import logging, os, signal
def facts():
    root = logging.getLogger()
    return list(root.handlers), root.level, os.getcwd(), os.listdir("."), signal.getsignal(signal.SIGINT)
before = facts()
import scanner.api, jobs.engine.driver
unchanged = facts() == before
"""
    ran = subprocess.run(
        [sys.executable, "-c", code + "print(unchanged)"], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "True\n"
