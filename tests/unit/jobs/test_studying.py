"""Checks, verdicts, the report and the verb of the studies."""

import json
import re
from math import nan
from pathlib import Path

import pytest
from running import run_cli

from jobs.studies.catalog import STUDIES, chosen
from jobs.studies.report import PAGE, write
from jobs.studies.study import (
    Figure,
    Known,
    NotAvailable,
    Outcome,
    Study,
    Table,
    Verdict,
    at_least,
    at_most,
    near,
    near_share,
    same,
    tally,
)
from jobs.verbs.exitcodes import Exit
from jobs.verbs.studying import exit_code, run
from schemas.errors import UsageError

KNOWN = Known(value=5.0, within=0.5, because="looked into")


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (near("x", 1.04, 1.0, 0.05), "pass"),
        (near("x", 0.94, 1.0, 0.05), "FAIL"),
        (near("x", None, 0.0, 9.0), "FAIL"),
        (near("x", nan, 0.0, 9.0), "FAIL"),
        (near("x", 5.4, 1.0, 0.1, known=KNOWN), "deviates"),
        (near("x", 5.6, 1.0, 0.1, known=KNOWN), "FAIL"),
        (near("x", 1.0, 1.0, 0.1, known=KNOWN), "pass"),
        (near("x", nan, 1.0, 0.1, known=KNOWN), "FAIL"),
        (near_share("x", -1.2, -1.0, 0.25), "pass"),
        (near_share("x", -1.3, -1.0, 0.25), "FAIL"),
        (at_most("x", 1.0, 1.0), "pass"),
        (at_most("x", 1.1, 1.0), "FAIL"),
        (at_most("x", None, 1.0), "FAIL"),
        (at_most("x", nan, 1.0), "FAIL"),
        (at_least("x", 1.0, 1.0), "pass"),
        (at_least("x", 0.9, 1.0), "FAIL"),
        (same("x", ["a"], ["a"]), "pass"),
        (same("x", ["a"], ["b"]), "FAIL"),
    ],
)
def test_a_check_has_the_verdict_of_its_numbers(check, verdict):
    assert check.verdict == verdict
    assert bool(check.because) is (verdict == "deviates")


def study(name="small", checks=(), missing="", figures=()):
    def answer(quick):
        if missing:
            raise NotAvailable(missing)
        table = Table(caption="A table:", head=("a", "b"), rows=(("1|2", "3"),))
        return Outcome(got="a number", checks=tuple(checks), figures=tuple(figures), tables=(table,))

    return Study(
        id="V0",
        name=name,
        question="Is it?",
        expected="yes",
        meaning="It is. Believe it.",
        run=answer,
        quick=True,
    )


PASS, FAIL = same("one", 1, 1), same("two", 1, 2)
DEVIATES = near("three", 5.0, 1.0, 0.1, known=KNOWN)


@pytest.mark.parametrize(
    ("checks", "verdict", "code"),
    [
        ((PASS,), Verdict.PASS, Exit.OK),
        ((PASS, DEVIATES), Verdict.DEVIATES, Exit.OK),
        ((DEVIATES, FAIL, PASS), Verdict.FAIL, Exit.SOME_FAILED),
    ],
)
def test_a_study_is_as_good_as_its_worst_check(checks, verdict, code):
    reports = run([study(checks=checks)], quick=True)
    assert [report.verdict for report in reports] == [verdict]
    assert exit_code(reports) is code


def test_a_study_that_lacks_something_is_not_run_and_no_failure(capsys):
    reports = run([study(missing="pip install it"), study(checks=[PASS])], quick=True)
    assert [report.verdict for report in reports] == [Verdict.NOT_RUN, Verdict.PASS]
    assert exit_code(reports) is Exit.OK
    assert "not run: pip install it" in capsys.readouterr().err


def test_passed_checks_are_counted():
    assert tally([PASS, FAIL, DEVIATES]) == "1 of 3 checks"


def line(name, values):
    return Figure(name=name, caption="A line", draw=lambda canvas: canvas.subplots().plot(values))


def test_the_report_shows_every_study_and_its_figures(tmp_path):
    (tmp_path / "stale.svg").write_text("<svg/>")
    figures = [line("first", [1, 2])]
    checks = [PASS, DEVIATES]
    reports = run([study(checks=checks, figures=figures), study("other", missing="data")], quick=True)
    text = write(reports, tmp_path).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [PAGE, "first.svg"]
    assert "| V0 | [small](#v0-small) | yes | a number | **deviates** |" in text
    assert "| V0 | [other](#v0-other) | yes | data | not run |" in text
    assert "## V0 small" in text and "(first.svg)" in text and "hubspectra study small" in text
    assert "Deviates: three. looked into" in text
    assert "1\\|2" in text
    assert "It is. Believe it." in text


def test_equal_numbers_give_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        write(run([study(checks=[PASS], figures=[line("first", [1, 2])])], quick=True), tmp_path / folder)
    for name in (PAGE, "first.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_report_in_the_repository_has_every_study_and_every_figure():
    folder = Path(__file__).resolve().parents[3] / "docs" / "studies"
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert [one.name for one in STUDIES if f"## {one.id} {one.name}\n" not in page] == []
    shown = set(re.findall(r"\]\(([\w-]+\.svg)\)", page))
    assert shown == {path.name for path in folder.glob("*.svg")}
    assert "**FAIL**" not in page


def test_names_numbers_and_figures_are_one_of_a_kind():
    assert len({study.name for study in STUDIES}) == len({study.id for study in STUDIES}) == len(STUDIES)


def test_studies_are_chosen_by_name_or_number_once():
    assert [one.name for one in chosen(["damage", "v17", "V16"])] == ["damage", "siblings"]
    assert chosen(["all"]) == STUDIES
    assert chosen(["all"], quick=True) == tuple(one for one in STUDIES if one.quick)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="no study nothing; there are calibration"):
        chosen(["damage", "nothing"])


def test_a_long_study_has_no_quick_form():
    with pytest.raises(UsageError, match="noise has no quick form"):
        chosen(["noise"], quick=True)


def called(*arguments):
    ran = run_cli("study", *arguments)
    return ran.code, ran.text, ran.err


def test_the_verb_prints_checks_and_writes_the_report(tmp_path):
    code, out, err = called("damage", "--format", "json", "--out", str(tmp_path / "report"))
    rows = json.loads(out)
    assert code == 0
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {row["study"] for row in rows} == {"damage"}
    assert "1/1 V17 damage" in err and "1 studies: 1 pass" in err
    assert (tmp_path / "report" / PAGE).is_file()


def test_the_verb_lists_the_studies():
    code, out, _ = called("--list", "--format", "json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == [one.name for one in STUDIES]


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("nothing",), 1), (("noise", "--quick"), 1)])
def test_the_verb_explains_wrong_use(arguments, code):
    found, out, err = called(*arguments)
    assert (found, out) == (code, "")
    assert err


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = called("damage", "--format", "csv", "--out", str(tmp_path / "file" / "report"))
    assert code == 1
    assert "cannot write" in err
