"""Questions to a large lake."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.lake import ROWS, grown, name_of
from jobs.bench.options import Options
from jobs.bench.pairs import figure, wall_seconds
from jobs.bench.result import Result
from jobs.lake import questions
from jobs.lake.leaderboard import ask

_ROWS, _ROWS_QUICK = 10_000_000, 1_000_000
_BY_ROLE = "SELECT role, count(*), median(alpha) FROM layers WHERE status = 'ok' GROUP BY role"


def ask_a_large_lake(options: Options) -> Iterator[Result]:
    """The command line's questions to a lake in few large files, in wall time on all cores."""
    rows = _ROWS_QUICK if options.quick else _ROWS
    with TemporaryDirectory() as folder:
        lake = grown(Path(folder), rows)
        for name, question in _questions(lake, name_of(rows // ROWS // 2)).items():
            question()
            seconds = [wall_seconds(question) for _ in range(options.few)]
            yield figure(f"{name}, {rows:,} rows", seconds, "wall s")


def _questions(lake: Path, middle: str) -> dict[str, Callable[[], object]]:
    return {
        "leaderboard": lambda: questions.leaderboard(lake, 100, brief=True),
        "one model's layers": lambda: questions.layers(lake, middle, 1000, brief=True, everything=False),
        "one model's findings": lambda: questions.flags(lake, None, middle, 1000, brief=False),
        "median alpha by role": lambda: ask(lake, _BY_ROLE),
    }
