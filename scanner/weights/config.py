"""What a model's config.json says about the shape of its attention; a stranger's file, so all is checked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

_COUNT = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "multi_query_group_num")
_SIZE = ("head_dim", "kv_channels")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_VISION = frozenset(("visual", "vision_model", "vision_tower", "vision_encoder"))


class Heads(NamedTuple):
    """Attention heads, key-value heads, and the width of one."""

    number: int
    kv: int
    size: int


def settings_of(name: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that governs the tensor `name`: vision_config, text_config, or all of it."""
    vision = not _VISION.isdisjoint(name.split("."))
    section = settings.get("vision_config" if vision else "text_config")
    if not isinstance(section, dict):
        return settings
    return {"model_type": settings.get("model_type")} | section


def model_type(settings: Mapping[str, Any]) -> str:
    """`model_type`, or an empty string."""
    found = settings.get("model_type")
    return found if isinstance(found, str) else ""


def heads(settings: Mapping[str, Any]) -> Heads | None:
    """The attention heads a config describes; None where it does not, or contradicts itself."""
    section = settings.get("attn_config")
    both = {**section, **settings} if isinstance(section, dict) else settings
    count, width = _first(both, _COUNT), _first(both, _WIDTH)
    kv = _first(both, _KV) or count
    size = _first(both, _SIZE) or (width // count if count and width and width % count == 0 else None)
    if not count or not kv or not size or count % kv:
        return None
    return Heads(count, kv, size)


def is_tied(settings: Mapping[str, Any]) -> bool:
    """Whether the config says that the output head is the input embedding."""
    section = settings.get("text_config")
    stated = settings.get("tie_word_embeddings")
    if stated is None and isinstance(section, dict):
        stated = section.get("tie_word_embeddings")
    return stated is True


def _first(settings: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    found = (settings.get(key) for key in keys)
    return next((value for value in found if type(value) is int and 0 < value < 1 << 24), None)
