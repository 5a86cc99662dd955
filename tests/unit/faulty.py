"""Sources that do not do what they promise."""

from scanner.sources.local import LocalSource
from scanner.sources.room import NoRoom
from schemas.results import FailureKind


class Flaky(LocalSource):
    """A disk that stops after some spans."""

    def __init__(self, root, after, error):
        super().__init__(root)
        self._after, self._error = after, error

    def stream(self, file, spans):
        yield from super().stream(file, spans[: self._after])
        raise self._error


class Narrow(LocalSource):
    """A machine without memory for one span."""

    def __init__(self, root, span):
        super().__init__(root)
        self._span = span

    def stream(self, file, spans):
        for span in spans:
            if span == self._span:
                error = NoRoom(FailureKind.OUT_OF_MEMORY, "full", file=file.path)
                error.span = span
                raise error
            yield from super().stream(file, [span])
