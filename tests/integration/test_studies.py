"""Every validation experiment: the quick ones in each run of the tests, the long ones on request."""

import pytest

from jobs.studies.catalog import STUDIES
from jobs.studies.study import NotAvailable, Verdict

QUICK = [study for study in STUDIES if study.quick]
LONG = [study for study in STUDIES if not study.quick]


def run(study, quick):
    try:
        return study.run(quick)
    except NotAvailable as missing:
        pytest.skip(str(missing))


def missed(outcome, *verdicts):
    return [f"{c.what}: expected {c.expected}, got {c.got}" for c in outcome.checks if c.verdict in verdicts]


@pytest.mark.parametrize("study", QUICK, ids=lambda study: study.name)
def test_a_quick_study_passes_every_check(study):
    outcome = run(study, quick=True)
    assert outcome.checks
    assert missed(outcome, Verdict.FAIL, Verdict.DEVIATES) == []


@pytest.mark.slow
@pytest.mark.parametrize("study", LONG, ids=lambda study: study.name)
def test_a_long_study_fails_no_check(study):
    outcome = run(study, quick=False)
    assert outcome.checks
    assert missed(outcome, Verdict.FAIL) == []


@pytest.mark.parametrize("name", ["siblings", "precision", "calibration"])
def test_a_study_answers_the_same_each_time(name):
    (study,) = (study for study in STUDIES if study.name == name)
    first, second = study.run(True), study.run(True)
    assert (first.got, first.checks, first.tables) == (second.got, second.checks, second.tables)
