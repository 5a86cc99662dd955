"""Ten million rows: the compaction and the questions at full size. Says what they took; asserts what they answer.

    python -m pytest -m slow -s tests/integration/test_big_lake.py

Takes 6 GB of disk and, on two cores, some twenty minutes, nearly all of them to write thirty thousand parts.
"""

import os
import sys
import time

import pytest
from biglake import ROWS, reference, write_parts
from running import finish, rows, run_cli, start_cli

MODELS = 30_304
QUESTIONS = {
    "the leaderboard's top 100": ("leaderboard", "--limit", "100"),
    "one model's layers": ("show", reference(12_345).repo_id, "--all", "--format", "csv"),
    "percentiles of alpha by family": (
        "sql",
        "SELECT architecture, count(*) AS n, quantile_cont(alpha, [0.1, 0.5, 0.9]) AS alpha FROM layers "
        "JOIN repositories USING (repo_id, revision, config_fingerprint) WHERE counted GROUP BY architecture",
    ),
}
LINES = {
    "the leaderboard's top 100": 101,
    "one model's layers": ROWS + 1,
    "percentiles of alpha by family": 8,
}


@pytest.mark.slow
def test_ten_million_rows(tmp_path, capsys):
    lake = tmp_path / "lake"
    write_parts(lake, range(MODELS))
    ran = run_cli("compact", "--lake", lake, "--grace", "0")
    assert ran.code == 0
    (found,) = rows(lake, "SELECT count(*) AS n, count(DISTINCT repo_id) AS models FROM layers")
    assert found == {"n": MODELS * ROWS, "models": MODELS}
    said = [ran.err.strip()]
    for name, question in QUESTIONS.items():
        _forget(lake)
        start = time.monotonic()
        answer = finish(start_cli(*question, "--lake", lake))
        said.append(f"{name}: {time.monotonic() - start:.2f} s with the interpreter, nothing cached")
        assert answer.code == 0, answer.err
        assert len(answer.text.splitlines()) == LINES[name]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", *said, ""]))


def _forget(lake):
    """Let the system drop the lake from its page cache."""
    for path in lake.rglob("*.parquet"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
