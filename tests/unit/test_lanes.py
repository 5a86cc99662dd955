"""Order, stacks, credit and what happens when memory runs out, with solvers whose memory is really counted."""

import threading
from contextlib import contextmanager

import pytest

from scanner.lanes import Credit, Limits, Task, solved
from schemas.errors import NumericsError, SourceError
from schemas.results import FailureKind

PATIENCE = 60.0


def limits(**changes):
    return Limits(**({"lanes": 4, "stack": 3, "budget": 100, "window": 1000} | changes))


def tasks(needs, **about):
    return (Task(item=(k, need), need=need, held=1, **about) for k, need in enumerate(needs))


class Memory:
    """A solver on a device of `size` bytes: raises when the tasks inside need more, remembers its calls."""

    def __init__(self, size=10**9):
        self._size, self._used, self._lock = size, 0, threading.Lock()
        self.calls, self.most, self.refused = [], 0, 0

    @contextmanager
    def _allocated(self, need):
        with self._lock:
            if self._used + need > self._size:
                self.refused += 1
                raise NumericsError(FailureKind.OUT_OF_MEMORY, "full")
            self._used += need
            self.most = max(self.most, self._used)
        try:
            yield
        finally:
            with self._lock:
                self._used -= need

    def __call__(self, group):
        with self._allocated(sum(need for _, need in group)):
            self.calls.append(tuple(k for k, _ in group))
            return [-k for k, _ in group]


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("stack", [None, "same"])
def test_results_come_in_order_each_once(lanes, stack):
    memory = Memory()
    found = list(solved(tasks([1] * 50, stack=stack), memory, limits(lanes=lanes)))
    assert found == [((k, 1), -k) for k in range(50)]
    assert sorted(k for call in memory.calls for k in call) == list(range(50))


def test_equal_problems_share_a_call_and_others_do_not():
    memory = Memory()
    work = [Task(item=(k, 1), need=1, held=1, stack=("a", "b", None)[k % 3]) for k in range(21)]
    list(solved(iter(work), memory, limits(stack=3)))
    assert {frozenset(k % 3 for k in call) for call in memory.calls} == {frozenset({k}) for k in range(3)}
    assert {len(call) for call in memory.calls if call[0] % 3 == 2} == {1}
    assert max(len(call) for call in memory.calls) == 3


def test_which_problems_share_a_call_does_not_depend_on_who_is_faster():
    """Lanes of any number, and a reader of results that is held up, meet the same stacks."""

    def calls(lanes, slow):
        memory, held = Memory(), threading.Event()

        def solve(group):
            assert not slow or held.wait(PATIENCE)
            return memory(group)

        def work():
            for k in range(60):
                if k == 30:
                    held.set()
                yield Task(item=(k, 1), need=1, held=1, stack=k % 7 if k % 3 else None)

        list(solved(work(), solve, limits(lanes=lanes, stack=4, window=40)))
        return sorted(memory.calls)

    expected = calls(1, False)
    assert {len(call) for call in expected} == {1, 2}
    for lanes in (1, 2, 5):
        for slow in (False, True):
            assert calls(lanes, slow) == expected


def test_a_stack_is_no_larger_than_a_lane_s_share_of_memory():
    memory = Memory()
    list(solved(tasks([10] * 20, stack="same"), memory, limits(stack=8, budget=100, lanes=4)))
    assert {len(call) for call in memory.calls} == {2}


def test_the_budget_is_kept_and_what_exceeds_it_runs_alone():
    memory = Memory()
    found = list(solved(tasks([40, 30, 500, 60, 10, 500, 90, 20]), memory, limits(budget=100)))
    assert [answer for _, answer in found] == [-k for k in range(8)]
    assert memory.most == 500
    assert memory.refused == 0


class Crowd(Memory):
    """Its first calls stay inside, with or without memory, until all of them have asked for it."""

    def __init__(self, size, calls):
        super().__init__(size)
        self._first, self._all_asked = iter(range(calls)), threading.Barrier(calls)

    def __call__(self, group):
        stays = next(self._first, None) is not None
        try:
            with self._allocated(sum(need for _, need in group)):
                if stays:
                    self._all_asked.wait(PATIENCE)
                self.calls.append(tuple(k for k, _ in group))
                return [-k for k, _ in group]
        except NumericsError:
            if stays:
                self._all_asked.wait(PATIENCE)
            raise


def test_when_memory_runs_out_less_is_done_at_once_and_nothing_is_lost():
    """By the budget four fit; the device holds two, so two are refused, and later ones run with fewer."""
    crowd = Crowd(size=2, calls=4)
    found = list(solved(tasks([1] * 20), crowd, limits(lanes=4)))
    assert [answer for _, answer in found] == [-k for k in range(20)]
    assert crowd.refused == 2
    assert sorted(crowd.calls) == [(k,) for k in range(20)]


def test_a_stack_that_does_not_fit_is_taken_apart():
    memory = Memory(size=10)
    found = list(solved(tasks([10] * 6, stack="same"), memory, limits(stack=3, lanes=1)))
    assert [answer for _, answer in found] == [-k for k in range(6)]
    assert memory.refused == 2
    assert {len(call) for call in memory.calls} == {1}


def test_what_does_not_fit_alone_has_the_error_for_a_result():
    found = [answer for _, answer in solved(tasks([5, 50, 5]), Memory(size=20), limits())]
    assert (found[0], found[2]) == (0, -2)
    assert found[1].kind is FailureKind.OUT_OF_MEMORY


def test_other_errors_of_the_solver_are_raised():
    def solve(group):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(solved(tasks([1]), solve, limits()))


def test_known_results_need_no_solver():
    memory = Memory()
    work = [Task(item=(k, 1), need=1, held=1, known="host" if k % 2 else None) for k in range(9)]
    found = [answer for _, answer in solved(iter(work), memory, limits())]
    assert found == ["host" if k % 2 else -k for k in range(9)]
    assert sorted(memory.calls) == [(k,) for k in range(0, 9, 2)]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_error_of_the_source_comes_after_what_was_read(count):
    def broken():
        yield from tasks([1] * count, stack="same")
        raise SourceError(FailureKind.READ_ERROR, "gone")

    found = []
    with pytest.raises(SourceError, match="gone"):
        for item, answer in solved(broken(), Memory(), limits()):
            found.append((item, answer))
    assert found == [((k, 1), -k) for k in range(count)]


def test_no_more_is_read_than_the_window_holds():
    drawn = []

    def watched():
        for task in tasks([1] * 40, stack="never complete"):
            drawn.append(task)
            yield task

    for (k, _), _ in solved(watched(), Memory(), limits(window=5, stack=100)):
        assert len(drawn) <= k + 7


def test_closing_early_ends_the_lanes():
    results = solved(tasks([1] * 100), Memory(), limits())
    assert next(results) == ((0, 1), 0)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lane")]


def test_credit_narrows_by_halves_and_says_when_that_was_the_end():
    credit = Credit(10, 8)
    seen = []
    for _ in range(4):
        with credit.taken(1) as lanes:
            seen.append((lanes, credit.narrow(lanes)))
    assert seen == [(8, True), (4, True), (2, True), (1, False)]
