"""Cases that cannot run, or break off, are results like others."""

import pytest

from jobs.bench.options import Options
from jobs.bench.pairs import figure
from jobs.bench.registry import Case
from jobs.bench.result import NotRunError, Verdict
from jobs.bench.run import headline, run_case
from schemas.errors import UsageError


def case_that(error):
    def run(options):
        yield figure("first", [1.0] * options.pairs, "s", at_most=2.0)
        raise error

    return Case("a-case", "a goal", run)


@pytest.mark.parametrize(
    ("error", "verdict", "note"),
    [
        (NotRunError("no card here"), Verdict.NOT_RUN, "no card here"),
        (UsageError("no lake"), Verdict.FAILED, "broke off: no lake"),
        (OSError(28, "disk full"), Verdict.FAILED, "broke off: [Errno 28] disk full"),
    ],
)
def test_what_came_before_an_end_is_kept(error, verdict, note):
    first, last = run_case(case_that(error), Options(pairs=2))
    assert (first.case, first.verdict, first.pairs) == ("a-case", Verdict.MET, 2)
    assert (last.case, last.verdict, last.note) == ("a-case", verdict, note)
    assert headline(last) == f"a-case: {verdict}: {note}"


def test_a_defect_of_a_case_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(run_case(case_that(ZeroDivisionError()), Options()))
