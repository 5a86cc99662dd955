"""Quantised tensors -> rows: one for a matrix of codes, one for each expert of a stack of them."""

from collections.abc import Iterator
from dataclasses import replace

from scanner.weights.schemes import Quantised
from schemas.refs import MatrixRef, Packing, TensorRef
from schemas.results import Role

_OF_CODES = {"qweight": "weight", "weight_packed": "weight", "_blocks": ""}


def name_of_weights(name: str) -> str:
    """The name that the tensor had before it was quantised."""
    found = ((end, plain) for end, plain in _OF_CODES.items() if name.endswith(end))
    end, plain = next(found, ("", ""))
    return name.removesuffix(end) + plain


def rows_of_codes(plain: MatrixRef, found: Quantised) -> Iterator[MatrixRef]:
    """The rows of a tensor of codes; each has the scales it needs and no others."""
    row = replace(plain, shape=found.shape, packing=found.packing, quant_method=found.method)
    if len(found.shape) == 2:
        yield row
        return
    row = replace(row, role=Role.OTHER if row.role is Role.CONV else row.role)
    count = found.shape[0]
    for e in range(count):
        start, stop = _expert(row.start, row.stop, count, e)
        packing = _packing_of(found.packing, count, e)
        yield replace(row, shape=found.shape[1:], start=start, stop=stop, packing=packing, expert_id=e)


def _packing_of(packing: Packing, count: int, e: int) -> Packing:
    return replace(
        packing, companions=tuple((part, _slice(held, count, e)) for part, held in packing.companions)
    )


def _slice(held: TensorRef, count: int, e: int) -> TensorRef:
    start, stop = _expert(held.start, held.stop, count, e)
    return replace(held, shape=held.shape[1:], start=start, stop=stop)


def _expert(start: int, stop: int, count: int, e: int) -> tuple[int, int]:
    each = (stop - start) // count
    return start + e * each, start + (e + 1) * each
