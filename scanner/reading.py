"""The rows of a file with their bytes, read in one pass and ahead of their use."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from scanner.ondevice import Job
from scanner.prefetch import prefetched
from scanner.sources.base import Source, Span
from schemas.refs import MatrixRef, TensorRef


def jobs_of(source: Source, refs: Sequence[MatrixRef]) -> Iterator[Job]:
    """Rows of one file with all bytes they need, as they are read. Raises SourceError."""
    elsewhere = _elsewhere(source, refs)
    for ref, held in _stream(source, refs):
        yield Job(ref, [held[0], *_companions(ref, held[1:], elsewhere)])


def _elsewhere(source: Source, refs: Sequence[MatrixRef]) -> dict[TensorRef, bytes]:
    """Companions that lie in another shard than their codes, read before the stream begins."""
    others = {other for ref in refs for other in ref.others if other.file != ref.tensor.file}
    return {other: source.read(other.file, other.start, other.stop) for other in others}


def _companions(
    ref: MatrixRef, held: Sequence[bytearray], elsewhere: Mapping[TensorRef, bytes]
) -> Iterator[bytes | bytearray]:
    """Bytes of what a row needs besides its own, in the order of `ref.others`."""
    here = iter(held)
    for other in ref.others:
        yield next(here) if other.file == ref.tensor.file else elsewhere[other]


def _stream(source: Source, refs: Sequence[MatrixRef]) -> Iterator[tuple[MatrixRef, list[bytearray]]]:
    """Each row with its bytes, once the last of them is here; the next buffers are read meanwhile."""
    complete: dict[Span, list[MatrixRef]] = defaultdict(list)
    for ref in refs:
        complete[max(ref.spans)].append(ref)
    uses = Counter(span for ref in refs for span in ref.spans)
    if not uses:
        return
    spans = sorted(uses)
    held: dict[Span, bytearray] = {}
    with closing(prefetched(source.stream(refs[0].tensor.file, spans))) as buffers:
        for span, buffer in zip(spans, buffers, strict=True):
            held[span] = buffer
            for ref in complete[span]:
                yield ref, [held[part] for part in ref.spans]
                uses.subtract(ref.spans)
            held = {part: held[part] for part in held if uses[part]}
