"""Which tensors are pairs, under the names of each library, and their scale."""

import numpy as np
import pytest
from laid import FILE, laid

from scanner.weights.lora import LoraWeights, lora_pairs, place_of
from scanner.weights.matrices import plan_matrices
from schemas.config import MatrixRules
from schemas.refs import FileRef, TensorRef
from schemas.results import Role, SkipReason


def tensors(shapes, dtype="F32", file=FILE):
    return laid({name: (dtype, *shape) for name, shape in shapes.items()}, file)


def gains(shapes, config=None):
    return {name: pair.gain for (_, name), pair in lora_pairs(tensors(shapes), config or {}).items()}


def planned(shapes, adapter=None, **rules):
    return plan_matrices(tensors(shapes), MatrixRules(**rules), adapter=adapter or {})


PEFT = "base_model.model.model.layers.3.self_attn.q_proj"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{PEFT}.lora_A.weight", f"{PEFT}.lora_B.weight"),
        (f"{PEFT}.lora_A.default.weight", f"{PEFT}.lora_B.default.weight"),
        ("base_model.model.embed_tokens.lora_embedding_A", "base_model.model.embed_tokens.lora_embedding_B"),
        ("embed_tokens.lora_embedding_A.default", "embed_tokens.lora_embedding_B.default"),
        (
            "lora_unet_down_blocks_0_attn1_to_q.lora_down.weight",
            "lora_unet_down_blocks_0_attn1_to_q.lora_up.weight",
        ),
        (
            "unet.down.0.attn1.processor.to_q_lora.down.weight",
            "unet.down.0.attn1.processor.to_q_lora.up.weight",
        ),
        ("unet.attn1.to_q.lora.down.weight", "unet.attn1.to_q.lora.up.weight"),
        (
            "text_encoder.q_proj.lora_linear_layer.down.weight",
            "text_encoder.q_proj.lora_linear_layer.up.weight",
        ),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_names_of_a_pair(first, second, order):
    shapes = dict([(first, (8, 64)), (second, (96, 8))][::order])
    rows = {row.tensor.name: row for row in planned(shapes)}
    row = rows[first]
    assert (row.role, row.shape, row.skip, row.lora.rank, row.lora.b.name) == (
        Role.LORA,
        (96, 64),
        None,
        8,
        second,
    )
    assert (rows[second].role, rows[second].skip, rows[second].nbytes) == (Role.LORA, SkipReason.LORA_PAIR, 0)
    assert row.spans == ((row.start, row.stop), (rows[second].start, rows[second].stop))
    assert row.nbytes == 4 * 8 * (64 + 96)


def test_pairs_of_several_adapters_and_modules_do_not_mix():
    names = [f"{module}.lora_{side}.{adapter}.weight" for module in "xy" for adapter in "ab" for side in "AB"]
    shapes = {name: (8, 64) if ".lora_A." in name else (96, 8) for name in names}
    pairs = lora_pairs(tensors(shapes), {})
    assert {name: pair.b.name for (_, name), pair in pairs.items()} == {
        name: name.replace("lora_A", "lora_B") for name in names if "lora_A" in name
    }


@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [
        ({"x.lora_A.weight": (8, 64)}, "F32"),
        ({"x.lora_A.weight": (8, 64), "x.lora_B.weight": (96, 9)}, "F32"),
        ({"x.lora_A.weight": (8, 64), "x.lora_B.weight": (96, 8)}, "F4"),
        ({"x.lora_A.weight": (8, 0), "x.lora_B.weight": (96, 8)}, "F32"),
        ({"x.lora_A.weight": (8, 64), "y.lora_B.weight": (96, 8)}, "F32"),
        ({"x.lora_A.weight": (8, 64), "x.lora_up.weight": (96, 8)}, "F32"),
        ({"x.lora_A.one.weight": (8, 64), "x.lora_B.two.weight": (96, 8)}, "F32"),
        ({"x.lora_A.weight": (8, 64, 3, 3), "x.lora_B.weight": (96, 8, 3, 3)}, "F32"),
        ({"x.lora_A.weight": (8,), "x.lora_B.weight": (96, 8)}, "F32"),
    ],
)
def test_what_is_no_pair_keeps_its_own_rows(shapes, dtype):
    assert lora_pairs(tensors(shapes, dtype), {}) == {}
    rows = plan_matrices(tensors(shapes, dtype), MatrixRules())
    assert {row.lora for row in rows} == {None}
    assert SkipReason.LORA_PAIR not in {row.skip for row in rows}


