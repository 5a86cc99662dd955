"""Reads ahead: the next buffers of a stream are fetched while the present one is computed on."""

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK = 0.1
"""Seconds after which a blocked reader looks whether anyone still listens."""


class _Pump(Generic[T]):
    """Moves items of an iterator into a bounded queue, then the error that ended it (None at its end)."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self.queue: Queue[tuple[T] | BaseException | None] = Queue(maxsize=depth)
        self.closed = Event()
        self._items = items
        self._thread = Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.closed.set()
        self._thread.join()

    def _run(self) -> None:
        ending: BaseException | None = None
        try:
            for item in self._items:
                if not self._put((item,)):
                    break
        except BaseException as error:  # noqa: BLE001 - carried to the consumer, raised there
            ending = error
        self._put(ending)
        if hasattr(self._items, "close"):
            self._items.close()

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self.closed.is_set():
            try:
                self.queue.put(item, timeout=_LOOK)
            except Full:
                continue
            return True
        return False


def prefetched(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items` in order, up to `depth` of them read ahead by one thread.

    An error of the source is raised here, after the items before it. Closing the generator stops the thread.
    """
    pump = _Pump(items, depth)
    try:
        while (item := pump.queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        pump.stop()
