"""The explain verb: one matrix read again, fitted in every way, with the evidence of each finding."""

from contextlib import closing
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from jobs.lake.generations import MARKER
from jobs.lake.leaderboard import ask
from jobs.verbs.arguments import one_target, told
from jobs.verbs.output import as_json, emit, emit_text
from scanner.explain import Explanation, explain
from scanner.pipeline import read_row
from scanner.planning import plan_repository
from scanner.sources.base import Source
from scanner.sources.targets import open_source
from scanner.text import printable
from scanner.weights.opened import open_weights
from schemas.config import ScanConfig, from_json
from schemas.errors import ScanError, UsageError
from schemas.refs import MatrixRef, RepoRef
from schemas.results import FlagKind
from schemas.work import Target

_RIVALS = {
    "EXP": "exponential",
    "SEXP": "stretched exponential",
    "LOGN": "lognormal",
    "TPL": "truncated power law",
}
_SHOWN_NAMES = 12

Document = dict[str, Any]


def explain_tensor(
    target: str,
    tensor: str,
    lake: Path,
    endpoint: str,
    form: str | None,
    output: Path | None,
    plot: Path | None,
    part: str | None,
) -> None:
    """Read the matrix again and tell all of it; a scan of it in the lake is held against it.

    Raises UsageError where the repository, the tensor or its bytes can't be had, naming what there is.
    """
    where = one_target(target)
    stored = _stored(lake, where)
    try:
        with closing(open_source(where, endpoint)) as source:
            ref, made = _explained(source, where, tensor, part, stored)
    except ScanError as error:
        raise UsageError(told(where, error)) from error
    document = _document(ref, made, _findings(lake, stored, ref, made))
    if plot is not None:
        from jobs.verbs.plots import draw

        draw(made, f"{where.repo_id}  {_named(ref)}", plot)
        document["plot"] = str(plot)
    if form == "json":
        emit_text(as_json(document), output)
    else:
        _tell(document)


def _explained(
    source: Source, where: Target, tensor: str, part: str | None, stored: Document
) -> tuple[MatrixRef, Explanation]:
    config = from_json(stored["config_json"]) if stored.get("config_json") else ScanConfig()
    revision = None if where.root else stored.get("revision")
    pinned = source.repository(where.repo_id, where.revision or revision)
    plan = plan_repository(source, pinned, config)
    ref = _chosen([*plan.live, *plan.skipped], tensor, part)
    weights = open_weights(ref, read_row(source, ref))
    ref = replace(ref, shape=weights.shape)
    return ref, explain(ref, weights, config)


def _chosen(rows: list[MatrixRef], tensor: str, part: str | None) -> MatrixRef:
    """The row meant by a whole name, or by a piece of it that only one row has."""
    named = {_named(row): row for row in rows}
    live = {name: row for name, row in named.items() if row.skip is None}
    whole = {name for name, row in named.items() if tensor in (name, row.tensor.name)}
    found = {name for name in whole or {n for n in live if tensor in n} if part in (None, named[name].part)}
    if len(found) > 1:
        raise UsageError(f"{tensor!r} could be any of {len(found)}: {_listed(sorted(found))}")
    if not found:
        near = get_close_matches(tensor, live, n=_SHOWN_NAMES, cutoff=0.3) or sorted(live)
        raise UsageError(f"no tensor {tensor!r} with a spectrum; there are {_listed(near)}")
    row = named[found.pop()]
    if row.skip is not None:
        raise UsageError(f"{_named(row)} has no spectrum: {row.skip.sentence}")
    return row


def _named(row: MatrixRef) -> str:
    """The tensor, and which part, expert or slice of it the row is."""
    of = {"part": row.part, "expert": row.expert_id, "slice": row.slice_id}
    return " ".join([row.tensor.name, *(f"{key} {value}" for key, value in of.items() if value is not None)])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(map(printable, names[:_SHOWN_NAMES])) + more


