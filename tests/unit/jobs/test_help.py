"""What `--help` looks like on a terminal of 80 columns."""

import pytest
from running import run_cli

from jobs.cli.entry import cli


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", [(), *((name,) for name in cli.commands)])
def test_no_line_is_wider_than_a_terminal(verb):
    assert max(map(len, run_cli(*verb, "--help").text.splitlines())) <= 80


def test_no_verb_is_told_in_half_a_sentence():
    _, _, verbs = run_cli("--help").text.partition("Commands:\n")
    assert len(verbs.splitlines()) == len(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in verbs.splitlines())
