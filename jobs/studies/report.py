"""Studies that were run -> a page of Markdown with its figures beside it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jobs.studies.figures import save
from jobs.studies.study import Check, Figure, Outcome, Report, Table, Verdict

PAGE = "README.md"

_INTRO = """# Studies

What theory, published figures and independent code say, against what hubspectra measures. `make studies`
writes this page; `hubspectra study NAME` runs one experiment again. All draws are seeded, so the numbers
come out the same; another BLAS moves the last digits, another torch build the trained nets. A check passes
or fails; it deviates when it is off for a reason that was looked into, which is told. Two experiments are
tests rather than studies: V1, fixtures without random numbers (tests/unit), and V19, the same rows whatever
the number of workers and after a kill (tests/integration/test_scan_ray.py, test_resume.py).

"reference implementation" stands for numbers measured once with independent code (numpy, scipy) of the
same rules.
"""


def write(reports: Sequence[Report], folder: Path) -> Path:
    """Write the page and its figures; figures that the page no longer shows are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {save(figure, folder) for report in reports for figure in _figures(report)}
    for stray in set(folder.glob("*.svg")) - shown:
        stray.unlink()
    page = folder / PAGE
    page.write_text("\n".join(_lines(reports)) + "\n", encoding="utf-8")
    return page


def _figures(report: Report) -> tuple[Figure, ...]:
    return report.outcome.figures if report.outcome else ()


def _lines(reports: Sequence[Report]) -> Iterator[str]:
    yield _INTRO
    yield from _grid(("id", "experiment", "expected", "got", "verdict"), map(_summary, reports))
    for report in reports:
        yield from _section(report)


def _summary(report: Report) -> tuple[str, ...]:
    study = report.study
    got = report.outcome.got if report.outcome else report.reason
    name = f"[{study.name}](#{_anchor(report)})"
    return study.id, name, study.expected, got, _bold(report.verdict)


def _section(report: Report) -> Iterator[str]:
    study = report.study
    yield f"\n## {study.id} {study.name}\n"
    yield f"{study.question}\n"
    yield f"    hubspectra study {study.name}\n"
    if report.outcome is None:
        yield f"Not run: {report.reason}\n"
    else:
        yield from _evidence(report.outcome)
    yield f"{study.meaning}"


def _evidence(outcome: Outcome) -> Iterator[str]:
    for figure in outcome.figures:
        yield f"![{figure.caption}]({figure.name}.svg)\n"
        yield f"*{figure.caption}*\n"
    for table in outcome.tables:
        yield from _table(table)
    yield from _checks(outcome.checks)
    if outcome.remark:
        yield f"{outcome.remark}\n"


def _table(table: Table) -> Iterator[str]:
    yield f"{table.caption}\n"
    yield from _grid(table.head, table.rows)
    yield ""


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    """The checks, folded when all pass."""
    failed = [check for check in checks if check.verdict is not Verdict.PASS]
    head = ("check", "expected", "got", "tolerance", "verdict", "source")
    rows = [(c.what, c.expected, c.got, c.tolerance, _bold(c.verdict), c.source) for c in checks]
    label = f"{len(checks) - len(failed)} of {len(checks)} checks pass"
    yield f"<details{' open' if failed else ''}><summary>{label}</summary>\n"
    yield from _grid(head, rows)
    yield "\n</details>\n"
    for check in failed:
        if check.because:
            yield f"Deviates: {check.what}. {check.because}\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _anchor(report: Report) -> str:
    return f"{report.study.id} {report.study.name}".lower().replace(" ", "-")


def _bold(verdict: Verdict) -> str:
    return f"**{verdict.value}**" if verdict in (Verdict.FAIL, Verdict.DEVIATES) else verdict.value
