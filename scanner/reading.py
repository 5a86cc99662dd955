"""The bytes of a file's rows and of their partners in a base, as one stream."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, repeat

from scanner.prefetch import AHEAD_LEAST, prefetched
from scanner.sources.base import Source, Span
from schemas.errors import SourceError
from schemas.records import record
from schemas.refs import Buffer, FileRef, MatrixRef, TensorRef

READ_AHEAD_FROM = 4 << 20
"""Bytes of a file below which nothing is read ahead: a thread and its hand-overs cost more than they save."""


@record(kw_only=False)
class Job:
    """A row, the bytes read for it, and those of its partner: None without one, or why they are not there."""

    ref: MatrixRef
    buffers: Sequence[Buffer]
    partner: Buffer | SourceError | None = None


def streamed(source: Source, refs: Sequence[MatrixRef], bases: Source, device: str = "cpu") -> Iterator[Job]:
    """Each row of a file once the last of its bytes is here.

    The next buffers are read meanwhile by a thread, where reading waits or another device does the work: to
    copy what is in memory it takes a twentieth of the host's time and saves nothing.
    """
    if refs:
        large = sum(ref.nbytes for ref in refs) >= READ_AHEAD_FROM
        least = AHEAD_LEAST if large and (device != "cpu" or _waits(source, refs, bases)) else 0
        with closing(prefetched(_groups(source, refs, bases), _nbytes, least=least)) as groups:
            for group in groups:
                yield from group


def _waits(source: Source, refs: Sequence[MatrixRef], bases: Source) -> bool:
    partners = (ref.partner for ref in refs if ref.partner)
    own = source.waits(refs[0].tensor.file, [(ref.start, ref.stop) for ref in refs])
    return own or any(bases.waits(one.tensor.file, [(one.start, one.stop)]) for one in partners)


def _groups(source: Source, refs: Sequence[MatrixRef], bases: Source) -> Iterator[list[Job]]:
    """The rows that each buffer of the file completes."""
    complete: dict[Span, list[MatrixRef]] = defaultdict(list)
    uses: dict[Span, int] = defaultdict(int)
    for ref in refs:
        spans = ref.spans
        complete[max(spans)].append(ref)
        for span in spans:
            uses[span] += 1
    wanted = sorted(uses)
    partners = [ref.partner for span in wanted for ref in complete[span] if ref.partner]
    elsewhere = _elsewhere(source, refs)
    own, beside = source.stream(refs[0].tensor.file, wanted), _partners(bases, partners)
    held: dict[Span, Buffer] = {}
    try:
        for span, buffer in zip(wanted, own, strict=True):
            held[span] = buffer
            yield [
                Job(ref, list(_bytes_of(ref, held, elsewhere)), next(beside) if ref.partner else None)
                for ref in complete[span]
            ]
            for part in [part for ref in complete[span] for part in ref.spans]:
                uses[part] -= 1
                if not uses[part]:
                    held.pop(part)
    finally:
        for stream in (own, beside):
            if isinstance(stream, Generator):
                stream.close()


def _nbytes(group: Sequence[Job]) -> int:
    """Bytes that a group of rows holds; rows may share a buffer."""
    parts = (part for job in group for part in (*job.buffers, job.partner))
    buffers = {id(part): part for part in parts if isinstance(part, Buffer)}
    return sum(map(len, buffers.values()))


def _elsewhere(source: Source, refs: Sequence[MatrixRef]) -> dict[TensorRef, bytes]:
    """Companions that lie in another shard than their codes, read before the stream begins."""
    others = {other for ref in refs for other in ref.others if other.file != ref.tensor.file}
    return {other: source.read(other.file, other.start, other.stop) for other in others}


def _bytes_of(
    ref: MatrixRef, held: Mapping[Span, Buffer], elsewhere: Mapping[TensorRef, bytes]
) -> Iterator[Buffer]:
    """A row's own bytes, then those of what it needs besides, in the order of `ref.others`."""
    yield held[ref.start, ref.stop]
    for other in ref.others:
        here = other.file == ref.tensor.file
        yield held[other.start, other.stop] if here else elsewhere[other]


def _partners(bases: Source, partners: Sequence[MatrixRef]) -> Iterator[Buffer | SourceError]:
    """The bytes of each partner, or why they can't be had; partners that share bytes share a buffer."""
    shared = [list(same) for _, same in groupby(partners, key=_place)]
    for same, buffer in zip(shared, _distinct(bases, [same[0] for same in shared]), strict=True):
        yield from repeat(buffer, len(same))


def _distinct(bases: Source, partners: Sequence[MatrixRef]) -> Iterator[Buffer | SourceError]:
    """One stream as long as offsets ascend in a file."""
    for run in _runs(partners):
        done = 0
        try:
            for buffer in bases.stream(run[0].tensor.file, [(one.start, one.stop) for one in run]):
                yield buffer
                done += 1
        except SourceError as error:
            if error.retryable:
                raise
            yield from repeat(error, len(run) - done)


def _runs(partners: Sequence[MatrixRef]) -> list[list[MatrixRef]]:
    runs: list[list[MatrixRef]] = []
    for one in partners:
        last = runs[-1][-1] if runs else None
        if last and last.tensor.file == one.tensor.file and last.stop <= one.start:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _place(one: MatrixRef) -> tuple[FileRef, int, int]:
    return one.tensor.file, one.start, one.stop
