"""The ledger, event by event."""

from collections import Counter

import pytest
from nouns import failure

from jobs.engine.ledger import Ledger
from schemas.config import WorkLimits
from schemas.events import (
    Commit,
    Failed,
    Lost,
    Note,
    PinJob,
    Pinned,
    PlanJob,
    Planned,
    Record,
    Scanned,
    Skip,
    Stage,
    UnitJob,
)
from schemas.refs import RepoRef, Repository, WorkUnit
from schemas.work import RepoPlan, Target, UnitResult

A, B = Target(repo_id="owner/a"), Target(repo_id="owner/b")


def ref_of(target, revision="0" * 40):
    return RepoRef(target.repo_id, revision)


def repository(target):
    return Repository(ref=ref_of(target), files=())


def unit(target, number, cost=1.0):
    return WorkUnit(
        unit_id=f"{target.repo_id}-{number}", repo=ref_of(target), matrices=(), nbytes=1, cost=cost
    )


def plan(target, *costs):
    return RepoPlan(
        ref=ref_of(target), units=tuple(unit(target, i, cost) for i, cost in enumerate(costs)), components=()
    )


def result(job):
    return UnitResult(unit_id=job.unit.unit_id, rows=(), failures=(), bytes_read=1, secs=0.0)


def ledger(*targets, **options):
    limits = WorkLimits(attempts=options.pop("attempts", 3), backoff=1.0)
    return Ledger(targets, limits, "config", **options)


def planned(book, target, *costs):
    """Take a target through pinning and planning; returns the commands of the plan."""
    job = book.next(0.0)
    assert job == PinJob(target)
    assert book.handle(Pinned(job, repository(target)), 0.0) == ()
    job = book.next(0.0)
    assert job == PlanJob(target, repository(target))
    return book.handle(Planned(job, plan(target, *costs)), 0.0)


def test_a_target_is_pinned_planned_scanned_and_committed():
    book = ledger(A)
    assert planned(book, A, 1.0, 1.0) == ()
    first, second = book.next(0.0), book.next(0.0)
    assert book.next(0.0) is None
    assert book.handle(Scanned(second, result(second)), 0.0) == (Stage(second, result(second), False),)
    assert not book.idle
    stage, commit = book.handle(Scanned(first, result(first)), 0.0)
    assert stage == Stage(first, result(first), False)
    assert commit == Commit(A, plan(A, 1.0, 1.0), ())
    assert book.idle


def test_a_lone_unit_is_staged_alone():
    book = ledger(A)
    planned(book, A, 1.0)
    job = book.next(0.0)
    stage, commit = book.handle(Scanned(job, result(job)), 0.0)
    assert stage.alone
    assert isinstance(commit, Commit)


def test_a_plan_without_units_is_committed_at_once():
    book = ledger(A)
    assert planned(book, A) == (Commit(A, plan(A), ()),)
    assert book.idle


def test_units_run_by_falling_cost_and_equal_ones_in_order():
    book = ledger(A)
    planned(book, A, 1.0, 5.0, 3.0, 5.0)
    assert [book.next(0.0).unit.unit_id[-1] for _ in range(4)] == ["1", "3", "2", "0"]


def test_what_the_lake_holds_is_skipped():
    book = ledger(A, done={ref_of(A).part_key("config")})
    job = book.next(0.0)
    assert book.handle(Pinned(job, repository(A)), 0.0) == (Skip(A, ref_of(A)),)
    assert book.idle


def test_another_config_is_not_what_the_lake_holds():
    book = ledger(A, done={ref_of(A).part_key("other config")})
    assert planned(book, A) == (Commit(A, plan(A), ()),)


def test_two_names_of_one_commit_are_one_repository():
    main, tagged = Target(repo_id="owner/a", revision="main"), Target(repo_id="owner/a", revision="v1")
    book = ledger(main, tagged)
    planned(book, main, 1.0)
    job = book.next(0.0)
    assert job == PinJob(tagged)
    assert book.handle(Pinned(job, repository(tagged)), 0.0) == (Skip(tagged, ref_of(A)),)


def test_staged_units_are_not_done_again():
    book = ledger(A, staged={"owner/a-0"})
    planned(book, A, 1.0, 1.0)
    job = book.next(0.0)
    assert job.unit.unit_id == "owner/a-1"
    stage, commit = book.handle(Scanned(job, result(job)), 0.0)
    assert not stage.alone
    assert commit == Commit(A, plan(A, 1.0, 1.0), ())


def test_a_repository_staged_whole_is_committed_at_once():
    book = ledger(A, staged={"owner/a-0", "owner/a-1"})
    assert planned(book, A, 1.0, 1.0) == (Commit(A, plan(A, 1.0, 1.0), ()),)