def _stored(lake: Path, where: Target) -> Document:
    """Revision and config of the latest scan of the repository, or nothing."""
    if not (lake / MARKER).is_file():
        return {}
    query = (
        "SELECT revision, config_fingerprint, config_json FROM repositories LEFT JOIN configs "
        "USING (config_fingerprint) WHERE repo_id = ? ORDER BY scanned_at DESC LIMIT 1"
    )
    rows: list[Document] = ask(lake, query, [where.repo_id]).to_pylist()
    return rows[0] if rows else {}


def _findings(lake: Path, stored: Document, ref: MatrixRef, made: Explanation) -> list[Document]:
    """What the entries say, and then what only a scan knows: of siblings, a base, the rest of the lake."""
    said = [_finding(flag.kind, flag.value, flag.threshold, flag.sentence) for flag in made.findings]
    if not stored or stored["revision"] != ref.tensor.file.repo.revision:
        return said
    query = (
        "SELECT flag, value, threshold, sentence FROM flags WHERE repo_id = ? AND revision = ? "
        "AND config_fingerprint = ? AND file = ? AND tensor = ? AND part IS NOT DISTINCT FROM ? "
        "AND expert_id IS NOT DISTINCT FROM ? AND slice_id IS NOT DISTINCT FROM ?"
    )
    of: RepoRef = ref.tensor.file.repo
    place = [of.repo_id, of.revision, stored["config_fingerprint"], ref.tensor.file.path, ref.tensor.name]
    rows = ask(lake, query, [*place, ref.part, ref.expert_id, ref.slice_id]).to_pylist()
    known = {finding["flag"] for finding in said}
    return said + [_finding(**row) for row in rows if row["flag"] not in known]


def _finding(flag: str, value: float | None, threshold: float | None, sentence: str) -> Document:
    meaning = FlagKind(flag).sentence
    return {
        "flag": str(flag),
        "value": value,
        "threshold": threshold,
        "sentence": sentence,
        "meaning": meaning,
    }


def _document(ref: MatrixRef, made: Explanation, findings: list[Document]) -> Document:
    row = {name: value for name, value in asdict(made.row).items() if value is not None}
    return {
        "repo_id": made.row.repo_id,
        "revision": made.row.revision,
        "file": made.row.file,
        "tensor": _named(ref),
        "estimates": _estimates(made),
        "alternatives": _alternatives(made),
        "findings": findings,
        "row": row,
    }


def _estimates(made: Explanation) -> list[Document]:
    row, opinion = made.row, made.opinion
    lines = [
        _estimate("hubspectra hs1", row.alpha, row.alpha_stderr, row.xmin, row.n_tail, row.D_ks),
        _estimate("  cut at xmax (truncated)", row.alpha_trunc),
        _estimate("  Hill, upper half", row.alpha_hill),
        _estimate("  from the histogram peak", row.alpha_peak),
        _estimate(f"  without the top {row.num_fingers or 0}", row.alpha_clipped),
        _estimate("  square windows (FARMS)", row.alpha_farms),
    ]
    if opinion is not None:
        name, fits = f"powerlaw {opinion.version}", (opinion.searched, opinion.at_xmin)
        for label, fit in zip((f"{name}, own xmin", f"{name}, our xmin"), fits, strict=True):
            if fit is not None:
                lines.append(_estimate(label, fit.alpha, None, fit.xmin, fit.n_tail, fit.D_ks))
    ww = made.weightwatcher
    if row.lora_rank is None or row.fit_ok:  # it fits two eigenvalues too, and has no rule for updates
        lines.append(
            _estimate("WeightWatcher's rule", ww.alpha, ww.alpha_stderr, ww.xmin, ww.n_tail, ww.D_ks)
        )
    return [line for line in lines if line["alpha"] is not None]


