"""Fused tensors -> their parts: q, k, v; gate, up; the gates of a recurrent cell.

A tensor is split only where its layout is certain: by the architecture that config.json names, checked
against the tensor's shape, or by PyTorch's own modules (in_proj_weight, LSTM, GRU), which need no config.
Everything else stays one row with role qkv, gate_up or recurrent. Layouts: as in transformers 5 and
torch 2; a family that is not in these tables is not guessed at.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scanner.weights.config import Heads, heads, model_type
from schemas.refs import Cut
from schemas.results import Role


class Part(NamedTuple):
    """One part: its name, its role, and where in the tensor it lies."""

    name: str
    role: Role
    cut: Cut


class Layout(NamedTuple):
    """Parts of these sizes, in this order, repeated `groups` times along `axis`."""

    sizes: tuple[tuple[str, int], ...]
    groups: int = 1
    axis: int = 0


_ROLES = {"q": Role.Q, "k": Role.K, "v": Role.V, "gate": Role.GATE, "up": Role.UP}
_GATES = {3: "rzn", 4: "ifgo"}
"""Order of the gates in torch's GRU and LSTM."""

_CELL = re.compile(r"(?P<stem>.*)weight_(?P<kind>ih|hh|hr)(?P<rest>(?:_l\d+(?:_reverse)?)?)")


