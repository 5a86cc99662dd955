"""The bytes of a row -> its weights, whatever they are stored as."""

from collections.abc import Sequence

from scanner.weights.codes import QuantisedWeights, open_codes
from scanner.weights.lora import LoraWeights
from scanner.weights.matrices import StoredWeights
from schemas.refs import Buffer, MatrixRef


def open_weights(ref: MatrixRef, buffers: Sequence[Buffer]) -> StoredWeights | QuantisedWeights | LoraWeights:
    """Weights of `ref` over its own bytes and those of `ref.others`, in that order.

    Raises NumericsError where quantised codes and what belongs to them do not fit each other.
    """
    if ref.lora:
        return LoraWeights(ref, buffers)
    if ref.packing:
        named = zip((part for part, _ in ref.packing.companions), buffers[1:], strict=True)
        return open_codes(ref, buffers[0], dict(named))
    return StoredWeights(ref, buffers[0])
