"""The compare verb: two models -> the layers of one against those of the other, the worst first."""

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from jobs.engine.driver import Request, Summary, run_scan
from jobs.engine.progress import placed, progress, quiet_progress
from jobs.lake.leaderboard import ask
from jobs.verbs.arguments import chosen_config, one_target, told
from jobs.verbs.exitcodes import Exit
from jobs.verbs.output import emit
from jobs.verbs.scanning import choose_device, exit_code, limits_of
from scanner.sources.targets import open_source
from scanner.text import printable
from schemas.config import ScanConfig
from schemas.errors import ScanError
from schemas.refs import RepoRef
from schemas.results import BaseStatus
from schemas.work import Target

_NOTHING = "{}: nothing to compare: no layer was measured, or all are of an adapter or packed codes"
_OF_PAIRS = "['ft_unstable', 'scale_collapse']"
_WHY_NOT = " ".join(
    f"WHEN '{status}' THEN '{status}: " + status.sentence.replace("'", "''") + "'"
    for status in BaseStatus
    if status is not BaseStatus.OK
)
_BRIEF = f"""
    concat_ws(' ', component, tensor, part, expert_id, slice_id) AS tensor,
    round(rel_delta, 5) AS rel_delta, round(d_log_spectral_norm, 3) + 0 AS d_scale,
    round(d_alpha, 3) + 0 AS d_alpha, round(subspace_overlap10, 3) AS overlap,
    round(scale_change_z, 1) + 0 AS z,
    CASE base_status {_WHY_NOT} ELSE array_to_string(list_transform(
        list_filter(findings, lambda f: list_contains({_OF_PAIRS}, f.kind)),
        lambda f: f.kind || ': ' || f.sentence
    ), '; ') END AS findings
"""


def compare(
    base: str,
    fine_tune: str,
    lake: Path | None,
    endpoint: str,
    device: str,
    profile: str,
    config_file: Path | None,
    quiet: bool,
    form: str | None,
    output: Path | None,
    limit: int,
    brief: bool,
) -> int:
    """Scan the fine-tune against the base and tell; returns the exit code.

    Raises UsageError for what names no model or several, and when a file or the lake can't be written.
    """
    config = chosen_config(profile, config_file)
    device = choose_device(device, config)
    here, there = one_target(fine_tune), one_target(base)
    try:
        there, pinned = _pinned(there, endpoint)
    except ScanError as error:
        click.echo(f"failed ({error.kind}) base {told(there, error)}", err=True)
        return Exit.SOME_FAILED
    with ExitStack() as stack:
        folder = lake or Path(stack.enter_context(TemporaryDirectory(prefix="hubspectra-"))) / "lake"
        request = Request(
            targets=(here,),
            base=there,
            lake=folder,
            config=_against(config, pinned),
            limits=limits_of(device),
            device=device,
            endpoint=endpoint.rstrip("/"),
        )
        with (quiet_progress if quiet else progress)() as display:
            summary = run_scan(request, display)
        _tell(summary, request, form, output, limit, brief)
    return exit_code(summary)


def _pinned(target: Target, endpoint: str) -> tuple[Target, RepoRef]:
    """The base at its present commit, so that every worker compares with the same one. Raises ScanError."""
    with closing(open_source(target, endpoint)) as source:
        ref = source.repository(target.repo_id, target.revision).ref
    if target.root is not None:
        return target, ref
    return Target(repo_id=ref.repo_id, revision=ref.revision), ref


def _against(config: ScanConfig, base: RepoRef) -> ScanConfig:
    """The config named after the base too: rows against another base are other rows."""
    stages = replace(config.stages, compared_with=f"{base.repo_id}@{base.revision}")
    return replace(config, stages=stages)


def _tell(
    summary: Summary, request: Request, form: str | None, output: Path | None, limit: int, brief: bool
) -> None:
    for failure in summary.failures:
        click.echo(f"failed ({failure.kind}) {placed(failure)}", err=True)
    for ref in summary.refs:
        place = [ref.repo_id, ref.revision, request.config.fingerprint()]
        click.echo("\n".join(map(printable, _headline(request.lake, place))), err=not brief)
        emit(_pairs(request.lake, place, limit, brief), form, output)


def _pairs(lake: Path, place: list[str], limit: int, brief: bool) -> Any:
    """Rows that were measured, those with findings against the base first, then the most changed."""
    query = (
        f"SELECT {_BRIEF if brief else '*'} FROM layers "
        "WHERE repo_id = ? AND revision = ? AND config_fingerprint = ? AND base_status IS NOT NULL "
        f"ORDER BY len(list_filter(findings, lambda f: list_contains({_OF_PAIRS}, f.kind))) DESC, "
        f"rel_delta DESC NULLS LAST, matrix_index LIMIT {int(limit)}"
    )
    return ask(lake, query, place)


def _headline(lake: Path, place: list[str]) -> list[str]:
    """A line a sub-model, and one for each finding about it as a whole."""
    where = "WHERE repo_id = ? AND revision = ? AND config_fingerprint = ?"
    found = ask(lake, f"SELECT * FROM fine_tunes {where}", place).to_pylist()
    model = ask(
        lake,
        f"SELECT flag, sentence FROM flags {where} AND tensor IS NULL AND flag IN ('ft_noop', 'scale_shift')",
        place,
    ).to_pylist()
    lines = [_summary(row) for row in found] or [_NOTHING.format(place[0])]
    return lines + [f"{row['flag']}: {row['sentence']}" for row in model]


def _summary(row: dict[str, Any]) -> str:
    name = f"{row['repo_id']}@{row['revision'][:12]}" + (f" {row['component']}" if row["component"] else "")
    median = f"{row['rel_delta_median']:.3g}" if row["rel_delta_median"] is not None else "none"
    return (
        f"{name} against {row['base_repo_id']}@{row['base_revision'][:12]}: {row['base_pairs']} pairs "
        f"({row['base_same_file']} in the base's own files), {row['base_unmatched']} without a counterpart, "
        f"{row['base_failed']} failed; median rel_delta {median}; "
        f"{row['num_ft_unstable']} ft_unstable, {row['num_scale_collapse']} scale_collapse"
    )
