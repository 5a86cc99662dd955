"""Sources that do not do what they promise."""

from scanner.sources.local import LocalSource


class Flaky(LocalSource):
    """A disk that stops after some spans."""

    def __init__(self, root, after, error):
        super().__init__(root)
        self._after, self._error = after, error

    def stream(self, file, spans):
        yield from super().stream(file, spans[: self._after])
        raise self._error
