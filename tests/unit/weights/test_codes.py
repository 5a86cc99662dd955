"""Codes whose companions a stranger made up: a misfit by name, whatever is in them."""

import json

import numpy as np
import pytest
from laid import laid

from scanner.weights.codes import open_codes
from scanner.weights.matrices import plan_matrices
from schemas.config import MatrixRules
from schemas.errors import NumericsError
from schemas.results import FailureKind, Role, SkipReason

STATE = {"shape": [96, 64], "blocksize": 64}
NF4 = {
    "x.weight": ("U8", 3072, 1),
    "x.weight.absmax": ("F32", 96),
    "x.weight.quant_map": ("F32", 16),
    "x.weight.quant_state.bitsandbytes__nf4": ("U8", 200),
}
GPTQ = {
    "x.qweight": ("I32", 8, 96),
    "x.qzeros": ("I32", 2, 12),
    "x.scales": ("F16", 2, 96),
    "x.g_idx": ("I32", 64),
}
PACKED = {"x.weight_packed": ("I32", 96, 8), "x.weight_scale": ("F32", 96, 1), "x.weight_shape": ("I64", 2)}
FOUR_BITS = {"quantization_config": {"config_groups": {"g": {"weights": {"num_bits": 4}}}}}
NVFP4 = {"x.weight": ("U8", 96, 32), "x.weight_scale": ("F8_E4M3", 96, 4), "x.weight_scale_2": ("F32",)}


def planned(shapes, settings=None, rules=None):
    return plan_matrices(laid(shapes), rules or MatrixRules(), settings=settings or {})


def opened(shapes, settings=None, contents=None):
    """The weights of the first row; what `contents` does not give is zero."""
    row = planned(shapes, settings)[0]
    held = {part: (contents or {}).get(part, bytes(t.nbytes)) for part, t in row.packing.companions}
    return open_codes(row, bytes(row.stop - row.start), held)


def state(**changes):
    return json.dumps(STATE | changes).encode().ljust(200)


HOSTILE = {
    "an offset beyond float64": (
        NF4,
        {},
        {"state": state(nested_offset=10**150).replace(b"0" * 150, b"9" * 150)},
    ),
    "absmax in halves of bytes": (NF4 | {"x.weight.absmax": ("F4", 96)}, {}, {"state": state()}),
    "absmax of complex numbers": (NF4 | {"x.weight.absmax": ("C64", 96)}, {}, {"state": state()}),
    "absmax of bytes that nothing nests": (NF4 | {"x.weight.absmax": ("U8", 96)}, {}, {"state": state()}),
    "an index of floats": (GPTQ | {"x.g_idx": ("F32", 64)}, {}, {}),
    "an index in halves of bytes": (GPTQ | {"x.g_idx": ("F4", 64)}, {}, {}),
    "scales in halves of bytes": (GPTQ | {"x.scales": ("F4", 2, 96)}, {}, {}),
    "scales of truth values": (GPTQ | {"x.scales": ("BOOL", 2, 96)}, {}, {}),
    "a shape of floats": (
        PACKED | {"x.weight_shape": ("F64", 2)},
        FOUR_BITS,
        {"shape": np.array([96, np.inf]).tobytes()},
    ),
    "no groups of scales": (
        PACKED | {"x.weight_scale": ("F32", 96, 0)},
        FOUR_BITS,
        {"shape": np.array([96, 64]).tobytes()},
    ),
    "more groups than columns": (
        PACKED | {"x.weight_scale": ("F32", 96, 100)},
        FOUR_BITS,
        {"shape": np.array([96, 64]).tobytes()},
    ),
    "zero points in bytes": (
        PACKED | {"x.weight_zero_point": ("U8", 12, 3)},
        FOUR_BITS,
        {"shape": np.array([96, 64]).tobytes()},
    ),
    "an empty global scale": (NVFP4 | {"x.weight_scale_2": ("F32", 0)}, {}, {}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_contents_without_meaning_are_a_misfit(case):
    with pytest.raises(NumericsError) as caught:
        opened(*HOSTILE[case])
    assert caught.value.kind is FailureKind.QUANT_LAYOUT_UNKNOWN


@pytest.mark.parametrize(
    ("shapes", "settings", "contents"),
    [
        (NF4, {}, {"state": state()}),
        (GPTQ, {}, {}),
        (PACKED, FOUR_BITS, {"shape": np.array([96, 64]).tobytes()}),
    ],
)
def test_the_same_with_sound_companions_opens(shapes, settings, contents):
    assert opened(shapes, settings, contents).shape == (96, 64)


@pytest.mark.parametrize(("side", "skip"), [(4, SkipReason.TOO_SMALL), (40000, None)])
def test_a_guessed_shape_rules_out_the_small_and_not_the_large(side, skip):
    count = side * side // 2
    row = planned(NF4 | {"x.weight": ("U8", count, 1), "x.weight.absmax": ("F32", -(-side * side // 64))})[0]
    assert row.skip is skip


def test_experts_of_codes_are_no_convolutions():
    rows = planned({"x.experts.weight": ("F8_E4M3", 3, 96, 64), "x.experts.weight_scale": ("F32", 3)})
    assert [(row.role, row.expert_id) for row in rows if not row.skip] == [(Role.OTHER, e) for e in range(3)]
