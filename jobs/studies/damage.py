"""A NaN in one tensor: what it costs, and that everything is still accounted for."""

from __future__ import annotations

import numpy as np

from jobs.studies.matrices import gaussian, rows_of
from jobs.studies.study import Outcome, Study, same
from schemas.results import FlagKind, RowStatus

_NAMES = ("first.weight", "second.weight", "third.weight")


def damage(quick: bool) -> Outcome:
    """Scan three tensors, the second with one NaN."""
    del quick
    tensors = {name: gaussian(64, 48, seed=170 + i) for i, name in enumerate(_NAMES)}
    whole = {row.tensor: row.alpha for row in rows_of(tensors)}
    tensors[_NAMES[1]][7, 7] = np.nan
    rows = {row.tensor: row for row in rows_of(tensors)}
    statuses = [rows[name].status for name in _NAMES]
    hurt = rows[_NAMES[1]]
    others = [rows[name].alpha == whole[name] for name in (_NAMES[0], _NAMES[2])]
    checks = (
        same("statuses", statuses, [RowStatus.OK, RowStatus.FAILED, RowStatus.OK], "contract of the rows"),
        same("rows", len(rows), len(_NAMES), "contract of the rows"),
        same("entries counted", hurt.num_nonfinite, 1, "contract of the rows"),
        same(
            "findings of the damaged row",
            list(hurt.flags),
            [FlagKind.NONFINITE.value],
            "contract of the rows",
        ),
        same("alpha of the damaged row", hurt.alpha, None, "contract of the rows"),
        same("other rows as without the damage", others, [True, True], "contract of the rows"),
    )
    return Outcome(
        got=f"{statuses.count(RowStatus.FAILED)} failed row, {statuses.count(RowStatus.OK)} ok rows",
        checks=checks,
    )


DAMAGE = Study(
    id="V17",
    name="damage",
    question="A file of three tensors has one NaN. What is lost?",
    expected="1 failed row, 2 ok rows, counts add up",
    meaning="A damaged tensor costs its own row and nothing else, and the row says how many entries are not "
    "finite. No mean ever contains a NaN or a sentinel.",
    run=damage,
    quick=True,
)
