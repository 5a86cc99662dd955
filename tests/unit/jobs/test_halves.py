"""Measured rows and the others, apart and each in its order."""

from dataclasses import replace

import pytest
from nouns import ROW

from jobs.lake.halves import halves, measured_first
from jobs.lake.words import worded
from schemas.results import RowStatus
from schemas.tables import to_table

OK, SKIPPED, FAILED = RowStatus.OK, RowStatus.SKIPPED, RowStatus.FAILED


def rows_of(*statuses):
    return [replace(ROW, matrix_index=i, status=status) for i, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "measured", "others"),
    [
        ((), [], []),
        ((OK, OK), [0, 1], []),
        ((SKIPPED, FAILED), [], [0, 1]),
        ((OK, SKIPPED, FAILED), [0], [1, 2]),
        ((SKIPPED, OK, FAILED, OK, SKIPPED), [1, 3], [0, 2, 4]),
    ],
)
@pytest.mark.parametrize("encode", [worded, lambda table: table])
def test_every_row_is_in_one_half(statuses, measured, others, encode):
    found = halves(encode(to_table("layers", rows_of(*statuses))))
    assert [half.column("matrix_index").to_pylist() for half in found] == [measured, others]
    assert [row.matrix_index for row in measured_first(rows_of(*statuses))] == [*measured, *others]