@pytest.mark.parametrize("event", [Failed, Lost])
def test_a_unit_is_tried_again_after_a_growing_wait(event):
    book = ledger(A, attempts=3)
    planned(book, A, 1.0)
    job, now = book.next(0.0), 0.0
    for delay in (1.0, 2.0):
        (note,) = book.handle(event(job, failure(retryable=True)), now)
        assert isinstance(note, Note)
        assert f"trying again in {delay:.0f} s" in note.text
        assert book.next(now + delay - 0.01) is None
        assert not book.idle
        now += delay
        assert book.next(now) == job
    (commit,) = book.handle(event(job, failure(retryable=True)), now)
    assert commit.given_up == ((job.unit, failure(retryable=True)),)
    assert book.idle


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("it broke", "owner/a: it broke; trying again in 1 s"),
        ("owner/a@main: HTTP 503", "owner/a@main: HTTP 503; trying again in 1 s"),
    ],
)
def test_a_note_names_the_model_once(message, text):
    book = ledger(A)
    failed = Failed(book.next(0.0), failure(message, repo_id="owner/a", retryable=True))
    assert book.handle(failed, 0.0) == (Note(text),)


def test_what_was_tried_out_is_not_tried_again():
    book = ledger(A)
    gone = failure(retryable=True)
    assert book.handle(Failed(book.next(0.0), gone, tried_out=True), 0.0) == (Record(A, gone),)
    assert book.idle


def test_a_final_failure_is_not_tried_again():
    book = ledger(A)
    planned(book, A, 2.0, 1.0)
    first, second = book.next(0.0), book.next(0.0)
    assert book.handle(Failed(first, failure()), 0.0) == ()
    stage, commit = book.handle(Scanned(second, result(second)), 0.0)
    assert isinstance(stage, Stage)
    assert commit.given_up == ((first.unit, failure()),)


def test_a_target_that_cannot_be_pinned_is_recorded():
    book = ledger(A, B)
    assert book.handle(Failed(book.next(0.0), failure()), 0.0) == (Record(A, failure()),)
    assert book.next(0.0) == PinJob(B)


def test_pinning_and_planning_have_their_own_tries():
    book = ledger(A, attempts=2)
    job = book.next(0.0)
    book.handle(Failed(job, failure(retryable=True)), 0.0)
    job = book.next(1.0)
    book.handle(Pinned(job, repository(A)), 1.0)
    job = book.next(1.0)
    assert isinstance(job, PlanJob)
    (note,) = book.handle(Failed(job, failure(retryable=True)), 1.0)
    assert isinstance(note, Note)
    assert book.handle(Failed(book.next(2.0), failure(retryable=True)), 2.0) == (
        Record(A, failure(retryable=True)),
    )


def test_a_commit_met_by_two_targets_is_recorded_once_when_it_cannot_be_planned():
    main, tagged = Target(repo_id="owner/a", revision="main"), Target(repo_id="owner/a", revision="v1")
    book = ledger(main, tagged)
    book.handle(Pinned(book.next(0.0), repository(main)), 0.0)
    assert book.handle(Failed(book.next(0.0), failure()), 0.0) == (Record(main, failure()),)
    job = book.next(0.0)
    assert book.handle(Pinned(job, repository(tagged)), 0.0) == (Skip(tagged, ref_of(A)),)
    assert book.idle


def test_planning_waits_while_enough_units_are_ready():
    book = ledger(A, B, lookahead=2)
    planned(book, A, 3.0, 2.0, 1.0)
    assert [type(book.next(0.0)) for _ in range(4)] == [UnitJob, UnitJob, PinJob, UnitJob]


def test_without_units_only_targets_are_planned():
    book = ledger(A, B)
    planned(book, A, 1.0)
    assert book.next(0.0, units=False) == PinJob(B)
    assert book.next(0.0, units=False) is None
    assert isinstance(book.next(0.0), UnitJob)


def test_stopping_starts_nothing_and_waits_for_what_is_under_way():
    book = ledger(A, B, lookahead=1)
    planned(book, A, 1.0, 1.0)
    job = book.next(0.0)
    book.stop()
    assert book.next(0.0) is None
    assert not book.idle
    assert book.handle(Scanned(job, result(job)), 0.0) == (Stage(job, result(job), False),)
    assert book.idle


def test_nothing_to_do_is_idle():
    assert ledger().idle
    assert ledger().next(0.0) is None


def test_units_of_two_repositories_share_the_queue():
    book = ledger(A, B, lookahead=100)
    planned(book, A, 1.0, 4.0)
    planned(book, B, 2.0, 3.0)
    jobs = [book.next(0.0) for _ in range(4)]
    assert [job.unit.cost for job in jobs] == [4.0, 3.0, 2.0, 1.0]
    commands = [command for job in jobs for command in book.handle(Scanned(job, result(job)), 0.0)]
    assert Counter(type(command) for command in commands) == {Stage: 4, Commit: 2}
