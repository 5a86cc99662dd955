"""The bench verb: cases -> results, told as they come, then a table, JSON and a page."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from jobs.bench.machine import load, machine
from jobs.bench.options import Options
from jobs.bench.page import number, render
from jobs.bench.registry import CASES, Case
from jobs.bench.result import NotRunError, Result, Verdict
from jobs.engine.heap import keep_freed_memory
from jobs.verbs.exitcodes import Exit
from jobs.verbs.output import emit, writing
from schemas.errors import ScanError, UsageError

_BRIEF = ("case", "name", "verdict", "value", "low", "high", "unit", "target", "peer")

_BAD = (Verdict.MISSED, Verdict.UNEQUAL, Verdict.FAILED)


def bench(
    names: Sequence[str],
    *,
    pairs: int,
    quick: bool,
    models: Path,
    device: str,
    json_file: Path | None,
    page_file: Path | None,
    strict: bool,
    form: str | None,
    output: Path | None,
    brief: bool,
) -> Exit:
    """Run the cases named, or all; returns SOME_FAILED where `strict` and a result is a bad one."""
    options = Options(pairs=min(pairs, 2) if quick else pairs, quick=quick, models=models, device=device)
    facts = machine()
    keep_freed_memory()
    results = []
    for case in _chosen(names):
        click.echo(f"{case.name}: {case.goal} ...", err=True)
        for result in run_case(case, options):
            click.echo(f"  {headline(result)}", err=True)
            results.append(result)
    records = [result.as_record() for result in results]
    _write(json_file, json.dumps({"machine": facts, "results": records}, indent=1) + "\n")
    _write(page_file, render(facts, records, {case.name: case.about for case in CASES.values()}))
    emit(_table(records, _BRIEF if brief else tuple(records[0])), form, output)
    bad = any(result.verdict in _BAD for result in results)
    return Exit.SOME_FAILED if strict and bad else Exit.OK


def catalogue() -> pa.Table:
    """The cases, what each aims at and what it measures."""
    rows = [{"case": case.name, "goal": case.goal, "measures": case.about} for case in CASES.values()]
    return pa.Table.from_pylist(rows)


def run_case(case: Case, options: Options) -> Iterator[Result]:
    """Results as they come; a case that cannot run here, or breaks off, is one that says why."""
    try:
        for result in case.run(options):
            yield replace(result, case=case.name, load=load())
    except NotRunError as reason:
        yield Result(case=case.name, name=case.name, note=str(reason))
    except (ScanError, UsageError, OSError) as error:
        yield Result(case=case.name, name=case.name, note=f"broke off: {error}", broken=True)


def headline(result: Result) -> str:
    """One line about a result, for people who wait."""
    value = f"{number(result.value)} {result.unit}, " if result.value is not None else ""
    aim = f" (target {result.target})" if result.target else ""
    why = f": {result.note}" if result.value is None and result.note else ""
    return f"{result.name}: {value}{result.verdict}{aim}{why}"


def _chosen(names: Sequence[str]) -> list[Case]:
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise UsageError(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return [case for name, case in CASES.items() if not names or name in names]


def _table(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    return pa.Table.from_pylist([{name: record[name] for name in columns} for record in records])


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
