"""Recognises quantised tensors by their companions, so that packed codes are never read as weights."""

from collections.abc import Collection

_PACKED = {
    ".qweight": "gptq",
    ".weight_packed": "compressed-tensors",
    "_blocks": "mxfp4",
    "_packed": "compressed-tensors",
}
_SCALES = {
    "_scale_inv": "fp8",
    "_scale": "fp8",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
}
_COMPANIONS = (
    ".qzeros .scales .g_idx .absmax .quant_map .nested_absmax .nested_quant_map .SCB .weight_format "
    "_scale _scale_inv _scale_2 _zero_point _shape _g_idx _global_scale _scales .scale input_scale "
    "k_scale v_scale"
).split()


def quant_method(name: str, dtype: str, names: Collection[str]) -> str | None:
    """Name the quantisation a tensor belongs to, as codes or as their companion; None for plain weights.

    `names` are all tensors of the model. Decided by the companion tensors, since a config may disagree.
    """
    for suffix, method in _PACKED.items():
        if name.endswith(suffix) and _has_scales(name.removesuffix(suffix), names):
            return "awq" if method == "gptq" and f"{name.removesuffix(suffix)}.g_idx" not in names else method
    for suffix, method in _SCALES.items():
        if f"{name}{suffix}" in names:
            return method
    if dtype == "I8" and f"{name.removesuffix('weight')}SCB" in names:
        return "bitsandbytes"
    return _companion_of(name, names)


def _has_scales(stem: str, names: Collection[str]) -> bool:
    return any(f"{stem}{suffix}" in names for suffix in (".scales", ".weight_scale", "_scales", "_scale"))


def _companion_of(name: str, names: Collection[str]) -> str | None:
    if ".quant_state." in name:
        return "bitsandbytes"
    for suffix in _COMPANIONS:
        stem = name.removesuffix(suffix)
        if stem == name:
            continue
        if suffix in (".SCB", ".weight_format") and f"{stem}.weight" in names:
            return "companion"
        if stem in names or any(f"{stem}{packed}" in names for packed in _PACKED):
            return "companion"
    return None
