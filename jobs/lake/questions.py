"""The questions the CLI asks of a lake, as SQL over its views."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.lake.leaderboard import ask
from schemas.errors import UsageError
from schemas.results import FlagKind

_WEIGHTY = (
    FlagKind.UNTRAINED_LIKE,
    FlagKind.FT_NOOP,
    FlagKind.SCALE_SHIFT,
    FlagKind.NONFINITE,
    FlagKind.ZERO_MATRIX,
    FlagKind.SCALE_COLLAPSE,
    FlagKind.SCALE_OUTLIER,
    FlagKind.RANK_COLLAPSE,
    FlagKind.FT_UNSTABLE,
    FlagKind.CORRELATION_TRAP,
    FlagKind.OVER_TRAINED,
    FlagKind.UNDER_TRAINED,
    FlagKind.ERG_VIOLATED,
    FlagKind.RANDOM_LIKE,
    FlagKind.ANOMALOUS_ALPHA,
    FlagKind.DEPTH_IRREGULAR,
)
"""Of whole models, of broken layers, of their training; last what is only unlike its peers."""

_WEAK = (FlagKind.NO_TAIL, FlagKind.FIT_UNRELIABLE, FlagKind.WELL_TRAINED)

BY_WEIGHT = (*_WEIGHTY, *_WEAK)
"""Every kind of finding, the weightiest first: the order of findings, and of layers by their worst."""


def _listed(kinds: Sequence[FlagKind]) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)


_RANK_OF_FLAG = f"list_position([{_listed(BY_WEIGHT)}], flag)"

_SEVERITY = f"""
CASE status
    WHEN 'failed' THEN 0
    WHEN 'ok' THEN coalesce(list_min(list_transform(flags, lambda flag: {_RANK_OF_FLAG})), {len(BY_WEIGHT)})
    ELSE {len(BY_WEIGHT) + 1}
