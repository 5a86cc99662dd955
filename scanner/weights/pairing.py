"""Rows of a fine-tune -> the matrices of its base they are held against, by name, never by position."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.refs import Counterpart, FileRef, MatrixRef, RepoRef
from schemas.results import BaseStatus, Role

PREFIXES = ("module.", "model.", "base_model.model.")
"""What training wrappers put before a tensor's name; nothing else is stripped."""

Key = tuple[str | None, str, str | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Base:
    """A base pinned to a commit, and its matrices as planned from its headers."""

    ref: RepoRef
    matrices: tuple[MatrixRef, ...]


def plain_name(name: str) -> str:
    """A tensor's name without wrappers' prefixes, however many of them."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def paired(rows: Iterable[MatrixRef], base: Base | None) -> Iterator[MatrixRef]:
    """The rows, each with its counterpart in `base`; None is a base that there is not.

    An equal name comes before one that is equal without prefixes; where two tensors of the base are equal
    without prefixes, neither is taken. What the base skips, and packed codes, match nothing.
    """
    if base is None:
        nothing = Counterpart(status=BaseStatus.NO_BASE)
        yield from (row if row.skip else replace(row, base=nothing) for row in rows)
        return
    live = [matrix for matrix in base.matrices if not (matrix.skip or matrix.others)]
    exact = {_key(matrix, matrix.tensor.name): matrix for matrix in live}
    plain = _unambiguous(live)
    for row in rows:
        if row.skip:
            yield row
            continue
        match = exact.get(_key(row, row.tensor.name)) or plain.get(_key(row, plain_name(row.tensor.name)))
        yield replace(row, base=_counterpart(row, match, base.ref))


def _key(row: MatrixRef, name: str) -> Key:
    return row.component, name, row.part, row.expert_id, row.slice_id


def _unambiguous(rows: Sequence[MatrixRef]) -> Mapping[Key, MatrixRef]:
    found: dict[Key, MatrixRef] = {}
    twice: set[Key] = set()
    for row in rows:
        key = _key(row, plain_name(row.tensor.name))
        twice |= {key} if key in found else set()
        found[key] = row
    return {key: row for key, row in found.items() if key not in twice}


def _counterpart(row: MatrixRef, match: MatrixRef | None, repo: RepoRef) -> Counterpart:
    if row.role is Role.LORA or row.others:
        return Counterpart()
    if match is None:
        return Counterpart(status=BaseStatus.NO_MATCH, repo=repo)
    if match.shape != row.shape:
        return Counterpart(status=BaseStatus.SHAPE_MISMATCH, repo=repo, matrix=match)
    place, other = (row.start, row.stop, row.cut), (match.start, match.stop, match.cut)
    same = place == other and _same_bytes(row.tensor.file, match.tensor.file)
    return Counterpart(status=BaseStatus.SAME_FILE if same else BaseStatus.OK, repo=repo, matrix=match)


def _same_bytes(one: FileRef, other: FileRef) -> bool:
    """Equal hashes of equal size; ids that two sources made differently are never equal."""
    if one.sha256 is not None and one.sha256 == other.sha256:
        return True
    return one.size == other.size and one.content_id == other.content_id
