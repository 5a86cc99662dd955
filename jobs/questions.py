"""The questions the CLI asks of a lake, as SQL over its views."""

from pathlib import Path
from typing import Any

from jobs.leaderboard import ask
from schemas.errors import UsageError

_SEVERITY = """
CASE
    WHEN status = 'failed' THEN 0
    WHEN list_has_any(flags, ['zero_matrix', 'scale_outlier', 'rank_collapse']) THEN 1
    WHEN list_has_any(flags, ['under_trained', 'over_trained', 'random_like']) THEN 2
    WHEN list_has_any(flags, ['no_tail']) THEN 3
    WHEN list_has_any(flags, ['fit_unreliable']) THEN 4
    WHEN status = 'ok' THEN 5
    ELSE 6
END"""

_RANK_OF_FLAG = (
    "list_position(['untrained_like', 'nonfinite', 'zero_matrix', 'scale_outlier', 'rank_collapse', "
    "'over_trained', 'under_trained', 'random_like'], flag)"
)

_FINDINGS = "list_sort(list_filter(flags, lambda f: f NOT IN ('fit_unreliable', 'no_tail')))"


def leaderboard(lake: Path, limit: int, brief: bool) -> Any:
    """The leaderboard; `brief` keeps what fits a terminal."""
    columns = (
        "stratum_rank AS rank, repo_id, round(alpha_hill_mean, 3) AS alpha_hill, "
        "round(alpha_mean, 2) AS alpha, "
        f"round(log_spectral_norm_mean, 2) AS log_spectral_norm, num_counted AS layers, "
        f"num_fit_unreliable AS weak_fits, dtype_main AS dtype, status, {_FINDINGS} AS findings, "
        "stratum_key AS stratum"
        if brief
        else "*"
    )
    return ask(lake, f"SELECT {columns} FROM leaderboard LIMIT {int(limit)}")


def layers(lake: Path, repo_id: str, limit: int, brief: bool, everything: bool) -> Any:
    """Layers of the latest scan of one repository, worst first. Raises UsageError if it is not there."""
    found = ask(
        lake,
        "SELECT revision, config_fingerprint FROM models WHERE repo_id = ? ORDER BY scanned_at DESC LIMIT 1",
        [repo_id],
    ).to_pylist()
    if not found:
        raise UsageError(_unknown(lake, repo_id))
    columns = (
        "tensor, role, N, M, status, round(alpha, 2) AS alpha, round(alpha_stderr, 2) AS stderr, "
        "round(D_ks, 3) AS D_ks, n_tail, round(stable_rank, 1) AS stable_rank, "
        "round(log_spectral_norm, 2) AS log_spectral_norm, round(mp_softrank, 2) AS mp_softrank, phase, "
        "coalesce(status_reason, '') AS reason, flags"
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
    return ask(lake, query, [repo_id, found[0]["revision"], found[0]["config_fingerprint"]])


def model(lake: Path, repo_id: str) -> dict[str, Any]:
    """The latest row of `models` for a repository."""
    query = "SELECT * FROM models WHERE repo_id = ? ORDER BY scanned_at DESC LIMIT 1"
    row: dict[str, Any] = ask(lake, query, [repo_id]).to_pylist(maps_as_pydicts="strict")[0]
    return row


def flags(lake: Path, kind: str | None, repo_id: str | None, limit: int, brief: bool) -> Any:
    """Findings, the weighty kinds first; without a kind, unreliable fits are left to those who ask."""
    columns = "repo_id, flag, tensor, round(value, 4) AS value, round(threshold, 4) AS threshold, sentence"
    conditions, values = ["TRUE"], []
    if kind is not None:
        conditions, values = ["flag = ?"], [kind]
    elif brief:
        conditions = ["flag NOT IN ('fit_unreliable', 'no_tail')"]
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
        "arg_max(sentence, abs(value)) AS example FROM flags WHERE flag NOT IN ('fit_unreliable', 'no_tail') "
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
    near = ask(
        lake,
        "SELECT DISTINCT repo_id FROM repositories ORDER BY levenshtein(lower(repo_id), lower(?)) LIMIT 3",
        [repo_id],
    ).column(0)
    names = ", ".join(near.to_pylist())
    return f"{repo_id} is not in the lake" + (f"; near it: {names}" if names else ": the lake is empty")