def fused_parts(
    name: str,
    shape: Sequence[int],
    role: Role,
    settings: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[Part, ...]:
    """Parts of the 2-D tensor `name`; none where it is not fused or its layout is not certain.

    `settings` is config.json of the sub-model the tensor belongs to, `shapes` has the shapes of all tensors
    of the model. The parts cover the tensor without overlap.
    """
    layout = _layout(name, shape, role, settings, shapes)
    if layout is None or not _fits(layout, shape):
        return ()
    period = sum(size for _, size in layout.sizes)
    parts, start = [], 0
    for part, size in layout.sizes:
        cut = Cut(axis=layout.axis, period=period, start=start, stop=start + size)
        parts.append(Part(part, _ROLES.get(part, role), cut))
        start += size
    return tuple(parts)


def is_ambiguous(shape: Sequence[int], role: Role, settings: Mapping[str, Any]) -> bool:
    """Whether a fused gate_up of a known family is square, so that nothing tells its fused axis."""
    known = model_type(settings) in _HALVES | _ALTERNATING
    return role is Role.GATE_UP and known and shape[0] == shape[1] == settings.get("hidden_size")


def _fits(layout: Layout, shape: Sequence[int]) -> bool:
    sizes = [size for _, size in layout.sizes]
    return min(sizes) > 0 and sum(sizes) * layout.groups == shape[layout.axis]


def _layout(
    name: str,
    shape: Sequence[int],
    role: Role,
    settings: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> Layout | None:
    if role is Role.RECURRENT:
        return _cell(name, shapes)
    if role is Role.GATE_UP:
        return _gate_up(shape, settings)
    if role is not Role.QKV:
        return None
    of_vision = name.removesuffix(".weight").endswith("attn.qkv") and _is_vision(settings)
    if of_vision or name.endswith("in_proj_weight"):
        return _thirds(shape) if shape[0] == 3 * shape[1] else None
    family, sizes = _QKV.get(model_type(settings)), heads(settings)
    return family(sizes, shape, settings) if family and sizes else None


def _thirds(shape: Sequence[int], axis: int = 0) -> Layout:
    return Layout(tuple((part, shape[axis] // 3) for part in "qkv"), axis=axis)


# qkv, by model_type

_Family = Callable[[Heads, Sequence[int], Mapping[str, Any]], Layout | None]


def _blocks(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    """[all q | all k | all v]."""
    return Layout((("q", of.number * of.size), ("k", of.kv * of.size), ("v", of.kv * of.size)))


def _by_head(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    """[q k v] of every head."""
    return Layout(tuple((part, of.size) for part in "qkv"), groups=of.number)


def _by_group(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    """[q ... q k v] of every key-value head."""
    return Layout((("q", of.number // of.kv * of.size), ("k", of.size), ("v", of.size)), groups=of.kv)


def _columns(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout | None:
    """Conv1D: [in, q | k | v]; a cross-attention's [in, k | v] is left whole."""
    return _thirds(shape, axis=1) if shape[1] == 3 * shape[0] else None


def _codegen(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    """Four shards, each [q | v | k]."""
    return Layout(tuple((part, of.number * of.size // 4) for part in "qvk"), groups=4)


def _falcon(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    if settings.get("new_decoder_architecture") is True:
        return _by_group(of, shape, settings)
    return _multi_query(of, shape, settings)


def _multi_query(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    if settings.get("multi_query", True) is True:
        return _blocks(of._replace(kv=1), shape, settings)
    return _by_head(of, shape, settings)


def _chatglm(of: Heads, shape: Sequence[int], settings: Mapping[str, Any]) -> Layout:
    """ChatGLM2 and later; the first ChatGLM alternates by head, as these do without groups."""
    return (_blocks if settings.get("multi_query_attention") is True else _by_head)(of, shape, settings)


_QKV: Mapping[str, _Family] = {
    **dict.fromkeys(
        "phi3 phi4mm phi4_multimodal dbrx mpt qwen baichuan modernbert nomic_bert".split(), _blocks
    ),
    **dict.fromkeys("gpt_neox gpt_neox_japanese bloom persimmon deberta".split(), _by_head),
    **dict.fromkeys("falcon RefinedWeb RefinedWebModel".split(), _falcon),
    **dict.fromkeys("gpt2 openai-gpt imagegpt decision_transformer jais".split(), _columns),
    "gpt_bigcode": _multi_query,
    "internlm2": _by_group,
    "codegen": _codegen,
    "chatglm": _chatglm,
}

_VISION = frozenset("qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe sam sam_vision_model".split())
_TIMM = ("vit_", "deit", "eva", "beit", "swin")


def _is_vision(settings: Mapping[str, Any]) -> bool:
    """Families whose `attn.qkv` is [q | k | v]; timm's config names an architecture and no model_type."""
    timm = settings.get("architecture")
    return model_type(settings) in _VISION or (isinstance(timm, str) and timm.startswith(_TIMM))


# gate_up, by model_type

_HALVES = frozenset(
    "phi3 phi4mm phi4_multimodal glm glm4 glm4v_text llama4 llama4_text mixtral qwen2_moe qwen3_moe "
    "qwen3_next qwen3_vl_moe qwen3_vl_moe_text deepseek_v2 deepseek_v3 glm4_moe olmoe "
    "granitemoe granitemoeshared granitemoehybrid".split()
)
_ALTERNATING = frozenset(["gpt_oss"])


def _gate_up(shape: Sequence[int], settings: Mapping[str, Any]) -> Layout | None:
    """The fused axis is the one that hidden_size is not; where both could be, none is chosen."""
    hidden, kind = settings.get("hidden_size"), model_type(settings)
    if (shape[0] == hidden) == (shape[1] == hidden):
        return None
    axis = 0 if shape[1] == hidden else 1
    if kind in _ALTERNATING:
        return Layout((("gate", 1), ("up", 1)), groups=shape[axis] // 2, axis=axis)
    half = shape[axis] // 2
    return Layout((("gate", half), ("up", half)), axis=axis) if kind in _HALVES else None


# recurrent cells, by the shapes of their own tensors


def _cell(name: str, shapes: Mapping[str, Sequence[int]]) -> Layout | None:
    """Gates of torch's LSTM and GRU: the hidden size is the width of weight_hh, with a projection of hr."""
    match = _CELL.fullmatch(name)
    if match is None or match["kind"] == "hr":
        return None
    recurrent, projection = (
        shapes.get(f"{match['stem']}weight_{kind}{match['rest']}") for kind in ("hh", "hr")
    )
    if recurrent is None or len(recurrent) != 2:
        return None
    hidden = projection[-1] if projection else recurrent[1]
    gates = _GATES.get(recurrent[0] // hidden if hidden else 0)
    return Layout(tuple((gate, hidden) for gate in gates)) if gates else None
