"""A stack of experts -> a row for each."""

from collections.abc import Iterator
from dataclasses import replace

from schemas.refs import MatrixRef
from schemas.results import Role


def experts(stack: MatrixRef) -> Iterator[MatrixRef]:
    """The experts along the leading axis of a row, each with its share of the bytes; none is a conv."""
    kind = Role.OTHER if stack.role is Role.CONV else stack.role
    count, *side = stack.shape
    for e in range(count):
        start, stop = expert_bytes(stack.start, stack.stop, count, e)
        yield replace(stack, shape=tuple(side), start=start, stop=stop, expert_id=e, role=kind)


def expert_bytes(start: int, stop: int, count: int, e: int) -> tuple[int, int]:
    """The e-th of `count` equal shares of the bytes start..stop."""
    each = (stop - start) // count
    return start + e * each, start + (e + 1) * each
