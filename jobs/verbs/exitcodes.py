"""How a command ends."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `hubspectra`."""

    OK = 0
    USER = 1
    USAGE = 2
    SOME_FAILED = 3
    INTERRUPTED = 130
