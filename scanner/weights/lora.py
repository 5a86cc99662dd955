"""LoRA adapters: which tensors are the two factors of one update, its scale, and the product as weights.

Delta = c B A with A (r, in) and B (out, r). c is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora; r
is the inner side of the stored factors, so `rank_pattern` needs no reading. A stored `.alpha` scalar (kohya)
comes before the config; without both c is 1, as diffusers loads such files. An alpha that is stated, but
is no number from 0 on, fails its pairs, and a config that is there, but cannot be read, fails all: any scale
would be a guess. What a DoRA adds needs its base: c B A is reported.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod, sqrt
from reprlib import repr as shortened
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scanner.weights import decode
from schemas.errors import NumericsError
from schemas.refs import Buffer, LoraPair, MatrixRef, TensorRef
from schemas.results import FailureKind, FloatArray

_FACTOR = re.compile(
    r"(?P<module>.+?)[._]lora(?P<kind>_embedding_|_linear_layer\.|_|\.)(?P<side>A|B|down|up)"
    r"(?P<rest>(?:\.[^.]+){0,2})"
)
_FIRST = ("A", "down")
_LARGEST = 1e300

AdapterConfig: TypeAlias = Mapping[str, Any] | str
"""adapter_config.json as data, empty where there is none, or a sentence on why it cannot be read."""

Place = tuple[str, str]
"""A tensor: the path of its file and its name."""


class _Name(NamedTuple):
    module: str
    key: tuple[str, ...]
    is_first: bool


def place_of(tensor: TensorRef) -> Place:
    """Key of a tensor within a model."""
    return tensor.file.path, tensor.name


def updated_module(name: str) -> str:
    """Module that the factor called `name` is an update of; a name of another kind is its own module."""
    match = _FACTOR.fullmatch(name)
    return match["module"] if match else name


def lora_pairs(tensors: Sequence[TensorRef], config: AdapterConfig) -> dict[Place, LoraPair]:
    """The pairs among `tensors`, under the place of their A factor.

    Names: `X.lora_A[.adapter].weight` with lora_B, `X.lora_embedding_A` with _B (peft), `X.lora_down.weight`
    with lora_up and `X.alpha` (kohya), `X_lora.down.weight`, `X.lora.down.weight` and
    `X.lora_linear_layer.down.weight` with up (diffusers). Both factors must lie in one file, be of decodable
    floats, and share the inner side. Those of a convolution are A (r, in, k...) and B (out, r, 1...): the
    product is out x (in * k). Adapters of expert stacks (peft's target_parameters) hold one product an expert
    and are left as they are. `config` is adapter_config.json; cost O(tensors).
    """
    scalars = {place_of(t): t for t in tensors if prod(t.shape) == 1}
    scaling = _Scaling(config)
    pairs: dict[Place, LoraPair] = {}
    for name, first, second in _couples(tensors):
        if _fit(first, second) and not (scaling.of_experts and "expert" in name.module):
            alpha = scalars.get((first.file.path, f"{name.module}.alpha"))
            pairs[place_of(first)] = _pair(name.module, first, second, alpha, scaling)
    return pairs


class LoraWeights:
    """The product of a LoRA pair, from its stored bytes; `block` forms no more of it than is asked for."""

    def __init__(self, ref: MatrixRef, buffers: Sequence[Buffer]) -> None:
        """Raises NumericsError (lora_scale) for a scale that is stated but means nothing."""
        pair = ref.lora
        assert pair is not None
        if pair.fault:
            raise NumericsError(FailureKind.LORA_SCALE, pair.fault)
        first, second = (
            decode.to_float64(_flat(decode.as_array(buffer, t.dtype, t.shape)), t.dtype)
            for t, buffer in zip((ref.tensor, pair.b), buffers, strict=False)
        )
        self.right: FloatArray = first
        self.left: FloatArray = second
        self.scale: float = pair.gain
        if pair.alpha is not None:
            self.scale *= decode.scalar(buffers[2], pair.alpha.dtype)
        if self.scale < 0:
            raise NumericsError(FailureKind.LORA_SCALE, f"the stored alpha is negative: scale {self.scale:g}")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the product."""
        return self.left.shape[0], self.right.shape[1]

    def block(self, rows: slice, columns: slice) -> FloatArray:
        """C-contiguous float64 [rows, columns] of the product."""
        return np.ascontiguousarray(self.scale * (self.left[rows] @ self.right[:, columns]))


def _flat(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return stored.reshape(stored.shape[0], -1)


def _couples(tensors: Iterable[TensorRef]) -> Iterable[tuple[_Name, TensorRef, TensorRef]]:
    """Factors whose names differ in nothing but the side."""
    waiting: dict[tuple[str, ...], tuple[_Name, TensorRef]] = {}
    for tensor in tensors:
        name = _parsed(tensor)
        if name is None:
            continue
        other = waiting.pop(name.key, None)
        if other is None:
            waiting[name.key] = name, tensor
        elif other[0].is_first != name.is_first:
            first, second = (tensor, other[1]) if name.is_first else (other[1], tensor)
            yield name, first, second


def _parsed(tensor: TensorRef) -> _Name | None:
    match = _FACTOR.fullmatch(tensor.name)
    if match is None:
        return None
    style = "AB" if match["side"] in "AB" else "down"
    key = (tensor.file.path, match["module"], match["kind"], style, match["rest"])
    return _Name(match["module"], key, match["side"] in _FIRST)


def _fit(first: TensorRef, second: TensorRef) -> bool:
    """Whether B A exists and can be decoded."""
    axes = (len(first.shape), len(second.shape))
    if min(axes) < 2 or axes[0] != axes[1] or 0 in (*first.shape, *second.shape):
        return False
    decodable = decode.supported(first.dtype) and decode.supported(second.dtype)
    return decodable and second.shape[1] == first.shape[0] and prod(second.shape[2:]) == 1


class _Scaling:
    """What adapter_config.json says of the scale; a stranger's file, so all is checked."""

    def __init__(self, config: AdapterConfig) -> None:
        self.fault = config if isinstance(config, str) else _fault(config)
        config = {} if isinstance(config, str) else config
        pattern = config.get("alpha_pattern")
        given = pattern.items() if isinstance(pattern, dict) else ()
        self.of_experts = bool(config.get("target_parameters"))
        self.by_root = config.get("use_rslora") is True
        self._common = _alpha("lora_alpha", config.get("lora_alpha"))
        self._own = {_literal(key): _alpha(f"alpha_pattern {shortened(key)}", value) for key, value in given}

    def alpha(self, module: str) -> float | str | None:
        r"""lora_alpha of a module: of the longest end of its name that alpha_pattern has, or of all.

        A number in a name may be `\d+` in the pattern; other regular expressions of a stranger are not run.
        None where nothing is stated, a sentence where what is stated is no alpha.
        """
        words = module.split(".") if self._own else []
        masked = [r"\d+" if word.isdigit() else word for word in words]
        ends = (".".join(some[i:]) for i in range(len(words)) for some in (words, masked))
        return next((own for end in ends if (own := self._own.get(end)) is not None), self._common)


def _pair(
    module: str, first: TensorRef, second: TensorRef, alpha: TensorRef | None, scaling: _Scaling
) -> LoraPair:
    rank = first.shape[0]
    share = 1 / sqrt(rank) if scaling.by_root else 1 / rank
    if scaling.fault is not None:
        return LoraPair(b=second, rank=rank, gain=1.0, fault=scaling.fault)
    if alpha is not None and decode.is_number(alpha.dtype):
        return LoraPair(b=second, rank=rank, gain=share, alpha=alpha)
    stated = scaling.alpha(module)
    if isinstance(stated, str):
        return LoraPair(b=second, rank=rank, gain=1.0, fault=stated)
    return LoraPair(b=second, rank=rank, gain=1.0 if stated is None else stated * share)


def _literal(pattern: str) -> str:
    return pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")


def _fault(config: Mapping[str, Any]) -> str | None:
    """What is stated about the scale of every pair, but is of another type than it must be."""
    for name, kind, wanted in (("use_rslora", bool, "true or false"), ("alpha_pattern", dict, "an object")):
        value = config.get(name)
        if value is not None and not isinstance(value, kind):
            return f"adapter_config.json: {name} is {shortened(value)}, not {wanted}"
    return None


def _alpha(name: str, value: object) -> float | str | None:
    """The number that is stated, None where none is, or a sentence about what is there instead."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return float(value)
    return f"adapter_config.json: {name} is {shortened(value)}, not a number from 0 on"
