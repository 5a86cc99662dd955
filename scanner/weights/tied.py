"""Tied tensors: second names of the input embedding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scanner.weights.config import is_tied
from scanner.weights.roles import role
from schemas.refs import TensorRef
from schemas.results import Role


def tied_copies(tensors: Sequence[TensorRef], settings: Mapping[str, Any]) -> Iterator[TensorRef]:
    """Tensors that the model replaces by its input embedding when it is loaded; the embedding is not one.

    Decided by config.json alone: with `tie_word_embeddings` true the library takes the embedding for the
    head, whatever the file holds under the head's name, so a head of the embedding's shape and type is no
    weight of its own and its bytes need not be read. The same holds for `encoder.embed_tokens` and
    `decoder.embed_tokens` beside a `shared` embedding. (Two names of one byte range are no valid
    safetensors file.)
    """
    if not is_tied(settings):
        return
    roles = {t: role(t.name, 2) for t in tensors if len(t.shape) == 2 and not _in_block(t)}
    known = {_kind(t) for t in roles if roles[t] is Role.EMBED}
    shared = {_kind(t) for t in roles if roles[t] is Role.EMBED and _module(t) == "shared"}
    for tensor, found in roles.items():
        is_head = found is Role.LM_HEAD and _kind(tensor) in known
        if is_head or (_module(tensor) == "embed_tokens" and _kind(tensor) in shared):
            yield tensor


def _in_block(tensor: TensorRef) -> bool:
    return any(word.isdigit() for word in tensor.name.split("."))


def _kind(tensor: TensorRef) -> tuple[str, tuple[int, ...]]:
    return tensor.dtype, tensor.shape


def _module(tensor: TensorRef) -> str:
    """`embed_tokens` of `decoder.embed_tokens.weight`."""
    return tensor.name.removesuffix(".weight").rpartition(".")[2]
