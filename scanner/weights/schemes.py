"""Quantised tensors told by their companions: which scheme, and whether every shape fits its formula.

The tensors decide; the config only gives parameters they cannot show. Nothing is allocated here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from schemas.refs import Packing, TensorRef
from schemas.results import Scheme, SkipReason

_WORDS = ("I32", "U32")
_BYTES = ("U8", "I8")
_FLOATS = ("F32", "F16", "BF16", "F64")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_UNKNOWN = SkipReason.QUANT_LAYOUT_UNKNOWN

_SUFFIXES = (
    *("_scale_inv", "_scale", "_scale_2", "_zero_point", "_shape", "_g_idx", "_global_scale"),
    *(".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"),
)
_SIBLINGS = ("SCB", "weight_format", "qzeros", "scales", "g_idx", "input_scale", "pre_quant_scale")
_OF_MODULES = ("k_scale", "v_scale", "q_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """Codes that can be read: `method` as it is stored in a row, W's `shape`, and how to unpack.

    The shape is a guess where only the content of a companion tells it; what reads the codes knows.
    """

    method: str
    shape: tuple[int, ...]
    packing: Packing


Found = Quantised | SkipReason | None
Named = Mapping[str, TensorRef]
Companions = tuple[tuple[str, TensorRef], ...]


def quantised(tensor: TensorRef, named: Named, settings: Mapping[str, Any]) -> Found:
    """What a tensor is under quantisation; None for one that has nothing to do with it.

    `named` are all tensors of the model, `settings` is config.json as untrusted data.
    """
    config = settings.get("quantization_config")
    config = config if isinstance(config, dict) else {}
    if _is_companion(tensor.name, named):
        return SkipReason.QUANT_COMPANION
    for recognise in _RECOGNISERS:
        found = recognise(tensor, named, config)
        if found is not None:
            return found
    return None


def _is_companion(name: str, named: Named) -> bool:
    if ".quant_state." in name:
        return name.partition(".quant_state.")[0] in named
    stem, _, last = name.rpartition(".")
    if last in _SIBLINGS or last in _OF_MODULES:
        return any(f"{stem}.{codes}" in named for codes in ("weight", "qweight", "weight_packed"))
    if last == "scale" and f"{stem}.weight" in named:
        return named[f"{stem}.weight"].dtype in (*_FLOAT8, *_BYTES)
    if name.endswith("_scales") and f"{name.removesuffix('_scales')}_blocks" in named:
        return True
    if not name.endswith(_SUFFIXES):
        return False
    return any(name.endswith(suffix) and _has_codes(name.removesuffix(suffix), named) for suffix in _SUFFIXES)


def _has_codes(stem: str, named: Named) -> bool:
    return stem in named or f"{stem}_packed" in named


def _companions(**parts: TensorRef | None) -> Companions:
    """The parts that are there."""
    return tuple((part, held) for part, held in parts.items() if held is not None)


def _qweight(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    """GPTQ and AWQ, which share names."""
    stem = tensor.name.removesuffix("qweight")
    if stem == tensor.name:
        return None
    zeros, scales, index = (named.get(stem + part) for part in ("qzeros", "scales", "g_idx"))
    if zeros is None or scales is None:
        return SkipReason.UNSUPPORTED_QUANT
    if not all(t.dtype in _WORDS and len(t.shape) == 2 for t in (tensor, zeros)) or len(scales.shape) != 2:
        return _UNKNOWN
    companions = _companions(zero=zeros, scale=scales, index=index)
    if index is None and tensor.shape[1] * 8 == scales.shape[1]:
        return _awq(tensor, companions, config)
    return _gptq(tensor, companions, config)


def _awq(tensor: TensorRef, companions: Companions, config: Mapping[str, Any]) -> Found:
    held = dict(companions)
    inner, outer = tensor.shape[0], 8 * tensor.shape[1]
    groups = held["scale"].shape[0]
    if str(config.get("version", "gemm")).lower() != "gemm":
        return SkipReason.UNSUPPORTED_QUANT
    if held["zero"].shape != (groups, tensor.shape[1]) or not groups or inner % groups:
        return _UNKNOWN
    packing = Packing(scheme=Scheme.AWQ, bits=4, companions=companions)
    return Quantised(method="awq", shape=(outer, inner), packing=packing)


def _gptq(tensor: TensorRef, companions: Companions, config: Mapping[str, Any]) -> Found:
    held = dict(companions)
    form = config.get("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2"):
        return SkipReason.UNSUPPORTED_QUANT
    (words, outer), (groups, columns) = tensor.shape, held["scale"].shape
    bits = _gptq_bits(words, held.get("index"), config)
    if bits is None or columns != outer or not groups or (words * 32) % bits:
        return _UNKNOWN
    inner = held["index"].shape[0] if "index" in held else words * 32 // bits
    fits = words == ceil(inner * bits / 32) and held["zero"].shape == (groups, ceil(outer * bits / 32))
    if not fits:
        return _UNKNOWN
    packing = Packing(scheme=Scheme.GPTQ, bits=bits, companions=companions, plus_one=form == "gptq")
    return Quantised(method="gptq", shape=(outer, inner), packing=packing)


def _gptq_bits(words: int, index: TensorRef | None, config: Mapping[str, Any]) -> int | None:
    if index is not None and len(index.shape) == 1 and index.shape[0]:
        bits = 32 * words / index.shape[0]
    else:
        bits = config.get("bits", 0)
    return int(bits) if bits in (2, 3, 4, 8) else None


def _bitsandbytes4(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    """NF4 and FP4; W's shape is in the quant_state, which only the worker reads."""
    name = tensor.name
    state = next((t for kind in ("nf4", "fp4") if (t := named.get(_state_name(name, kind)))), None)
    scale, value = named.get(f"{name}.absmax"), named.get(f"{name}.quant_map")
    if state is None and scale is None:
        return None
    if state is None or scale is None or value is None:
        return SkipReason.UNSUPPORTED_QUANT
    nested_scale, nested_value = (named.get(f"{name}.nested_{part}") for part in ("absmax", "quant_map"))
    companions = _companions(
        state=state, scale=scale, value=value, nested_scale=nested_scale, nested_value=nested_value
    )
    side = max(int((2 * tensor.nbytes) ** 0.5), 1)
    return Quantised(
        method="bitsandbytes",
        shape=(side, side),
        packing=Packing(scheme=Scheme.FLAT4, bits=4, companions=companions),
    )


