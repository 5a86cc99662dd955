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


def pumps():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_everything_comes_in_order(count, depth):
    assert list(prefetched(iter(range(count)), depth)) == list(range(count))
    assert pumps() == []


def test_none_is_an_item():
    assert list(prefetched(iter([None, 1, None]))) == [None, 1, None]


def test_exceptions_are_items_too():
    error = ValueError("an item")
    assert list(prefetched(iter([error]))) == [error]


def test_an_error_comes_after_the_items_before_it():
    found = []
    with pytest.raises(OSError, match="broken"):
        for item in prefetched(iter(Source([1, 2, 3], OSError("broken")))):
            found.append(item)
    assert found == [1, 2, 3]
    assert pumps() == []


def test_no_more_than_the_depth_is_read_ahead():
    source = Source(range(100))
    reader = prefetched(iter(source), depth=2)
    for _ in range(5):
        next(reader)
    reader.close()
    assert 5 <= source.taken <= 5 + 2 + 1


def test_closing_stops_the_thread_and_closes_the_source():
    source = Source(range(1000))
    reader = prefetched(iter(source))
    assert next(reader) == 0
    reader.close()
    assert source.closed.is_set()
    assert pumps() == []


def test_an_error_of_the_consumer_stops_the_thread():
    source = Source(range(1000))
    reader = prefetched(iter(source))
    next(reader)
    with pytest.raises(KeyError):
        reader.throw(KeyError("consumer"))
    assert source.closed.is_set()
    assert pumps() == []


def test_nothing_is_read_before_the_first_item_is_asked_for():
    source = Source(range(3))
    prefetched(iter(source)).close()
    assert source.taken == 0


def test_two_streams_do_not_mix():
    first, second = prefetched(iter("abc")), prefetched(iter("xyz"))
    assert list(zip(first, second, strict=True)) == [("a", "x"), ("b", "y"), ("c", "z")]


def test_depth_zero_takes_an_item_when_it_is_asked_for_and_closes_the_source():
    source = Source(range(10))
    items = prefetched(iter(source), 0)
    assert (next(items), source.taken) == (0, 1)
    items.close()
    assert source.closed.is_set()
