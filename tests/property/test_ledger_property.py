"""The ledger's laws under any order of events, any failures, and a stop at any moment."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nouns import failure

from jobs.engine.ledger import Ledger
from schemas.config import WorkLimits
from schemas.events import (
    Commit,
    Failed,
    Lost,
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

FINGERPRINT = "config"


def ref_of(target):
    """Targets a@main and a@v1 are the same commit."""
    return RepoRef(target.repo_id, "0" * 40)


def plan_of(target, sizes):
    ref = ref_of(target)
    units = tuple(
        WorkUnit(unit_id=f"{ref.repo_id}-{i}", repo=ref, matrices=(), nbytes=1, cost=cost)
        for i, cost in enumerate(sizes)
    )
    return RepoPlan(ref=ref, units=units, components=())


TARGETS = st.lists(
    st.builds(
        Target,
        repo_id=st.sampled_from([f"owner/{name}" for name in "abcdef"]),
        revision=st.sampled_from(["main", "v1", None]),
    ),
    unique=True,
    max_size=6,
)
PLANS = st.fixed_dictionaries({f"owner/{name}": st.lists(st.floats(0, 9), max_size=4) for name in "abcdef"})


class Scan(RuleBasedStateMachine):
    """Workers that finish, fail and die in any order around one ledger."""

    @initialize(
        asked=TARGETS,
        sizes=PLANS,
        attempts=st.integers(1, 4),
        lookahead=st.integers(1, 5),
        done=st.sets(st.sampled_from([f"owner/{name}" for name in "abcdef"]), max_size=2),
        staged=st.sets(st.integers(0, 3), max_size=2),
    )
    def start(self, asked, sizes, attempts, lookahead, done, staged):
        self.targets, self.sizes, self.attempts = asked, sizes, attempts
        self.staged = {f"owner/{name}-{i}" for name in "abc" for i in staged}
        self.ledger = Ledger(
            asked,
            WorkLimits(attempts=attempts, backoff=1.0),
            FINGERPRINT,
            done={RepoRef(repo_id, "0" * 40).part_key(FINGERPRINT) for repo_id in done},
            staged=self.staged,
            lookahead=lookahead,
        )
        self.now = 0.0
        self.running = []
        self.ended = {}
        self.tried = Counter()
        self.scanned = []
        self.commits = []
        self.stopped = False

    @rule(units=st.booleans())
    def take(self, units):
        job = self.ledger.next(self.now, units)
        if job is not None:
            assert not self.stopped
            assert units or not isinstance(job, UnitJob)
            assert job not in self.running
            name = (type(job), job.target, job.unit.unit_id if isinstance(job, UnitJob) else None)
            self.tried[name] += 1
            assert self.tried[name] <= self.attempts
            self.running.append(job)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data):
        self._finish(self._success(self._pick(data)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), retryable=st.booleans(), lost=st.booleans())
    def fail(self, data, retryable, lost):
        self._finish((Lost if lost else Failed)(self._pick(data), failure(retryable=retryable)))

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: not self.stopped)
    @rule(really=st.integers(0, 9))
    def stop(self, really):
        if really == 0:
            self.ledger.stop()
            self.stopped = True

    @invariant()
    def it_is_not_idle_while_work_is_under_way(self):
        if self.running:
            assert not self.ledger.idle

    def teardown(self):
        """Let everything finish: nothing is lost, nothing ends twice."""
        if not hasattr(self, "ledger"):
            return
        while not self.ledger.idle:
            self.now += 1000.0
            while (job := self.ledger.next(self.now)) is not None:
                self.running.append(job)
            assert self.running
            self._finish(self._success(self.running.pop()))
        assert self.ledger.next(self.now + 1e9) is None
        if not self.stopped:
            assert self.ended.keys() == set(self.targets)

    def _pick(self, data):
        return self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))

    def _success(self, job):
        match job:
            case PinJob(target=target):
                return Pinned(job, Repository(ref=ref_of(target), files=()))
            case PlanJob(target=target):
                return Planned(job, plan_of(target, self.sizes[target.repo_id]))
        self.scanned.append(job.unit.unit_id)
        result = UnitResult(unit_id=job.unit.unit_id, rows=(), failures=(), bytes_read=0, secs=0.0)
        return Scanned(job, result)

    def _finish(self, event):
        commands = self.ledger.handle(event, self.now)
        stages = [command for command in commands if isinstance(command, Stage)]
        assert len(stages) == isinstance(event, Scanned)
        for command in commands:
            if isinstance(command, Commit | Skip | Record):
                assert command.target not in self.ended
                self.ended[command.target] = command
            if isinstance(command, Commit):
                self._check(command)

    def _check(self, commit):
        """Each unit was staged once or given up, and no commit is published twice."""
        units = {unit.unit_id for unit in commit.plan.units}
        given_up = {unit.unit_id for unit, _ in commit.given_up}
        fresh = [unit_id for unit_id in self.scanned if unit_id in units]
        assert len(fresh) == len(set(fresh))
        assert units == given_up | set(fresh) | (units & self.staged)
        assert not given_up & (set(fresh) | self.staged)
        assert commit.plan.ref not in self.commits
        self.commits.append(commit.plan.ref)


TestScan = Scan.TestCase
TestScan.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