def test_factors_in_two_files_are_two_rows():
    other = FileRef(FILE.repo, "other.safetensors", 1 << 20, "content")
    apart = tensors({"x.lora_A.weight": (8, 64)}) + tensors({"x.lora_B.weight": (96, 8)}, file=other)
    assert lora_pairs(apart, {}) == {}


def test_a_convolution_s_pair_is_a_flattened_product():
    rows = planned({"c.lora_A.weight": (8, 16, 3, 3), "c.lora_B.weight": (32, 8, 1, 1)})
    assert [(row.shape, row.skip) for row in rows] == [
        ((32, 144), None),
        ((32, 8, 1, 1), SkipReason.LORA_PAIR),
    ]


def test_adapters_of_expert_stacks_are_left_as_they_are():
    shapes = {"mlp.experts.lora_A.weight": (8, 64), "mlp.experts.lora_B.weight": (96, 8)}
    assert lora_pairs(tensors(shapes), {"target_parameters": ["mlp.experts.gate_up_proj"]}) == {}
    assert len(lora_pairs(tensors(shapes), {})) == 1


PAIR = {f"{PEFT}.lora_A.weight": (8, 64), f"{PEFT}.lora_B.weight": (96, 8)}


@pytest.mark.parametrize(
    ("config", "gain"),
    [
        ({}, 1.0),
        ({"lora_alpha": 16, "r": 8}, 2.0),
        ({"lora_alpha": 16, "r": 8, "use_rslora": True}, 16 / np.sqrt(8)),
        ({"lora_alpha": 16, "r": 64, "rank_pattern": {"q_proj": 8}}, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"q_proj": 4}}, 0.5),
        ({"lora_alpha": 16, "alpha_pattern": {"model.layers.3.self_attn.q_proj": 4}}, 0.5),
        ({"lora_alpha": 16, "alpha_pattern": {"^model.layers.3.self_attn.q_proj$": 4}}, 0.5),
        ({"lora_alpha": 16, "alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 4}}, 0.5),
        ({"lora_alpha": 16, "alpha_pattern": {"layers.4.self_attn.q_proj": 4, "k_proj": 2, "proj": 1}}, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"q_proj": 4, "self_attn.q_proj": 24}}, 3.0),
        ({"lora_alpha": 16, "alpha_pattern": {"(a+)+$": 4}}, 2.0),
        ({"lora_alpha": 0}, 0.0),
        ({"lora_alpha": None, "alpha_pattern": None}, 1.0),
        ({"lora_alpha": 16, "alpha_pattern": {"q_proj": None}}, 2.0),
        ({"lora_alpha": 16, "alpha_pattern": {"k_proj": "x"}}, 2.0),
        ({"lora_alpha": "x", "alpha_pattern": {"q_proj": 4}}, 0.5),
    ],
)
def test_the_scale_of_a_peft_pair(config, gain):
    assert gains(PAIR, config) == {f"{PEFT}.lora_A.weight": pytest.approx(gain)}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_alpha": [16]}, "lora_alpha is [16]"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": 16, "alpha_pattern": "x"}, "alpha_pattern is 'x', not an object"),
        ({"lora_alpha": 16, "use_rslora": 1}, "use_rslora is 1, not true or false"),
        ("adapter_config.json is not JSON", "adapter_config.json is not JSON"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"lora_alpha": -16}, "lora_alpha is -16"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": 16, "alpha_pattern": {"q_proj": "4"}}, "alpha_pattern 'q_proj' is '4'"),
    ],
)
def test_a_stated_scale_that_is_none_is_a_fault_that_says_so(config, said):
    (pair,) = lora_pairs(tensors(PAIR), config).values()
    assert said in pair.fault
    assert len(pair.fault) < 120


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("F32", np.float32(4).tobytes()), ("F16", np.float16(4).tobytes()), ("I64", np.int64(4).tobytes())],
)
def test_a_stored_alpha_comes_before_the_config(dtype, stored):
    """kohya's `X.alpha`, a scalar of any number type."""
    values = {"x.lora_down.weight": np.ones((2, 9), "f4"), "x.lora_up.weight": np.ones((12, 2), "f4")}
    known = tensors({name: array.shape for name, array in values.items()})
    alpha = TensorRef(FILE, "x.alpha", dtype, (), known[-1].stop, known[-1].stop + len(stored))
    rows = {
        row.tensor.name: row
        for row in plan_matrices([*known, alpha], MatrixRules(), adapter={"lora_alpha": 99})
    }
    assert rows["x.alpha"].skip is SkipReason.NOT_A_MATRIX
    row = rows["x.lora_down.weight"]
    assert row.spans[2] == (alpha.start, alpha.stop)
    weights = LoraWeights(row, [*(array.tobytes() for array in values.values()), stored])
    assert weights.scale == 2.0
    np.testing.assert_array_equal(weights.block(slice(3, 5), slice(0, 9)), np.full((2, 9), 4.0))


