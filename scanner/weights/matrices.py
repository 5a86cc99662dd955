"""Tensors -> matrices: which rows of `layers` a tensor becomes, and its stored bytes as weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from scanner.weights import decode
from scanner.weights.quant import quant_method
from scanner.weights.roles import is_table, layer_indices, natural, role
from schemas.config import MatrixRules
from schemas.refs import MatrixRef, TensorRef
from schemas.results import FloatArray, Role, SkipReason

_MAX_KERNEL = 64
"""Longest last axis of a 3-D tensor still taken for a conv1d kernel when its name does not say conv."""

_HEADS = (Role.LM_HEAD, Role.CLASSIFIER)
_NOT_BODY = (Role.EMBED, Role.POS_EMBED, Role.LORA)


def plan_matrices(
    tensors: Sequence[TensorRef], rules: MatrixRules, component: str | None = None, first_index: int = 0
) -> tuple[MatrixRef, ...]:
    """Every tensor of one model as planned rows, each either to be analysed or skipped with a reason.

    A tensor qualifies by dtype and shape, never by the end of its name. Rows keep the order of `tensors`.
    """
    names = frozenset(t.name for t in tensors)
    depth = layer_indices(names)
    rows = [row for tensor in tensors for row in _rows_of(tensor, names, rules)]
    last = _last_names(rows, depth)
    return tuple(
        replace(
            row,
            index=first_index + i,
            component=component,
            layer_index=depth.get(row.tensor.name),
            is_last=row.tensor.name in last,
        )
        for i, row in enumerate(rows)
    )


def plan_unread(
    tensors: Sequence[TensorRef], component: str | None = None, first_index: int = 0
) -> tuple[MatrixRef, ...]:
    """Every tensor of files that selection left out, as skipped rows."""
    return tuple(
        MatrixRef(
            tensor=tensor,
            index=first_index + i,
            shape=tensor.shape,
            start=tensor.start,
            stop=tensor.stop,
            role=role(tensor.name, len(tensor.shape)),
            component=component,
            skip=SkipReason.NOT_SELECTED,
        )
        for i, tensor in enumerate(tensors)
    )


class StoredWeights:
    """The stored bytes of one MatrixRef as float64 blocks, converted only block by block."""

    def __init__(self, ref: MatrixRef, buffer: bytes | bytearray | memoryview) -> None:
        self._dtype = ref.tensor.dtype
        array = decode.as_array(buffer, self._dtype, ref.shape)
        if ref.slice_id is not None:
            array = array.reshape(*ref.shape[:2], -1)[:, :, ref.slice_id]
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (out, in, k...) for a pooled convolution."""
        return self._array.shape

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 copy of [rows, columns, ...]."""
        return decode.to_float64(self._array[rows, columns], self._dtype)


def _rows_of(tensor: TensorRef, names: Collection[str], rules: MatrixRules) -> Iterator[MatrixRef]:
    quant = quant_method(tensor.name, tensor.dtype, names)
    plain = MatrixRef(
        tensor=tensor,
        index=0,
        shape=tensor.shape,
        start=tensor.start,
        stop=tensor.stop,
        role=role(tensor.name, len(tensor.shape)),
        quant_method=None if quant == "companion" else quant,
    )
    if quant:
        yield replace(plain, skip=SkipReason.UNSUPPORTED_QUANT)
    elif reason := _no_matrix(tensor):
        yield replace(plain, skip=reason)
    elif _is_stack(tensor):
        yield from (_limited(expert, rules) for expert in _experts(plain))
    else:
        yield from (_limited(row, rules) for row in _conv_mode(_squeezed(plain), rules))


def _no_matrix(tensor: TensorRef) -> SkipReason | None:
    if prod(tensor.shape) == 0:
        return SkipReason.EMPTY
    if len(tensor.shape) < 2 or not decode.is_float(tensor.dtype) or is_table(tensor.name):
        return SkipReason.NOT_A_MATRIX
    if not decode.supported(tensor.dtype):
        return SkipReason.UNSUPPORTED_DTYPE
    return None


def _is_stack(tensor: TensorRef) -> bool:
    if len(tensor.shape) != 3 or tensor.shape[0] == 1:
        return False
    if "expert" in tensor.name:
        return True
    return tensor.shape[2] > _MAX_KERNEL and "conv" not in tensor.name


def _experts(stack: MatrixRef) -> Iterator[MatrixRef]:
    count, *side = stack.shape
    each = (stack.stop - stack.start) // count
    kind = Role.OTHER if stack.role is Role.CONV else stack.role
    for e in range(count):
        start = stack.start + e * each
        yield replace(stack, shape=tuple(side), start=start, stop=start + each, expert_id=e, role=kind)


def _squeezed(row: MatrixRef) -> MatrixRef:
    """A table of positions stored as (1, n, d) is a plain matrix, not a convolution."""
    if len(row.shape) == 3 and row.shape[0] == 1:
        return replace(row, shape=row.shape[1:], role=Role.OTHER if row.role is Role.CONV else row.role)
    return row


def _conv_mode(row: MatrixRef, rules: MatrixRules) -> Iterator[MatrixRef]:
    depthwise = row.shape[1] == 1 and not rules.depthwise
    if len(row.shape) == 2 or rules.conv_mode == "pool" or depthwise:
        yield row
    elif rules.conv_mode == "flatten":
        yield replace(row, shape=(row.shape[0], prod(row.shape[1:])))
    else:
        yield from (replace(row, slice_id=s) for s in range(row.kernel_size))


def _limited(row: MatrixRef, rules: MatrixRules) -> MatrixRef:
    """Skip what is depthwise, too small or too large to be a row."""
    side = min(row.shape[:2])
    evals = side * (1 if row.slice_id is not None else row.kernel_size)
    if len(row.shape) > 2 and row.shape[1] == 1 and not rules.depthwise:
        return replace(row, skip=SkipReason.SKIP_DEPTHWISE)
    if side < rules.min_side or evals < rules.min_evals:
        return replace(row, skip=SkipReason.TOO_SMALL)
    if side > rules.max_evals_exact:
        return replace(row, skip=SkipReason.TOO_LARGE)
    return row


def _last_names(rows: Sequence[MatrixRef], depth: Mapping[str, Any]) -> frozenset[str]:
    """The matrices that feed the output: heads, or else the last body matrix outside the blocks."""
    live = [row for row in rows if not row.skip]
    heads = frozenset(row.tensor.name for row in live if row.role in _HEADS)
    if heads:
        return heads
    loose = [r.tensor.name for r in live if r.role not in _NOT_BODY and r.tensor.name not in depth]
    return frozenset({max(loose, key=natural)} if loose else ())
