"""Reads ahead: the next buffers of a stream are fetched while the present one is computed on."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD_BYTES = 128 << 20
"""Bytes held ahead: a third of a second at 400 MB/s, many small tensors, and little beside a Gram matrix."""

AHEAD_LEAST = 2
"""Buffers held ahead however large they are."""


def prefetched(
    items: Iterator[T], size: Callable[[T], int], budget: int = AHEAD_BYTES, least: int = AHEAD_LEAST
) -> Generator[T, None, None]:
    """Yield `items`, none of them None, in order, read ahead by one thread; `size` tells the bytes of one.

    A read begins while fewer than `least` items, or less than `budget` bytes, wait. An error of the
    source is raised here, after the items before it. Closing this generator waits for the read under way and
    closes the source if it is a generator. With `least` 0 nothing is read ahead and there is no thread.
    """
    if not least:
        yield from items
        return
    shelf: _Shelf[T] = _Shelf(size, budget, least)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
        reading = reader.submit(shelf.fill, items)
        try:
            while (item := shelf.take()) is not None:
                yield item
            reading.result()
        finally:
            shelf.close()
            if isinstance(items, Generator):
                reader.submit(items.close).result()


class _Shelf(Generic[T]):
    """Buffers between the thread that reads them and the one that takes them."""

    def __init__(self, size: Callable[[T], int], budget: int, least: int) -> None:
        self._size = size
        self._budget = budget
        self._least = least
        self._waiting: deque[T] = deque()
        self._held = 0
        self._ended = False
        self._changed = Condition()

    def fill(self, items: Iterator[T]) -> None:
        """Read until the items end, fail or are no longer wanted."""
        try:
            while self._has_room() and (item := next(items, None)) is not None:
                self._put(item)
        finally:
            self.close()

    def take(self) -> T | None:
        """The next buffer, once it is there; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._held -= self._size(item)
            self._changed.notify()
            return item

    def close(self) -> None:
        """Nothing more is read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: T) -> None:
        with self._changed:
            self._waiting.append(item)
            self._held += self._size(item)
            self._changed.notify()

    def _has_room(self) -> bool:
        """Wait for room; false when no more is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._wants_more())
            return not self._ended

    def _wants_more(self) -> bool:
        return len(self._waiting) < self._least or self._held < self._budget