def _state_name(name: str, kind: str) -> str:
    return f"{name}.quant_state.bitsandbytes__{kind}"


def _bitsandbytes8(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    scale = named.get(tensor.name.removesuffix("weight") + "SCB")
    if tensor.dtype != "I8" or scale is None or not tensor.name.endswith("weight"):
        return None
    if len(tensor.shape) != 2 or scale.shape != tensor.shape[:1] or scale.dtype != "F32":
        return _UNKNOWN
    companions = _companions(scale=scale, layout=named.get(tensor.name + "_format"))
    packing = Packing(scheme=Scheme.ROW8, bits=8, companions=companions)
    return Quantised(method="bitsandbytes", shape=tensor.shape, packing=packing)


def _microscaling(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    """gpt-oss: X_blocks [..., rows, groups, 16] of E2M1 pairs with X_scales [..., rows, groups]."""
    stem = tensor.name.removesuffix("_blocks")
    scale = named.get(stem + "_scales")
    if stem == tensor.name or scale is None:
        return None
    if tensor.dtype != "U8" or scale.dtype != "U8" or tensor.shape[:-1] != scale.shape:
        return _UNKNOWN
    if len(tensor.shape) not in (3, 4) or tensor.shape[-1] != 16:
        return _UNKNOWN
    packing = Packing(scheme=Scheme.FLOAT4, bits=4, companions=(("scale", scale),))
    shape = (*tensor.shape[:-2], 32 * tensor.shape[-2])
    return Quantised(method="mxfp4", shape=shape, packing=packing)


def _weight_packed(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    """compressed-tensors: integers in words, or small floats in bytes."""
    stem = tensor.name.removesuffix("_packed")
    scale = named.get(stem + "_scale")
    if stem == tensor.name or scale is None:
        return None
    if len(tensor.shape) != 2 or len(scale.shape) != 2 or scale.shape[0] != tensor.shape[0]:
        return _UNKNOWN
    if tensor.dtype in _WORDS:
        return _packed_integers(tensor, stem, scale, named, config)
    if tensor.dtype == "U8":
        return _packed_floats(tensor, scale, named.get(stem + "_global_scale"))
    return _UNKNOWN


def _packed_integers(
    tensor: TensorRef, stem: str, scale: TensorRef, named: Named, config: Mapping[str, Any]
) -> Found:
    shape, bits = named.get(stem + "_shape"), _bits_of_groups(config)
    if shape is None or bits is None:
        return _UNKNOWN
    zero, index = named.get(stem + "_zero_point"), named.get(stem + "_g_idx")
    companions = _companions(scale=scale, shape=shape, zero=zero, index=index)
    columns = tensor.shape[1] * 32 // bits
    return Quantised(
        method="compressed-tensors",
        shape=(tensor.shape[0], columns),
        packing=Packing(scheme=Scheme.PACKED, bits=bits, companions=companions),
    )


def _bits_of_groups(config: Mapping[str, Any]) -> int | None:
    """The one width that all groups of a compressed-tensors config give their weights."""
    groups = config.get("config_groups")
    weights = (
        [g.get("weights") for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    )
    widths = [w.get("num_bits") for w in weights if isinstance(w, dict)]
    bits = widths[0] if widths and all(width == widths[0] for width in widths) else None
    return bits if type(bits) is int and 1 <= bits <= 8 else None


def _packed_floats(tensor: TensorRef, scale: TensorRef, overall: TensorRef | None) -> Found:
    rows, width = tensor.shape
    groups = scale.shape[1]
    if groups and width == 8 * groups and scale.dtype in _FLOAT8 and overall is not None:
        both = (("scale", scale), ("global", overall))
        packing = Packing(scheme=Scheme.FLOAT4, bits=4, companions=both, flip=True)
        return Quantised(method="nvfp4", shape=(rows, 2 * width), packing=packing)
    if scale.dtype not in ("U8", "F8_E8M0") or not groups:
        return _UNKNOWN
    companions = (("scale", scale),)
    if width == 16 * groups:
        packing = Packing(scheme=Scheme.FLOAT4, bits=4, companions=companions)
        return Quantised(method="mxfp4", shape=(rows, 2 * width), packing=packing)
    if width == 24 * groups:
        packing = Packing(scheme=Scheme.FLOAT6, bits=6, companions=companions)
        return Quantised(method="mxfp6", shape=(rows, 32 * groups), packing=packing)
    return _UNKNOWN


def _scaled(tensor: TensorRef, named: Named, config: Mapping[str, Any]) -> Found:
    """Codes of 8 bits, or bytes of two 4-bit codes, with scales under the tensor's own name."""
    scale = _scale_of(tensor.name, named)
    if scale is None or tensor.dtype not in (*_FLOAT8, *_BYTES) or len(tensor.shape) not in (2, 3):
        return None
    if tensor.name.removesuffix("weight") + "pre_quant_scale" in named:
        return SkipReason.UNSUPPORTED_QUANT
    second = named.get(tensor.name + "_scale_2")
    if second is not None or _two_codes_a_byte(tensor, scale):
        return _nibbles(tensor, scale, second)
    return _whole_codes(tensor, scale, named.get(tensor.name + "_zero_point"), config)


def _scale_of(name: str, named: Named) -> TensorRef | None:
    beside = (f"{name.removesuffix('weight')}scale",) if name.endswith(".weight") else ()
    names = (f"{name}_scale_inv", f"{name}_scale", *beside)
    return next((named[scale] for scale in names if scale in named), None)


def _two_codes_a_byte(tensor: TensorRef, scale: TensorRef) -> bool:
    """A byte that holds two codes: E2M1 pairs with E8M0 scales, or ModelOpt's int4 rows."""
    if len(tensor.shape) != 2 or len(scale.shape) != 2 or tensor.dtype not in _BYTES:
        return False
    pairs = scale.dtype == "F8_E8M0" and tensor.shape[1] == 16 * scale.shape[1]
    return pairs or scale.shape[0] == 2 * tensor.shape[0]


def _nibbles(tensor: TensorRef, scale: TensorRef, second: TensorRef | None) -> Found:
    if len(tensor.shape) != 2 or len(scale.shape) != 2 or tensor.dtype not in _BYTES:
        return _UNKNOWN
    (rows, width), (lines, groups) = tensor.shape, scale.shape
    if second is not None:
        packing = Packing(scheme=Scheme.FLOAT4, bits=4, companions=(("scale", scale), ("global", second)))
        fits = lines == rows and width == 8 * groups and scale.dtype in _FLOAT8
        return Quantised(method="nvfp4", shape=(rows, 2 * width), packing=packing) if fits else _UNKNOWN
    if lines == rows:
        packing = Packing(scheme=Scheme.FLOAT4, bits=4, companions=(("scale", scale),))
        return Quantised(method="mxfp4", shape=(rows, 2 * width), packing=packing)
    packing = Packing(scheme=Scheme.INT4_ROWS, bits=4, companions=(("scale", scale),))
    fits = bool(groups) and width % groups == 0 and tensor.dtype == "U8"
    return Quantised(method="int4_awq", shape=(2 * rows, width), packing=packing) if fits else _UNKNOWN


def _whole_codes(
    tensor: TensorRef, scale: TensorRef, zero: TensorRef | None, config: Mapping[str, Any]
) -> Found:
    if tensor.dtype == "U8" or (zero is not None and zero.shape != scale.shape):
        return _UNKNOWN
    if scale.dtype not in (*_FLOATS, "F8_E8M0", "U8"):
        return _UNKNOWN
    packing = Packing(scheme=Scheme.SCALED, bits=8, companions=_companions(scale=scale, zero=zero))
    method = "fp8" if tensor.dtype in _FLOAT8 else "compressed-tensors"
    block = _block_of(tensor.shape[-2:], scale.shape, config)
    if block is not None:
        packing = replace(packing, scheme=Scheme.BLOCKS, block=block)
    elif not _even_grid(tensor.shape, scale.shape):
        return _UNKNOWN
    return Quantised(method=method, shape=tensor.shape, packing=packing)


def _block_of(
    sides: tuple[int, ...], grid: tuple[int, ...], config: Mapping[str, Any]
) -> tuple[int, int] | None:
    """The config's block, if the grid of scales is that of such blocks."""
    stated = config.get("weight_block_size")
    if not (isinstance(stated, list) and len(stated) == 2 and all(type(b) is int and b > 0 for b in stated)):
        return None
    fits = tuple(grid[-2:]) == tuple(ceil(n / b) for n, b in zip(sides, stated, strict=True))
    return (stated[0], stated[1]) if fits else None


def _even_grid(shape: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    """Whether scales are for the tensor, its rows, or cells that divide it; experts each their own."""
    if len(shape) == 3:
        if grid[:1] != shape[:1]:
            return False
        shape, grid = shape[1:], grid[1:]
    rows, columns = shape
    if grid in ((), (1,)) or grid == (rows,):
        return True
    if len(grid) != 2 or 0 in grid:
        return False
    return rows % grid[0] == 0 and columns % grid[1] == 0


_RECOGNISERS: tuple[Callable[[TensorRef, Named, Mapping[str, Any]], Found], ...] = (
    _qweight,
    _bitsandbytes4,
    _bitsandbytes8,
    _microscaling,
    _weight_packed,
    _scaled,
)
