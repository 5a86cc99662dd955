"""Reads ahead: the next buffers of a stream are fetched while the present one is computed on."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` in order, up to `depth` of them read ahead by one thread; depth 0 is no thread.

    An error of the source is raised here, after the items before it. Closing this generator waits for the
    read under way and closes the source if it is a generator.
    """
    if not depth:
        yield from items
        return
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
        ahead = deque(reader.submit(next, items, end) for _ in range(depth))
        try:
            while (item := ahead.popleft().result()) is not end:
                ahead.append(reader.submit(next, items, end))
                yield item  # type: ignore[misc]  # everything but `end` is a T
        finally:
            for read in ahead:
                read.cancel()
            if isinstance(items, Generator):
                reader.submit(items.close).result()
