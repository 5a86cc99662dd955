"""Small models that wait for company: a part takes milliseconds to write and to read, whatever it holds."""

import time
from dataclasses import dataclass

from schemas.rows import LayerMetrics, RepositoryRow

ROWS = 16_384
"""Rows of layers that are written together, which many workers make in a moment. A compaction reads half as
many again in a second as from parts of 4,096, no more from larger ones; one busies the driver for 0.4 s."""
SECONDS = 5.0
"""How long a model waits at most, and what a kill may cost of small models' work."""

_ROWS_OF_SMALL = 2048
_SECONDS_OF_SMALL = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A finished model: the name of its part, its rows of layers and of repositories, and who scanned it."""

    key: str
    rows: tuple[LayerMetrics, ...]
    about: tuple[RepositoryRow, ...]
    scan_id: str

    @property
    def small(self) -> bool:
        """Whether it may wait: it is soon scanned again, and a part of its own would be mostly overhead."""
        quick = sum(row.secs or 0.0 for row in self.rows) <= _SECONDS_OF_SMALL
        return quick and len(self.rows) <= _ROWS_OF_SMALL


class Gathering:
    """Models of one scan that are not written yet."""

    def __init__(self) -> None:
        self._models: list[Model] = []
        self._since = 0.0

    def add(self, model: Model) -> None:
        """Keep a model."""
        if not self._models:
            self._since = time.monotonic()
        self._models.append(model)

    @property
    def full(self) -> bool:
        """Whether there are rows enough to write."""
        return sum(len(model.rows) for model in self._models) >= ROWS

    def waited(self, seconds: float) -> bool:
        """Whether the first of the models has waited so long; False where there is none."""
        return bool(self._models) and time.monotonic() - self._since >= seconds

    def taken(self) -> list[Model]:
        """All models, which are gathered no more, in the order in which a merged file has them."""
        models, self._models = self._models, []
        return sorted(models, key=lambda model: _key(model.about[0]))


def _key(row: RepositoryRow) -> tuple[str, str, str]:
    return (row.repo_id, row.revision, row.config_fingerprint)
