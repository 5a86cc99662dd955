"""Reading ahead: order, bounds, errors in their place, and no thread left behind."""

import threading

import pytest

from scanner.prefetch import prefetched


class Source:
    """Counts what was taken; may raise after some items, and remembers being closed."""

    def __init__(self, items, error=None):
        self.taken = 0
        self.closed = threading.Event()
        self._items = self._run(items, error)

    def _run(self, items, error):
        try:
            for item in items:
                self.taken += 1
                yield item
            if error:
                raise error
        finally:
            self.closed.set()

    def __iter__(self):
        return self._items


def buffers(count, size=1):
    return [bytearray([i % 256]) * size for i in range(count)]


def pumps():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize(("budget", "least"), [(0, 0), (0, 1), (0, 2), (3, 1), (1000, 2)])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_everything_comes_in_order(count, budget, least):
    assert list(prefetched(iter(buffers(count)), len, budget, least)) == buffers(count)
    assert pumps() == []


def test_an_empty_buffer_is_an_item():
    assert list(prefetched(iter([b"", b"x", b""]), len)) == [b"", b"x", b""]


def test_an_error_comes_after_the_items_before_it():
    found = []
    with pytest.raises(OSError, match="broken"):
        for item in prefetched(iter(Source(buffers(3), OSError("broken"))), len):
            found.append(item)
    assert found == buffers(3)
    assert pumps() == []


@pytest.mark.parametrize(
    ("size", "budget", "least", "most"),
    [(10, 0, 2, 2), (10, 35, 2, 4), (10, 40, 1, 4), (1000, 999, 1, 1), (1, 20, 2, 20)],
)
def test_what_is_held_ahead_is_bounded_in_bytes(size, budget, least, most):
    """Reads go on while less than the budget waits, so that the last one may pass it."""
    source = Source(buffers(100, size))
    reader = prefetched(iter(source), len, budget, least)
    for _ in range(5):
        next(reader)
    reader.close()
    assert 5 <= source.taken <= 5 + most


def test_the_bytes_ahead_are_read_while_nobody_takes_any():
    """The reader needs no push: it fills its budget while the consumer computes."""
    eighth = threading.Event()

    def items():
        for i, item in enumerate(buffers(100, 10)):
            if i == 8:
                eighth.set()
            yield item

    reader = prefetched(items(), len, budget=100)
    next(reader)
    assert eighth.wait(timeout=30)
    reader.close()


def test_closing_stops_the_thread_and_closes_the_source():
    source = Source(buffers(1000))
    reader = prefetched(iter(source), len)
    assert next(reader) == buffers(1)[0]
    reader.close()
    assert source.closed.is_set()
    assert pumps() == []


def test_an_error_of_the_consumer_stops_the_thread():
    source = Source(buffers(1000))
    reader = prefetched(iter(source), len, budget=1)
    next(reader)
    with pytest.raises(KeyError):
        reader.throw(KeyError("consumer"))
    assert source.closed.is_set()
    assert pumps() == []


def test_nothing_is_read_before_the_first_item_is_asked_for():
    source = Source(buffers(3))
    prefetched(iter(source), len).close()
    assert source.taken == 0


def test_two_streams_do_not_mix():
    first, second = prefetched(iter("abc"), len), prefetched(iter("xyz"), len)
    assert list(zip(first, second, strict=True)) == [("a", "x"), ("b", "y"), ("c", "z")]


def test_without_reading_ahead_an_item_is_taken_when_it_is_asked_for():
    source = Source(buffers(10))
    items = prefetched(iter(source), len, least=0)
    assert (next(items), source.taken) == (buffers(1)[0], 1)
    items.close()
    assert source.closed.is_set()
