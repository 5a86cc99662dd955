"""Which spans share a request."""

from hypothesis import given
from hypothesis import strategies as st

from scanner.sources.rangereader import request_stops


def stops(spans, size=1000, gap=10, whole_share=0.6):
    return request_stops(spans, size, gap=gap, whole_share=whole_share)


def test_neighbours_share_a_request():
    assert stops([(0, 10), (10, 20), (30, 40), (51, 60)]) == [40, 40, 40, 60]


def test_most_of_a_file_is_one_request():
    assert stops([(0, 300), (400, 700)]) == [700, 700]
    assert stops([(0, 300), (400, 699)]) == [300, 699]


def test_no_spans_no_requests():
    assert stops([]) == []


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=20), st.integers(0, 20))
def test_requests_cover_their_spans_and_only_small_gaps(steps, gap):
    spans, at = [], 0
    for skip, length in steps:
        spans.append((at + skip, at + skip + length))
        at += skip + length
    found = stops(spans, size=10_000, gap=gap)
    assert all(stop >= span[1] for stop, span in zip(found, spans, strict=True))
    assert found == sorted(found)
    for i in range(1, len(spans)):
        assert (found[i] == found[i - 1]) == (spans[i][0] - spans[i - 1][1] <= gap)
