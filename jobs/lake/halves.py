"""The rows of `layers` in two halves: measured ones, and skipped and failed ones.

The latter, most rows of most models, hold a quarter of the columns. Side by side each column would be values
and NULLs in turn, which takes half as long again to read, to move and to write.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.runs import begins, picked
from schemas.results import RowStatus
from schemas.rows import LayerMetrics

HALVES = 2


def measured_first(rows: Iterable[LayerMetrics]) -> list[LayerMetrics]:
    """Rows as they are written: those with numbers, then the others, each in their order."""
    return sorted(rows, key=lambda row: row.status != RowStatus.OK)


def halves(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The measured rows and the others, each in their order; no copies where measured rows come first."""
    measured = pc.equal(table.column("status"), RowStatus.OK.value).to_numpy()
    count = int(measured.sum())
    if measured[:count].all():
        return table.slice(0, count), table.slice(count)
    starts = begins([measured])
    lengths, first = np.diff(starts, append=len(measured)), measured[starts]
    return picked(table, starts[first], lengths[first]), picked(table, starts[~first], lengths[~first])
