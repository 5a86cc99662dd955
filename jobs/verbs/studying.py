"""The study verb: experiments are run, their checks printed, a report written if asked for."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import click
import pyarrow as pa

from jobs.studies.catalog import STUDIES, chosen
from jobs.studies.report import write
from jobs.studies.study import NotAvailable, Report, Study, Verdict, tally
from jobs.verbs.exitcodes import Exit
from jobs.verbs.output import emit, writing


def study(names: Sequence[str], listed: bool, out: Path | None, quick: bool, form: str | None) -> int:
    """Run the studies of these names; returns the exit code, which is not 0 when a check fails."""
    if listed:
        emit(_catalog(), form, None)
        return Exit.OK
    if not names:
        raise click.UsageError("give the NAME of a study, all, or --list")
    reports = run(chosen(names, quick), quick)
    emit(_checks(reports), form, None)
    if out is not None:
        with writing(out):
            page = write(reports, out)
        click.echo(f"report: {page}", err=True)
    _sum_up(reports)
    return exit_code(reports)


def exit_code(reports: Sequence[Report]) -> Exit:
    """3 when a check fails; a deviation that is explained and a study that lacks its data are no failures."""
    return Exit.SOME_FAILED if any(report.verdict is Verdict.FAIL for report in reports) else Exit.OK


def run(studies: Sequence[Study], quick: bool) -> list[Report]:
    """Run studies one after the other, with a line on standard error for each."""
    reports = []
    for position, one in enumerate(studies, 1):
        click.echo(f"{position}/{len(studies)} {one.id} {one.name} ...", err=True, nl=False)
        started = monotonic()
        reports.append(run_one(one, quick))
        click.echo(f" {_said(reports[-1])} ({monotonic() - started:.1f} s)", err=True)
    return reports


def run_one(one: Study, quick: bool) -> Report:
    """Run a study; one that lacks what it needs says what."""
    try:
        return Report(study=one, outcome=one.run(quick))
    except NotAvailable as missing:
        return Report(study=one, outcome=None, reason=str(missing))


def _said(report: Report) -> str:
    if report.outcome is None:
        return f"not run: {report.reason}"
    return f"{report.verdict}, {tally(report.outcome.checks)}: {report.outcome.got}"


def _sum_up(reports: Sequence[Report]) -> None:
    counts = {verdict: sum(report.verdict is verdict for report in reports) for verdict in Verdict}
    line = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    click.echo(f"{len(reports)} studies: {line}", err=True)


def _catalog() -> pa.Table:
    columns = ("id", "name", "quick", "question")
    return pa.table({c: [getattr(one, c) for one in STUDIES] for c in columns})


def _checks(reports: Sequence[Report]) -> pa.Table:
    """A row a check; a study that was not run has one row, without a check."""
    rows = [row for report in reports for row in _rows(report)]
    fields = ("id", "study", "verdict", "check", "expected", "got", "tolerance", "source", "remark")
    return pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(fields)})


def _rows(report: Report) -> list[tuple[str | None, ...]]:
    one = report.study
    if report.outcome is None:
        return [(one.id, one.name, report.verdict.value, None, one.expected, None, None, None, report.reason)]
    return [
        (
            one.id,
            one.name,
            c.verdict.value,
            c.what,
            c.expected,
            c.got,
            c.tolerance,
            c.source,
            c.because or None,
        )
        for c in report.outcome.checks
    ]