END"""
"""Of a layer, 0 the worst; one without findings stands beside the well-trained ones."""

STRATUM = "stratum"

_QUIET = f"({_listed(_WEAK)})"
"""Kinds that are listed only when asked for: weak evidence, and good news."""

_FINDINGS = f"list_filter(flags, lambda f: f NOT IN {_QUIET})"


def leaderboard(lake: Path, limit: int, brief: bool) -> Any:
    """The leaderboard; `brief` keeps what fits a terminal, with the stratum in the column STRATUM."""
    columns = (
        f"stratum_key AS {STRATUM}, stratum_rank AS rank, concat_ws(' ', repo_id, component) AS model, "
        "round(alpha_hill_mean, 3) AS alpha_hill, round(alpha_mean, 2) AS alpha, "
        "round(log_spectral_norm_mean, 2) AS scale, num_counted AS layers, "
        f"num_fit_unreliable AS weak, {_FINDINGS} AS findings"
        if brief
        else "*"
    )
    return ask(lake, f"SELECT {columns} FROM leaderboard LIMIT {int(limit)}")


def layers(lake: Path, repo_id: str, limit: int, brief: bool, everything: bool) -> Any:
    """Layers of the latest scan of one repository, worst first. Raises UsageError if it is not there."""
    latest = model(lake, repo_id)
    columns = (
        "concat_ws(' ', component, tensor, part, expert_id, slice_id) AS tensor, role, N, M, "
        "round(alpha, 2) AS alpha, round(alpha_stderr, 2) AS stderr, round(D_ks, 3) AS D_ks, n_tail, "
        "round(log_spectral_norm, 2) AS scale, phase, "
        "CASE WHEN status = 'ok' THEN array_to_string(flags, ', ') "
        "ELSE concat(status, ': ', status_reason) END AS findings"
        if brief
        else "*"
    )
    shown = "TRUE" if everything else "status <> 'skipped'"
    query = (
        f"SELECT {columns} FROM layers "
        f"WHERE repo_id = ? AND revision = ? AND config_fingerprint = ? AND {shown} "
        f"ORDER BY {_SEVERITY}, abs(scale_dev) DESC NULLS LAST, alpha DESC NULLS LAST, matrix_index "
        f"LIMIT {int(limit)}"
    )
    return ask(lake, query, [repo_id, latest["revision"], latest["config_fingerprint"]])


def model(lake: Path, repo_id: str) -> dict[str, Any]:
    """The latest row of `models` for a repository. Raises UsageError if it is not there."""
    query = "SELECT * FROM models WHERE repo_id = ? ORDER BY scanned_at DESC LIMIT 1"
    rows: list[dict[str, Any]] = ask(lake, query, [repo_id]).to_pylist(maps_as_pydicts="strict")
    if not rows:
        raise UsageError(_unknown(lake, repo_id))
    return rows[0]


def flags(lake: Path, kind: str | None, repo_id: str | None, limit: int, brief: bool) -> Any:
    """Findings, the weighty kinds first; without a kind, no weak evidence and no good news.

    Raises UsageError for a kind that does not exist and a repository that is not there.
    """
    if kind is not None and kind not in list(FlagKind):
        raise UsageError(f"no such kind of finding: {kind}; choose one of {', '.join(FlagKind)}")
    if repo_id is not None:
        model(lake, repo_id)
    columns = "repo_id, flag, tensor, round(value, 4) AS value, round(threshold, 4) AS threshold, sentence"
    conditions, values = ["TRUE"], []
    if kind is not None:
        conditions, values = ["flag = ?"], [kind]
    elif brief:
        conditions = [f"flag NOT IN {_QUIET}"]
    if repo_id is not None:
        conditions.append("repo_id = ?")
        values.append(repo_id)
    order = f"{_RANK_OF_FLAG}, repo_id, abs(value) DESC, tensor"
    return ask(
        lake,
        f"SELECT {columns if brief else '*'} FROM flags WHERE {' AND '.join(conditions)} ORDER BY {order} "
        f"LIMIT {int(limit)}",
        values,
    )


def headlines(lake: Path) -> Any:
    """One line a repository and kind of weighty finding, with its worst example."""
    return ask(
        lake,
        "SELECT repo_id, flag, count(*) AS findings, arg_max(tensor, abs(value)) AS worst, "
        f"arg_max(sentence, abs(value)) AS example FROM flags WHERE flag NOT IN {_QUIET} "
        f"GROUP BY repo_id, flag ORDER BY {_RANK_OF_FLAG}, repo_id",
    )


def runs(lake: Path) -> Any:
    """Scans of the lake, latest first."""
    return ask(
        lake,
        "SELECT scan_id, status, started_at, round(wall_secs, 1) AS secs, num_repos AS repos, "
        "num_repos_done_before AS done_before, num_repos_ok AS ok, num_repos_failed AS failed, "
        "num_matrices AS matrices, num_ok AS layers, num_skipped AS skipped, num_failed AS failed_layers, "
        "bytes_read FROM runs ORDER BY scan_id DESC",
    )


def failures(lake: Path) -> Any:
    """Failures that no later scan resolved."""
    return ask(
        lake,
        "SELECT repo_id, kind, file, tensor, message, attempt, retryable, last_at FROM failures "
        "WHERE NOT resolved ORDER BY last_at DESC, repo_id, file, tensor",
    )


def _unknown(lake: Path, repo_id: str) -> str:
    query = "SELECT message FROM failures WHERE repo_id = ? AND NOT resolved ORDER BY last_at DESC LIMIT 1"
    failed = ask(lake, query, [repo_id]).column(0).to_pylist()
    if failed:
        return f"{repo_id} could not be scanned: {failed[0]}"
    near = ask(
        lake,
        "SELECT DISTINCT repo_id FROM repositories ORDER BY levenshtein(lower(repo_id), lower(?)) LIMIT 3",
        [repo_id],
    ).column(0)
    names = ", ".join(near.to_pylist())
    return f"{repo_id} is not in the lake" + (
        f"; near it: {names}" if names else ", which is empty: scan it first"
    )
