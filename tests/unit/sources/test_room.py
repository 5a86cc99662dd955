"""Memory for spans, and what is said where there is none."""

import pytest

from scanner.sources.room import NoRoom, room_for
from schemas.refs import FileRef, RepoRef
from schemas.results import FailureKind

FILE = FileRef(RepoRef("owner/name", "0" * 40), "model.safetensors", 1 << 61, "x")


def test_room_is_writable_and_of_the_length_of_the_span():
    room = room_for(FILE, 3, 10)
    room[:] = bytes(range(7))
    assert bytes(room) == bytes(range(7))


def test_a_span_beyond_all_memory_is_an_error_that_names_file_span_and_size():
    with pytest.raises(NoRoom, match=f"model.safetensors: no memory for the {1 << 60} bytes") as caught:
        room_for(FILE, 8, 8 + (1 << 60))
    assert (caught.value.kind, caught.value.span) == (FailureKind.OUT_OF_MEMORY, (8, 8 + (1 << 60)))
    assert not caught.value.retryable
