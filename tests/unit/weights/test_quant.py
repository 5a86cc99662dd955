"""Packed codes are recognised by the tensors beside them."""

import pytest

from scanner.weights.quant import quant_method

LAYOUTS = {
    "gptq": ["x.qweight:I32", "x.qzeros:I32", "x.scales:F16", "x.g_idx:I32"],
    "awq": ["x.qweight:I32", "x.qzeros:I32", "x.scales:F16"],
    "compressed-tensors": ["x.weight_packed:I32", "x.weight_scale:BF16", "x.weight_shape:I64"],
    "mxfp4": ["e.down_proj_blocks:U8", "e.down_proj_scales:U8"],
    "fp8": ["x.weight:F8_E4M3", "x.weight_scale_inv:F32"],
    "fp8 per tensor": ["x.weight:F8_E4M3", "x.weight_scale:F32", "x.weight_zero_point:I8"],
    "bitsandbytes": ["x.weight:U8", "x.weight.absmax:F32", "x.weight.quant_map:F32"],
    "bitsandbytes nested": [
        "x.weight:U8",
        "x.weight.absmax:U8",
        "x.weight.nested_absmax:F32",
        "x.weight.nested_quant_map:F32",
        "x.weight.quant_state.bitsandbytes__nf4:U8",
    ],
    "bitsandbytes int8": ["x.weight:I8", "x.SCB:F32", "x.weight_format:U8"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_name_their_method_and_no_companion_is_plain(layout):
    found = dict(entry.split(":") for entry in LAYOUTS[layout])
    methods = {name: quant_method(name, dtype, found) for name, dtype in found.items()}
    assert next(iter(methods.values())) == layout.split(" ")[0]
    assert None not in methods.values()


PLAIN = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "logit_scale",
    "layer_scale.lambda1",
    "vision.gamma_scale",
    "backbone.absmax_pool.weight",
    "head.weight_packed",
    "x.qweight",
    "residual_blocks",
]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_tensors_have_no_method(name):
    assert quant_method(name, "F32", PLAIN) is None


def test_int8_without_scales_is_no_known_layout():
    assert quant_method("x.weight", "I8", ["x.weight"]) is None
