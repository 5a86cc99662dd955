"""Byte ranges of pinned hub files as a stream: few requests, resumed where they break.

http.client and one receive at a time straight into the caller's buffer: 0.2 to 0.4 CPU seconds per GB on
loopback, a half to a fifth of what the general HTTP clients cost.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

from scanner.sources.answers import file_error
from scanner.sources.base import Span
from scanner.sources.fetch import Body, Fetcher, stalled
from scanner.sources.room import room_for
from scanner.sources.transfer import DEFAULT_POLICY, Pace, Patience, TransferPolicy
from schemas.errors import SourceError
from schemas.refs import Buffer, FileRef
from schemas.results import FailureKind


def request_stops(spans: Sequence[Span], size: int, *, gap: int, whole_share: float) -> list[int]:
    """For each non-empty span of a file of `size` bytes, where the request that delivers it ends.

    Spans at most `gap` apart share a request; all do when they cover `whole_share` of the file.
    """
    whole = sum(stop - start for start, stop in spans) >= whole_share * size
    stops = [stop for _, stop in spans]
    for i in range(len(spans) - 2, -1, -1):
        if whole or spans[i + 1][0] - spans[i][1] <= gap:
            stops[i] = stops[i + 1]
    return stops


class RangeReader:
    """Reads ranges of files through a Fetcher. Not thread-safe; streams may be interleaved."""

    def __init__(self, fetcher: Fetcher, policy: TransferPolicy = DEFAULT_POLICY) -> None:
        self._fetcher = fetcher
        self._policy = policy

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Exactly the bytes start..stop of `file`. Raises SourceError once the policy gives up."""
        (buffer,) = self.stream(file, [(start, stop)])
        return bytes(buffer)

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield the bytes of each span in a buffer of its own, in order.

        Holds one span and one `chunk` in memory. Raises SourceError once the policy gives up; an
        interrupted transfer continues at the byte where it stopped.
        """
        _check_spans(file, spans)
        wanted = [span for span in spans if span[0] < span[1]]
        stops = request_stops(wanted, file.size, gap=self._policy.gap, whole_share=self._policy.whole_share)
        until = dict(zip(wanted, stops, strict=True))
        transfer = _Transfer(self._fetcher, file, self._policy)
        try:
            for start, stop in spans:
                buffer = room_for(file, start, stop)
                if len(buffer):
                    transfer.fill(buffer, start, until[start, stop])
                yield buffer
        finally:
            transfer.close()


class _Transfer:
    """A position that moves forward through one file, over as many GETs as it takes."""

    def __init__(self, fetcher: Fetcher, file: FileRef, policy: TransferPolicy) -> None:
        self._fetcher = fetcher
        self._file = file
        self._policy = policy
        self._patience = Patience(policy)
        self._pace = Pace(policy)
        self._body: Body | None = None
        self._position = 0
        self._stop = 0
        self._scratch = bytearray()

    def fill(self, view: memoryview, start: int, until: int) -> None:
        """Fill `view` from byte `start` on, by a GET that goes on to byte `until`."""
        if until != self._stop:
            self.close()
            self._stop = until
        self._skip_to(start)
        done = 0
        while done < len(view):
            done += self._advance(view[done : done + self._policy.chunk])

    def close(self) -> None:
        """End the current GET."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _skip_to(self, start: int) -> None:
        """Drop the bytes before `start`; without an open body there are none to drop."""
        if self._body is not None and self._position < start:
            self._scratch = self._scratch or bytearray(self._policy.chunk)
        with memoryview(self._scratch) as scratch:
            while self._body is not None and self._position < start:
                self._advance(scratch[: start - self._position])
        self._position = start

    def _advance(self, view: memoryview) -> int:
        """Store some bytes in `view` and return how many; 0 after a failure worth another try."""
        started = time.monotonic()
        try:
            if self._body is None:
                self._body = self._fetcher.open(self._file, self._position, self._stop)
            count = self._body.read_some(view)
        except SourceError as error:
            self.close()
            self._patience.after(error)
            return 0
        self._position += count
        self._patience.progressed(count)
        if self._position == self._stop:
            self.close()
        elif self._pace.too_slow(count, time.monotonic() - started):
            self.close()
            self._patience.after(
                stalled(self._file, f"slower than {self._policy.min_rate:.0f} bytes a second")
            )
        return count


def _check_spans(file: FileRef, spans: Sequence[Span]) -> None:
    for start, stop in spans:
        if not 0 <= start <= stop <= file.size:
            reason = f"bytes {start}..{stop} were asked of a file of {file.size}"
            raise file_error(file, FailureKind.SIZE_MISMATCH, reason)
    for (_, stop), (start, _) in pairwise(spans):
        if start < stop:
            raise ValueError(f"{file}: spans overlap or do not ascend at byte {start}")
