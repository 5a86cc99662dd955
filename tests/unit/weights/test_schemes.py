"""Packed codes are told by the tensors beside them, and refused when a shape does not fit."""

import pytest
from laid import FILE, laid

from scanner.weights.matrices import plan_matrices
from scanner.weights.quant import name_of_weights
from scanner.weights.schemes import Quantised, quantised
from schemas.config import MatrixRules
from schemas.refs import TensorRef
from schemas.results import Role, Scheme, SkipReason

QUANTISED = "quantization_config"


def tensors(shapes):
    return {tensor.name: tensor for tensor in laid(shapes)}


GPTQ = {"x.qweight": ("I32", 16, 64), "x.qzeros": ("I32", 4, 8), "x.scales": ("F16", 4, 64)}
INDEX = {"x.g_idx": ("I32", 128)}
LAYOUTS = {
    "gptq": (GPTQ | INDEX, {}, Scheme.GPTQ, (64, 128)),
    "gptq without index": (GPTQ, {"bits": 4}, Scheme.GPTQ, (64, 128)),
    "awq": (
        {"x.qweight": ("I32", 128, 8), "x.qzeros": ("I32", 4, 8), "x.scales": ("F16", 4, 64)},
        {},
        Scheme.AWQ,
        (64, 128),
    ),
    "compressed-tensors packed": (
        {
            "x.weight_packed": ("I32", 64, 16),
            "x.weight_scale": ("BF16", 64, 4),
            "x.weight_shape": ("I64", 2),
        },
        {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
        Scheme.PACKED,
        (64, 128),
    ),
    "compressed-tensors int8": (
        {
            "x.weight": ("I8", 64, 128),
            "x.weight_scale": ("BF16", 64, 1),
            "x.weight_zero_point": ("I8", 64, 1),
        },
        {},
        Scheme.SCALED,
        (64, 128),
    ),
    "fp8 blocks": (
        {"x.weight": ("F8_E4M3", 64, 100), "x.weight_scale_inv": ("F32", 2, 4)},
        {"weight_block_size": [32, 32]},
        Scheme.BLOCKS,
        (64, 100),
    ),
    "fp8 tensor": (
        {"x.weight": ("F8_E4M3", 64, 100), "x.weight_scale": ("F32",), "x.input_scale": ("F32",)},
        {},
        Scheme.SCALED,
        (64, 100),
    ),
    "mxfp4": (
        {
            "mlp.experts.down_proj_blocks": ("U8", 3, 64, 4, 16),
            "mlp.experts.down_proj_scales": ("U8", 3, 64, 4),
        },
        {},
        Scheme.FLOAT4,
        (3, 64, 128),
    ),
    "nvfp4 of ModelOpt": (
        {
            "x.weight": ("U8", 64, 64),
            "x.weight_scale": ("F8_E4M3", 64, 8),
            "x.weight_scale_2": ("F32",),
            "x.input_scale": ("F32",),
        },
        {},
        Scheme.FLOAT4,
        (64, 128),
    ),
    "int4_awq": (
        {"x.weight": ("U8", 32, 128), "x.weight_scale": ("F32", 64, 1)},
        {},
        Scheme.INT4_ROWS,
        (64, 128),
    ),
    "mxfp4 in pairs": (
        {"x.weight": ("I8", 64, 64), "x.scale": ("F8_E8M0", 64, 4)},
        {},
        Scheme.FLOAT4,
        (64, 128),
    ),
    "bitsandbytes nf4": (
        {
            "x.weight": ("U8", 4096, 1),
            "x.weight.absmax": ("U8", 128),
            "x.weight.quant_map": ("F32", 16),
            "x.weight.nested_absmax": ("F32", 1),
            "x.weight.nested_quant_map": ("F32", 256),
            "x.weight.quant_state.bitsandbytes__nf4": ("U8", 100),
        },
        {},
        Scheme.FLAT4,
        (90, 90),
    ),
    "bitsandbytes int8": (
        {"x.weight": ("I8", 64, 128), "x.SCB": ("F32", 64), "x.weight_format": ("U8",)},
        {},
        Scheme.ROW8,
        (64, 128),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_are_told_and_no_companion_is_plain(layout):
    shapes, config, scheme, shape = LAYOUTS[layout]
    named = tensors(shapes)
    codes, *rest = named.values()
    found = quantised(codes, named, {QUANTISED: config})
    assert isinstance(found, Quantised)
    assert (found.packing.scheme, found.shape) == (scheme, shape)
    assert {quantised(t, named, {QUANTISED: config}) for t in rest} <= {SkipReason.QUANT_COMPANION}


WRONG = {
    "zeros of another width": (GPTQ | INDEX | {"x.qzeros": ("I32", 4, 9)}, {}),
    "an index that no width fits": (GPTQ | {"x.g_idx": ("I32", 100)}, {}),
    "unknown bits": (GPTQ, {}),
    "scales of other columns": (GPTQ | INDEX | {"x.scales": ("F16", 4, 60)}, {}),
    "awq groups that do not divide": (
        {"x.qweight": ("I32", 128, 8), "x.qzeros": ("I32", 3, 8), "x.scales": ("F16", 3, 64)},
        {},
    ),
    "a grid that does not divide": (
        {"x.weight": ("F8_E4M3", 64, 100), "x.weight_scale_inv": ("F32", 2, 3)},
        {},
    ),
    "scales in integers": ({"x.weight": ("F8_E4M3", 64, 100), "x.weight_scale": ("I32", 64)}, {}),
    "blocks of another width": (
        {"e.w_blocks": ("U8", 3, 64, 4, 8), "e.w_scales": ("U8", 3, 64, 4)},
        {},
    ),
    "no shape beside packed words": (
        {"x.weight_packed": ("I32", 64, 16), "x.weight_scale": ("BF16", 64, 4)},
        {"config_groups": {"g": {"weights": {"num_bits": 4}}}},
    ),
    "two widths at once": (
        {
            "x.weight_packed": ("I32", 64, 16),
            "x.weight_scale": ("BF16", 64, 4),
            "x.weight_shape": ("I64", 2),
        },
        {"config_groups": {"g": {"weights": {"num_bits": 4}}, "h": {"weights": {"num_bits": 8}}}},
    ),
    "int8 rows that are not all scaled": ({"x.weight": ("I8", 64, 128), "x.SCB": ("F32", 60)}, {}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_shape_that_does_not_fit_is_named(case):
    shapes, config = WRONG[case]
    named = tensors(shapes)
    found = quantised(next(iter(named.values())), named, {QUANTISED: config})
    assert found is SkipReason.QUANT_LAYOUT_UNKNOWN


@pytest.mark.parametrize(
    ("shapes", "config"),
    [
        ({"x.qweight": ("I32", 16, 64)}, {}),
        (GPTQ | INDEX, {"checkpoint_format": "marlin"}),
        (
            {"x.qweight": ("I32", 128, 8), "x.qzeros": ("I32", 4, 8), "x.scales": ("F16", 4, 64)},
            {"version": "gemv"},
        ),
        ({"x.weight": ("U8", 4096, 1), "x.weight.absmax": ("U8", 128)}, {}),
        (
            {
                "x.weight": ("U8", 32, 128),
                "x.weight_scale": ("F32", 64, 1),
                "x.pre_quant_scale": ("F32", 128),
            },
            {},
        ),
    ],
)
def test_what_is_not_read_says_so(shapes, config):
    named = tensors(shapes)
    found = quantised(next(iter(named.values())), named, {QUANTISED: config})
    assert found is SkipReason.UNSUPPORTED_QUANT


PLAIN = [
    "model.layers.0.self_attn.q_proj.weight",
    "logit_scale",
    "layer_scale.lambda1",
    "vision.gamma_scale",
    "backbone.absmax_pool.weight",
    "head.weight_packed",
    "residual_blocks",
    "k_scale",
]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_tensors_have_nothing_to_do_with_it(name):
    named = {other: TensorRef(FILE, other, "F32", (8, 8), 0, 256) for other in PLAIN}
    assert quantised(named[name], named, {}) is None


ODD_BITS = {"config_groups": {"a": {"weights": {"num_bits": [4]}}, "b": {"weights": {"num_bits": {}}}}}


@pytest.mark.parametrize(
    "config", [None, 7, "gptq", [], {"bits": "4"}, {"weight_block_size": [0, -1]}, ODD_BITS]
)
def test_a_hostile_config_is_no_config(config):
    for shapes, _, _, _ in LAYOUTS.values():
        named = tensors(shapes)
        with_it, without = (
            [quantised(tensor, named, settings) for tensor in named.values()]
            for settings in ({QUANTISED: config}, {})
        )
        assert with_it == without


def test_experts_take_their_own_codes_and_scales():
    shapes, config, _, _ = LAYOUTS["mxfp4"]
    named = tensors(shapes)
    rows = plan_matrices(list(named.values()), MatrixRules(), settings={QUANTISED: config})
    experts = [row for row in rows if row.packing]
    codes, scales = named.values()
    assert [row.expert_id for row in experts] == [0, 1, 2]
    assert {row.role for row in experts} == {Role.DOWN}
    assert [(row.start, row.stop) for row in experts] == cells(codes)
    held = [row.packing.companions[0][1] for row in experts]
    assert [(scale.start, scale.stop) for scale in held] == cells(scales)
    assert {scale.shape for scale in held} == {(64, 4)}
    assert {row.shape for row in experts} == {(64, 128)}


def cells(tensor):
    each = tensor.nbytes // 3
    return [(tensor.start + e * each, tensor.start + (e + 1) * each) for e in range(3)]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", "model.layers.0.self_attn.q_proj.weight"),
        ("a.weight_packed", "a.weight"),
        ("mlp.experts.gate_up_proj_blocks", "mlp.experts.gate_up_proj"),
        ("a.weight", "a.weight"),
    ],
)
def test_the_name_before_it_was_quantised(name, weights):
    assert name_of_weights(name) == weights
