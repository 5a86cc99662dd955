"""Tensors -> matrices: which rows of `layers` a tensor becomes, and its stored bytes as weights."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from scanner.weights import decode
from scanner.weights.config import settings_of
from scanner.weights.experts import experts
from scanner.weights.fused import Part, fused_parts, is_ambiguous
from scanner.weights.lora import AdapterConfig, Place, lora_pairs, place_of
from scanner.weights.quant import name_of_weights, rows_of_codes
from scanner.weights.roles import is_table, layer_indices, natural, role
from scanner.weights.schemes import Found, Quantised, quantised
from scanner.weights.tensors import Upload, on_device
from scanner.weights.tied import tied_copies
from schemas.config import MatrixRules
from schemas.refs import Buffer, Cut, LoraPair, MatrixRef, TensorRef
from schemas.results import FloatArray, Role, Scheme, SkipReason

_MAX_KERNEL = 64
"""Longest last axis of a 3-D tensor still taken for a conv1d kernel when its name does not say conv."""

_DBRX = re.compile(r"\.experts\.mlp\.(?:w1|v1|w2)$")

NOTHING: Mapping[str, Any] = MappingProxyType({})
"""A config that says nothing."""

_HEADS = (Role.LM_HEAD, Role.CLASSIFIER)
_NOT_BODY = (Role.EMBED, Role.POS_EMBED, Role.LORA)


@dataclass(frozen=True, slots=True)
class _Model:
    """What one tensor must know of the others: shapes, the config, codes, LoRA pairs, and second names."""

    shapes: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Any]
    quants: Mapping[Place, Found]
    pairs: Mapping[Place, LoraPair]
    second_names: Mapping[Place, SkipReason]


def plan_matrices(
    tensors: Sequence[TensorRef],
    rules: MatrixRules,
    component: str | None = None,
    first_index: int = 0,
    *,
    settings: Mapping[str, Any] = NOTHING,
    adapter: AdapterConfig = NOTHING,
) -> tuple[MatrixRef, ...]:
    """Every tensor of one model as planned rows, each either to be analysed or skipped with a reason.

    A tensor qualifies by dtype and shape, never by the end of its name. Rows keep the order of `tensors`; a
    fused tensor is a row a part, a LoRA pair one row under the name of its A factor. `settings` is
    config.json, `adapter` adapter_config.json, both as untrusted data.
    """
    model = _model(tensors, rules, settings, adapter)
    depth = layer_indices(model.shapes)
    rows: list[MatrixRef] = []
    for tensor in tensors:
        whole = _whole(tensor, first_index + len(rows), component, depth, model)
        rows += (whole,) if whole.skip else _rows_of(whole, model, rules)
    last = _last_names(rows, depth)
    return tuple(_numbered(row, first_index + i, row.tensor.name in last) for i, row in enumerate(rows))


def _whole(
    tensor: TensorRef, index: int, component: str | None, depth: Mapping[str, int], model: _Model
) -> MatrixRef:
    """A tensor as one row, skipped where it is no weight of its own."""
    place = place_of(tensor)
    quant = model.quants[place]
    second = model.second_names.get(place)
    skip = None if isinstance(quant, Quantised) else quant or _no_matrix(tensor) or second
    return MatrixRef(
        tensor=tensor,
        index=index,
        shape=tensor.shape,
        start=tensor.start,
        stop=tensor.stop,
        role=role(tensor.name, len(tensor.shape)),
        component=component,
        layer_index=depth.get(tensor.name),
        skip=skip,
    )


def _numbered(row: MatrixRef, index: int, is_last: bool) -> MatrixRef:
    """The row itself, most often: a copy costs as much as all else that is planned of it."""
    if row.index == index and row.is_last == is_last:
        return row
    return replace(row, index=index, is_last=is_last)


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


def _model(
    tensors: Sequence[TensorRef],
    rules: MatrixRules,
    settings: Mapping[str, Any],
    adapter: AdapterConfig,
) -> _Model:
    named, shapes = {t.name: t for t in tensors}, {t.name: t.shape for t in tensors}
    quants = {place_of(t): quantised(t, named, settings) for t in tensors}
    if rules.as_stored:
        return _Model(shapes, NOTHING, quants, {}, {})
    pairs = lora_pairs([t for t in tensors if not quants[place_of(t)]], adapter)
    second = dict.fromkeys((place_of(pair.b) for pair in pairs.values()), SkipReason.LORA_PAIR)
    copies = dict.fromkeys(map(place_of, tied_copies(tensors, settings)), SkipReason.DUPLICATE_TIED)
    return _Model(shapes, settings, quants, pairs, second | copies)


class StoredWeights:
    """The stored bytes of one MatrixRef as float64 blocks, converted only block by block."""

    def __init__(self, ref: MatrixRef, buffer: Buffer) -> None:
        self._dtype = ref.tensor.dtype
        held = ref.cut.whole(ref.shape) if ref.cut else ref.shape
        array = decode.as_array(buffer, self._dtype, held)
        if ref.cut:
            array = _cut(array, ref.cut)
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

    def slice_of(self, which: int) -> FloatArray:
        """C-contiguous float64 copy of a kernel position, (out, in); of a plain matrix, all of it."""
        rows, columns = self._array.shape[:2]
        return decode.to_float64(self._array.reshape(rows, columns, -1)[:, :, which], self._dtype)

    def on_device(self, upload: Upload) -> Any:
        """The same values as a tensor in their stored type, where `upload` takes bytes."""
        return on_device(self._array, self._dtype, upload)


def _cut(array: NDArray[Any], cut: Cut) -> NDArray[Any]:
    """A view where the part is one block, otherwise a copy of the part as stored."""
    rows, columns = array.shape
    if cut.axis == 0:
        return array.reshape(-1, cut.period, columns)[:, cut.start : cut.stop].reshape(-1, columns)
    if cut.period == columns:
        return array[:, cut.start : cut.stop]
    return array.reshape(rows, -1, cut.period)[:, :, cut.start : cut.stop].reshape(rows, -1)


def _rows_of(whole: MatrixRef, model: _Model, rules: MatrixRules) -> Iterator[MatrixRef]:
    """The rows of a tensor: of codes, of a LoRA pair, or of the parts of a plain one."""
    tensor, place = whole.tensor, place_of(whole.tensor)
    quant = model.quants[place]
    if isinstance(quant, Quantised):
        named = replace(whole, role=role(name_of_weights(tensor.name), len(quant.shape)))
        yield from (limited(row, rules) for row in rows_of_codes(named, quant))
    elif pair := model.pairs.get(place):
        yield _product(whole, pair, rules)
    else:
        for row in _stack(whole, model):
            yield from (limited(part, rules) for part in _parts(row, model, rules))


def _product(row: MatrixRef, pair: LoraPair, rules: MatrixRules) -> MatrixRef:
    """The update of a LoRA pair; its rank may be small, its sides may not."""
    sides = (pair.b.shape[0], prod(row.tensor.shape[1:]))
    skip = SkipReason.TOO_SMALL if min(sides) < rules.min_side else None
    return replace(row, shape=sides, role=Role.LORA, lora=pair, skip=skip)


def _parts(row: MatrixRef, model: _Model, rules: MatrixRules) -> Iterator[MatrixRef]:
    if len(row.shape) > 2:
        yield from _conv_mode(row, rules)
        return
    name = row.tensor.name
    settings = settings_of(name, model.settings)
    parts = () if rules.as_stored else fused_parts(name, row.shape, row.role, settings, model.shapes)
    if is_ambiguous(row.shape, row.role, settings):
        row = replace(row, note="ambiguous_orientation")
    yield from (_part(row, part) for part in parts) if parts else (row,)


def _part(row: MatrixRef, part: Part) -> MatrixRef:
    """Rows in one block are bytes of their own; any other part is cut from the bytes of the whole."""
    cut, (rows, columns) = part.cut, row.shape
    size = cut.stop - cut.start
    row = replace(row, part=part.name, role=part.role)
    if cut.axis == 1:
        return replace(row, shape=(rows, columns // cut.period * size), cut=cut)
    if cut.period < rows:
        return replace(row, shape=(rows // cut.period * size, columns), cut=cut)
    each = (row.stop - row.start) // rows
    start = row.start + cut.start * each
    return replace(row, shape=(size, columns), start=start, stop=start + size * each)


def _no_matrix(tensor: TensorRef) -> SkipReason | None:
    if prod(tensor.shape) == 0:
        return SkipReason.EMPTY
    if len(tensor.shape) < 2 or not decode.is_float(tensor.dtype) or is_table(tensor.name):
        return SkipReason.NOT_A_MATRIX
    if not decode.supported(tensor.dtype):
        return SkipReason.UNSUPPORTED_DTYPE
    return None


def _stack(row: MatrixRef, model: _Model) -> Iterator[MatrixRef]:
    """The experts of a stack, each a row; anything else as one, without a leading axis that holds nothing."""
    if (count := _stacked_rows(row, model)) and row.shape[0] % count == 0:
        row = replace(row, shape=(count, row.shape[0] // count, row.shape[1]))
        yield from experts(row)
    elif _is_stack(row.tensor):
        yield from experts(row)
    else:
        yield _squeezed(row)


def _stacked_rows(row: MatrixRef, model: _Model) -> int:
    """Experts that DBRX stacks along the rows of a plain matrix; 0 for other models."""
    sizes = model.settings.get("ffn_config")
    if len(row.shape) != 2 or not _DBRX.search(row.tensor.name) or not isinstance(sizes, dict):
        return 0
    count = sizes.get("moe_num_experts")
    return count if type(count) is int and count > 1 else 0


def _is_stack(tensor: TensorRef) -> bool:
    if len(tensor.shape) != 3 or tensor.shape[0] == 1:
        return False
    if "expert" in tensor.name:
        return True
    return tensor.shape[2] > _MAX_KERNEL and not _says_conv(tensor)


def _says_conv(tensor: TensorRef) -> bool:
    return "conv" in tensor.name.lower()


def _squeezed(row: MatrixRef) -> MatrixRef:
    """A table of positions stored as (1, n, d) is a plain matrix, not a convolution."""
    if len(row.shape) == 3 and row.shape[0] == 1 and not _says_conv(row.tensor):
        return replace(row, shape=row.shape[1:], role=Role.OTHER if row.role is Role.CONV else row.role)
    return row


def _conv_mode(row: MatrixRef, rules: MatrixRules) -> Iterator[MatrixRef]:
    depthwise = row.shape[1] == 1 and not rules.depthwise
    if rules.conv_mode in ("pool", "fft") or depthwise:
        yield row
    elif rules.conv_mode == "flatten":
        yield replace(row, shape=(row.shape[0], prod(row.shape[1:])))
    else:
        yield from (replace(row, slice_id=s) for s in range(row.kernel_size))


def limited(row: MatrixRef, rules: MatrixRules) -> MatrixRef:
    """Skip what is depthwise, too small or too large to be a row.

    Codes whose sides only the worker learns are planned as a square, whose side is the most that the short
    side can be: too small is certain then, too large is not.
    """
    side = min(row.shape[:2])
    evals = side * row.slices
    if len(row.shape) > 2 and row.shape[1] == 1 and not rules.depthwise:
        return replace(row, skip=SkipReason.SKIP_DEPTHWISE)
    if side < rules.min_side or evals < rules.min_evals:
        return replace(row, skip=SkipReason.TOO_SMALL)
    guessed = row.packing is not None and row.packing.scheme is Scheme.FLAT4
    if side > rules.max_evals_exact and not guessed:
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
