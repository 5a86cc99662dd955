"""A solver kept busy: tasks run ahead on several lanes, equal ones together, and come back in their order.

Knows nothing of GPUs: a lane is a thread, a solver is a function that may run out of memory, and memory
is a credit in bytes that a task takes before it starts and gives back when it ends.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Generic, TypeVar

from schemas.errors import NumericsError, SourceError
from schemas.results import FailureKind

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[T, R]):
    """One thing to solve: what it needs on the device and holds on the host, in bytes.

    Tasks of equal `stack` may go to the solver in one call; None goes alone. `known` is a result that needs
    no solving.
    """

    item: T
    need: int
    held: int
    stack: Hashable | None = None
    known: R | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Lanes at once, tasks of one call, bytes on the device, bytes held on the host."""

    lanes: int
    stack: int
    budget: int
    window: int


@dataclass(slots=True)
class _Place(Generic[T, R]):
    """A task's place in the order, after `since` bytes; `future` appears when it is handed to a lane."""

    task: Task[T, R]
    since: int
    future: "Future[list[R | NumericsError]] | None" = None
    at: int = 0


def solved(
    tasks: Iterator[Task[T, R]], solve: Callable[[Sequence[T]], list[R | NumericsError]], limits: Limits
) -> Iterator[tuple[T, R | NumericsError]]:
    """Yield every task's item with its result, in order, while later tasks are being solved.

    `solve` runs in several threads, one call for the tasks of a stack. Where it raises NumericsError
    (out_of_memory) the stack is taken apart, then fewer lanes run at once, at last one alone; what does not
    fit even so has the error for a result. A SourceError of `tasks` is raised after the results before it.
    """
    with ThreadPoolExecutor(limits.lanes, thread_name_prefix="lane") as pool:
        queue: _Queue[T, R] = _Queue(pool, solve, limits)
        try:
            failed = None
            try:
                for task in tasks:
                    queue.add(task)
                    while queue.full or queue.next_is_ready:
                        yield queue.take()
            except SourceError as error:
                failed = error
            while queue:
                yield queue.take()
            if failed is not None:
                raise failed
        finally:
            pool.shutdown(cancel_futures=True)


class Credit:
    """Bytes and lanes that running tasks share; a task too large for all of it runs alone."""

    def __init__(self, budget: int, lanes: int) -> None:
        self._free, self._lanes, self._running = budget, lanes, 0
        self._change = Condition()

    @contextmanager
    def taken(self, need: int) -> Iterator[int]:
        """Wait for `need` bytes and a lane, and give both back in the end; yields the lanes that may run."""
        with self._change:
            self._change.wait_for(lambda: self._fits(need))
            self._free -= need
            self._running += 1
            lanes = self._lanes
        try:
            yield lanes
        finally:
            with self._change:
                self._free += need
                self._running -= 1
                self._change.notify_all()

    def narrow(self, lanes: int) -> bool:
        """Halve the lanes after memory ran out among `lanes`; False when that was one lane alone."""
        with self._change:
            self._lanes = min(self._lanes, max(lanes // 2, 1))
        return lanes > 1

    def _fits(self, need: int) -> bool:
        return not self._running or (self._running < self._lanes and need <= self._free)


@dataclass(slots=True)
class _Queue(Generic[T, R]):
    """Places in order, and the stacks that wait to be complete."""

    pool: ThreadPoolExecutor
    solve: Callable[[Sequence[T]], list[R | NumericsError]]
    limits: Limits
    places: deque[_Place[T, R]] = field(default_factory=deque)
    stacks: dict[Hashable, list[_Place[T, R]]] = field(default_factory=dict)
    held: int = 0
    passed: int = 0
    credit: Credit = field(init=False)

    def __post_init__(self) -> None:
        self.credit = Credit(self.limits.budget, self.limits.lanes)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def full(self) -> bool:
        """Whether the host holds as much as it may."""
        return self.held > self.limits.window

    @property
    def next_is_ready(self) -> bool:
        """Whether the first result is there."""
        return bool(self.places and (first := self.places[0].future) and first.done())

    def add(self, task: Task[T, R]) -> None:
        """Take a task in, and start it, or its stack once that is complete."""
        place: _Place[T, R] = _Place(task, self.passed)
        self.places.append(place)
        self.held += task.held
        self.passed += task.held
        if task.known is not None:
            place.future = Future()
            place.future.set_result([task.known])
        elif task.stack is None:
            self._start([place])
        else:
            self._stack(place, task.stack)
        for key in [key for key, stack in self.stacks.items() if self._waited(stack[0])]:
            self._start(self.stacks.pop(key))

    def take(self) -> tuple[T, R | NumericsError]:
        """Wait for the first result; once the tasks are at an end, stacks start as they are."""
        first = self.places[0]
        if first.future is None:
            for stack in self.stacks.values():
                self._start(stack)
            self.stacks.clear()
        if first.future is None:
            raise AssertionError("every place is in a stack or has started")
        result = first.future.result()[first.at]
        self.places.popleft()
        self.held -= first.task.held
        return first.task.item, result

    def _stack(self, place: _Place[T, R], key: Hashable) -> None:
        """Wait for company, up to a stack of which every lane's share of the budget holds one."""
        stack = self.stacks.setdefault(key, [])
        stack.append(place)
        room = self.limits.budget // self.limits.lanes // max(place.task.need, 1)
        if len(stack) >= min(self.limits.stack, room):
            self._start(self.stacks.pop(key))

    def _waited(self, first: _Place[T, R]) -> bool:
        """Whether half a window of bytes came after it: which tasks share a call depends on them alone."""
        return self.passed - first.since > self.limits.window // 2

    def _start(self, places: list[_Place[T, R]]) -> None:
        future = self.pool.submit(self._run, [place.task for place in places])
        for at, place in enumerate(places):
            place.future, place.at = future, at

    def _run(self, tasks: list[Task[T, R]]) -> list[R | NumericsError]:
        """Solve in a lane, with less at once each time memory runs out."""
        while True:
            try:
                with self.credit.taken(sum(task.need for task in tasks)) as lanes:
                    return self.solve([task.item for task in tasks])
            except NumericsError as error:
                if error.kind is not FailureKind.OUT_OF_MEMORY:
                    raise
                if len(tasks) > 1:
                    return [result for task in tasks for result in self._run([task])]
                if not self.credit.narrow(lanes):
                    return [error]