def _estimate(
    estimate: str,
    alpha: float | None,
    stderr: float | None = None,
    xmin: float | None = None,
    n_tail: int | None = None,
    distance: float | None = None,
) -> Document:
    return {
        "estimate": estimate,
        "alpha": alpha,
        "stderr": stderr,
        "xmin": xmin,
        "n_tail": n_tail,
        "D_ks": distance,
    }


def _alternatives(made: Explanation) -> list[Document]:
    """Log-likelihood ratios in nats, ours and the package's; above 0 the power law is the likelier."""
    row, opinion = made.row, made.opinion
    if row.llr_exp is None:
        return []
    return [
        {
            "alternative": name,
            "R": getattr(row, f"llr_{code.lower()}"),
            "p": getattr(row, f"llr_{code.lower()}_p"),
            "R_powerlaw": opinion.llr[code] if opinion else None,
            "p_powerlaw": opinion.p[code] if opinion else None,
            "says": _verdict(row.best_dist, code, code in (row.alt_at_boundary or ())),
        }
        for code, name in _RIVALS.items()
    ]


def _verdict(best: str | None, code: str, at_boundary: bool) -> str:
    if best == code:
        return "describes the tail better"
    return "its best fit is the power law itself" if at_boundary else ""


def _tell(document: Document) -> None:
    row = document["row"]
    click.echo(f"{document['repo_id']}@{document['revision'][:12]} {printable(document['file'])}")
    click.echo(f"{printable(document['tensor'])}: {_sides(row)}")
    _table(document["estimates"], "How heavy is the tail? (theirs: one-sided D_ks)")
    _table(document["alternatives"], "Is it a power law? (R > 0 favours it; nats)")
    click.echo(_update_sentence(row) if "lora_rank" in row else _bulk_sentence(row))
    click.echo("")
    for finding in document["findings"]:
        click.echo(f"{finding['flag']}: {printable(finding['sentence'])}\n    {finding['meaning']}")
    if not document["findings"]:
        click.echo("No findings.")
    if "plot" in document:
        click.echo(f"plot: {document['plot']}", err=True)


def _sides(row: Document) -> str:
    kernel = f" x {row['kernel_size']} slices" if row["kernel_size"] > 1 else ""
    return (
        f"role {row['role']}, {row['N']} x {row['M']}{kernel}, {row['dtype']}, "
        f"{row['num_evals']} eigenvalues by {row['spectrum_method']}, fit {row['fit_status']}"
    )


def _update_sentence(row: Document) -> str:
    """What there is to say of a product whose rank is given: it has no random bulk."""
    update = f"Update of rank {row['lora_rank']}, scaled by {row['lora_scale']:g}"
    if "norm" not in row:
        return f"{update}: all zero."
    return (
        f"{update}: Frobenius norm {row['norm'] ** 0.5:.3g}, spectral norm {row['lambda_max'] ** 0.5:.3g}; "
        f"stable rank {row['stable_rank']:.1f}, effective rank {row['eff_rank']:.1f}."
    )


def _bulk_sentence(row: Document) -> str:
    if row["bulk_status"] != "ok":
        return f"Random bulk: {row['bulk_status']}."
    chance = (
        f" A power law fits worse in a share {row['p_boot']:.2f} of replicates." if "p_boot" in row else ""
    )
    traps = f" Shuffled, {row['num_traps']} eigenvalues stand out." if "num_traps" in row else ""
    return (
        f"Phase {row.get('phase')}: {row['num_spikes']} of {row['num_evals']} eigenvalues above the random "
        f"bulk, which {'is' if row['mp_ok'] else 'is not'} Marchenko-Pastur (KS {row['mp_D']:.3f}); "
        f"soft rank {row['mp_softrank']:.3f}; stable rank {row['stable_rank']:.1f}.{traps}{chance}"
    )


def _table(rows: list[Document], title: str) -> None:
    if rows:
        emit(pa.Table.from_pylist(rows), "table", None, title)
