"""Quantised tensors -> rows: one for a matrix of codes, one for each expert of a stack of them."""

from collections.abc import Iterator
from dataclasses import replace

from scanner.weights.experts import expert_bytes, experts
from scanner.weights.schemes import Quantised
from schemas.refs import MatrixRef, Packing, TensorRef

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
    for e, expert in enumerate(experts(row)):
        yield replace(expert, packing=_packing_of(found.packing, found.shape[0], e))


def _packing_of(packing: Packing, count: int, e: int) -> Packing:
    return replace(
        packing, companions=tuple((part, _slice(held, count, e)) for part, held in packing.companions)
    )


def _slice(held: TensorRef, count: int, e: int) -> TensorRef:
    start, stop = expert_bytes(held.start, held.stop, count, e)
    return replace(held, shape=held.shape[1:], start=start, stop=stop)
