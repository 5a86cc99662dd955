"""The page is a function of the results."""

import pytest

from jobs.bench.page import number, render
from jobs.bench.result import Agreement, Result, Target

MACHINE = {
    "date": "2026-01-02 03:04 UTC",
    "cpu": "A Processor",
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux 6",
    "python": "3.12.0",
    "blas": ["openblas 0.3, 1 thread"],
    "threads": 1,
    "load": 0.1,
    "versions": {"numpy": "2.0"},
    "command": "hubspectra bench --json docs/benchmarks.json",
}


def records():
    equal = Agreement(what="alpha", worst=3e-14, limit=1e-9)
    return [
        Result(
            case="tail-fit", name="n = 8", peer="a | b", value=123.4, low=99.0, high=150.0, ours=0.001,
            theirs=0.1234, pairs=5, target=Target(bound=100.0), agreement=equal, load=0.3,
        ).as_record(),
        Result(
            case="tail-fit", name="n = 9", peer="p", agreement=Agreement(what="D", worst=0.5, limit=1e-9)
        ).as_record(),
        Result(
            case="startup", name="--help", value=0.5, unit="CPU s", pairs=1,
            target=Target(bound=0.4, at_least=False),
        ).as_record(),
        Result(case="nulls", name="nulls", note="pip install it").as_record(),
    ]  # fmt: skip


@pytest.fixture
def page():
    return render(MACHINE, records(), {"tail-fit": "The exact search.", "startup": "The start."})


def test_every_case_has_its_table(page):
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Machine", "## tail-fit", "## startup", "## nulls",
    ]  # fmt: skip
    assert "The exact search." in page


def test_a_row_has_value_range_target_and_verdict(page):
    assert (
        "| n = 8 | a \\| b | **123 x** (99 to 150) | >= 100 x | met | 0.001 CPU s | 0.123 CPU s | 5 |" in page
    )
    assert "- n = 8: alpha: 3.0e-14 apart, 1e-09 allowed; load 0.3" in page
    assert "| --help |  | **0.5 CPU s** | <= 0.4 CPU s | missed |  |  | 1 |" in page


def test_what_was_not_measured_has_no_numbers(page):
    assert "| n = 9 | p |  |  | unequal |  |  |  |" in page
    assert "| nulls |  |  |  | not run |  |  |  |" in page
    assert "- nulls: pip install it" in page


def test_the_machine_and_the_command_are_named(page):
    for fact in ("A Processor, 2 cores", "openblas 0.3, 1 thread", "numpy 2.0", MACHINE["command"]):
        assert fact in page
    assert "**4 measurements: 1 met, 1 unequal, 1 missed, 1 not run.**" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.01234, "0.0123"), (1e-5, "1.00e-05"),
     (-0.5, "-0.5"), (2e6, "2.00e+06")],
)  # fmt: skip
def test_numbers_have_three_figures(value, text):
    assert number(value) == text
