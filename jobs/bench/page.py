"""PURE. Measurements as a page of documentation: what was measured, on what, how it came out."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

Record = Mapping[str, Any]

_HEAD = """# Benchmarks

Made by `{command}`; every figure is in `benchmarks.json` beside this page, and the same command repeats them.

A *value* is the median over pairs of their time divided by ours, or, where no peer is named, a figure of
our own; its range is in brackets. Both sides run in turn in one process on one thread (A B A B), both on a
heap that keeps what is freed (jobs/engine/heap.py), after a first run of each that warms them up and whose
numbers must agree: where they do not, no time is taken. Times are process CPU seconds unless a row says
wall. Ratios carry over to other machines better than seconds do.
"""
_COLUMNS = ("what", "against", "value", "target", "verdict", "ours", "theirs", "pairs")


def render(machine: Record, results: Sequence[Record], about: Mapping[str, str]) -> str:
    """The page as Markdown; `about` says of each case what it is."""
    parts = [_HEAD.format(command=machine["command"]), _summary(results), _machine(machine)]
    for case, rows in groupby(results, key=lambda row: str(row["case"])):
        parts.append(_case(case, list(rows), about.get(case, "")))
    return "\n".join(parts)


def number(value: float | None) -> str:
    """Three significant figures, no exponent between 0.001 and a million."""
    if value is None:
        return ""
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}" if value else "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _summary(results: Sequence[Record]) -> str:
    verdicts = [row["verdict"] for row in results]
    counts = (f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    return f"**{len(results)} measurements: {', '.join(counts)}.**\n"


def _machine(machine: Record) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    facts = (
        f"{machine['date']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
        f"Python {machine['python']}; {versions}",
        f"BLAS: {'; '.join(machine['blas'])}",
        f"threads: {machine['threads']}; load average at the start {machine['load']}",
    )
    return "## Machine\n\n" + "\n".join(f"- {fact}" for fact in facts) + "\n"


def _case(case: str, rows: Sequence[Record], about: str) -> str:
    lines = [f"## {case}\n", f"{about}\n", _row(_COLUMNS), _row("---" for _ in _COLUMNS)]
    lines += [_row(_cells(row)) for row in rows]
    remarks = [f"- {row['name']}: {text}" for row in rows if (text := _remark(row))]
    return "\n".join([*lines, *([""] if remarks else []), *remarks, ""])


def _cells(row: Record) -> Iterable[str]:
    times = row["measured"]
    yield row["name"]
    yield row["peer"] or ""
    yield _value(row)
    yield f"{row['target']} {row['unit']}" if row["target"] else ""
    yield row["verdict"]
    yield f"{number(row['ours'])} {times}" if row["ours"] is not None else ""
    yield f"{number(row['theirs'])} {times}" if row["theirs"] is not None else ""
    yield str(row["pairs"] or "")


def _value(row: Record) -> str:
    if row["value"] is None:
        return ""
    spread = f" ({number(row['low'])} to {number(row['high'])})" if row["pairs"] > 1 else ""
    return f"**{number(row['value'])} {row['unit']}**{spread}"


def _remark(row: Record) -> str:
    load = f"load {row['load']}" if row["load"] is not None and row["value"] is not None else ""
    return "; ".join(filter(None, (row["note"], row["equal"], load)))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
