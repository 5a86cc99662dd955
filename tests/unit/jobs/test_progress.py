"""What a running scan says."""

import io

import pytest
from nouns import failure
from running import Terminal

from jobs.engine.progress import Counts, Meter, describe, placed, progress, quiet_progress

HALF = Counts(
    repos=10,
    repos_planned=5,
    repos_done=4,
    tensors_done=50,
    planned=100,
    bytes_read=2_500_000,
    cost=10,
    cost_done=5,
)


def test_one_line_tells_where_the_scan_stands():
    assert describe(HALF, 60.0) == (
        "4/10 repositories, 50/100 tensors, 2 MB at 42 kB/s, about 3 min 00 s left"
    )


@pytest.mark.parametrize(
    ("counts", "elapsed", "left"),
    [
        (Counts(repos=3), 5.0, "estimating"),
        (Counts(repos=1, repos_planned=1, cost=10), 5.0, "estimating"),
        (Counts(repos=1, repos_planned=1, cost=10, cost_done=10), 5.0, "about 0 s left"),
        (Counts(repos=1, repos_planned=1, cost=10, cost_done=5), 7.0, "about 7 s left"),
        (Counts(repos=2, repos_planned=1, cost=10, cost_done=10), 9.0, "about 9 s left"),
        (Counts(repos=2, repos_planned=1, repos_done_before=1, cost=10, cost_done=5), 9.0, "about 9 s left"),
        (Counts(repos=1, repos_planned=1, cost=100, cost_done=1), 61.0, "about 1 h 40 min left"),
    ],
)
def test_time_left_is_measured_in_arithmetic(counts, elapsed, left):
    assert describe(counts, elapsed).endswith(left)


def test_the_pace_is_that_since_the_first_unit():
    """The first took a minute, most of it to start; each of the next ones takes a second."""
    meter, lines = Meter(100.0), []
    for done, now in ((0, 130.0), (1, 160.0), (2, 161.0), (10, 169.0), (100, 259.0)):
        lines.append(meter.describe(Counts(repos=1, repos_planned=1, cost=100, cost_done=done), now))
    lefts = [line.rpartition(", ")[2] for line in lines]
    assert lefts[:2] == ["estimating", "estimating"]
    assert lefts[2:] == ["about 1 min 38 s left", "about 1 min 30 s left", "about 0 s left"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (5e6, "5 MB"), (7e9, "7 GB"), (3.21e12, "3.2 TB")],
)
def test_sizes(size, text):
    assert f", {text} at " in describe(Counts(bytes_read=int(size)), 1.0)


def test_no_time_has_passed_yet():
    assert "0 B at 0 B/s" in describe(Counts(), 0.0)


def test_a_log_gets_every_note_on_a_line_and_no_line_a_tick():
    stream = io.StringIO()
    with progress(stream) as display:
        display.update(HALF)
        display.note("first [red]note[/red]")
        display.update(HALF)
        display.note("second")
    assert stream.getvalue() == "first [red]note[/red]\nsecond\n"


def test_a_terminal_shows_notes_as_they_are():
    stream = Terminal()
    with progress(stream) as display:
        display.update(HALF)
        display.note("a [red]note[/red] of owner/name")
    assert "a [red]note[/red] of owner/name" in stream.getvalue()


def test_quiet_shows_nothing(capsys):
    with quiet_progress() as display:
        display.update(HALF)
        display.note("note")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "about", "text"),
    [
        ("it broke", {}, "owner/name: it broke"),
        ("it broke", {"file": "a.json", "tensor": "w"}, "owner/name a.json w: it broke"),
        ("owner/name@abc a.json: it broke", {"file": "a.json"}, "owner/name@abc a.json: it broke"),
    ],
)
def test_a_failure_is_told_with_its_place(message, about, text):
    assert placed(failure(message, **about)) == text