def test_an_alpha_of_another_kind_is_no_alpha():
    shapes = {"x.lora_down.weight": (2, 9), "x.lora_up.weight": (12, 2), "x.alpha": (2,)}
    assert lora_pairs(tensors(shapes), {"lora_alpha": 4})[place_of(tensors(shapes)[0])].alpha is None


def test_the_product_is_that_of_the_stored_factors():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((8, 16, 3, 3)).astype("f2"), rng.standard_normal((32, 8, 1, 1)).astype("f2")
    known = tensors({"c.lora_A.weight": a.shape, "c.lora_B.weight": b.shape}, "F16")
    (row, _) = plan_matrices(known, MatrixRules(), adapter={"lora_alpha": 4, "r": 8})
    weights = LoraWeights(row, [a.tobytes(), b.tobytes()])
    dense = 0.5 * b.reshape(32, 8).astype("f8") @ a.reshape(8, -1).astype("f8")
    assert weights.shape == row.shape == dense.shape
    np.testing.assert_allclose(weights.block(slice(None), slice(None)), dense)


def test_small_sides_are_skipped_small_ranks_are_not():
    rows = planned({"x.lora_A.weight": (1, 64), "x.lora_B.weight": (96, 1)})
    assert [row.skip for row in rows] == [None, SkipReason.LORA_PAIR]
    rows = planned({"x.lora_A.weight": (4, 64), "x.lora_B.weight": (7, 4)})
    assert [row.skip for row in rows] == [SkipReason.TOO_SMALL, SkipReason.LORA_PAIR]


def test_as_stored_every_factor_is_a_row():
    rows = planned(PAIR, {"lora_alpha": 16}, as_stored=True)
    assert [(row.shape, row.lora, row.skip) for row in rows] == [((8, 64), None, None), ((96, 8), None, None)]


def test_a_quantised_factor_has_no_partner():
    codes = tensors({"x.lora_A.weight": (8, 64)}, "U8")
    plain = tensors({"x.lora_A.weight_scale": (8, 1), "x.lora_B.weight": (96, 8)})
    rows = {row.tensor.name: row for row in plan_matrices([*codes, *plain], MatrixRules())}
    assert rows["x.lora_A.weight"].skip is SkipReason.QUANT_LAYOUT_UNKNOWN
    assert (rows["x.lora_B.weight"].skip, rows["x.lora_B.weight"].shape) == (None, (96, 8))


def test_a_magnitude_vector_is_a_skipped_row():
    rows = planned(PAIR | {f"{PEFT}.lora_magnitude_vector": (96,)})
    assert [row.skip for row in rows] == [None, SkipReason.LORA_PAIR, SkipReason.NOT_A_MATRIX]
