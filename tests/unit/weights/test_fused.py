"""Parts of fused tensors, against what PyTorch's modules and the libraries' own views do with them."""

import numpy as np
import pytest
import torch
from laid import laid

from scanner.weights.matrices import StoredWeights, plan_matrices
from schemas.config import MatrixRules
from schemas.results import Role

WHOLE = slice(None)


def planned(values, settings=None, **rules):
    """Rows of a dict of float32 arrays, as if saved end to end."""
    tensors = laid({name: ("F32", *array.shape) for name, array in values.items()})
    return plan_matrices(
        tensors, MatrixRules(**{"min_side": 1, "min_evals": 1} | rules), settings=settings or {}
    )


def parts(values, settings=None):
    """{(tensor, expert, part): values}, read through the bytes each row names."""
    body = b"".join(array.tobytes() for array in values.values())
    return {
        (row.tensor.name, row.expert_id, row.part): StoredWeights(row, body[row.start : row.stop]).block(
            WHOLE, WHOLE
        )
        for row in planned(values, settings)
        if row.skip is None
    }


def of_one(name, array, settings=None):
    return {part: found for (_, _, part), found in parts({name: array}, settings).items()}


def noise(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def projected(part, x):
    return x @ part.T


HIDDEN, HEADS, SIZE = 48, 6, 8
X = np.random.default_rng(1).standard_normal((5, HIDDEN))
BASE = {"hidden_size": HIDDEN, "num_attention_heads": HEADS}


def by_head(fused):
    """GPT-NeoX: view(tokens, heads, 3 * size).chunk(3, dim=-1); Bloom: view(tokens, heads, 3, size)."""
    q, k, v = np.split(fused.reshape(5, HEADS, 3 * SIZE), 3, axis=-1)
    return q.reshape(5, -1), k.reshape(5, -1), v.reshape(5, -1)


def grouped(kv):
    """Falcon: view(tokens, kv heads, heads / kv + 2, size), the last two being k and v."""

    def split(fused):
        view = fused.reshape(5, kv, HEADS // kv + 2, SIZE)
        return view[:, :, :-2].reshape(5, -1), view[:, :, -2].reshape(5, -1), view[:, :, -1].reshape(5, -1)

    return split


def blocks(kv):
    """Phi-3: slices of heads * size, kv * size, kv * size."""

    def split(fused):
        return np.split(fused, [HEADS * SIZE, (HEADS + kv) * SIZE], axis=-1)

    return split


def codegen(fused):
    """reshape(tokens, 4, -1), each split into q, v, k."""
    q, v, k = np.split(fused.reshape(5, 4, -1), 3, axis=-1)
    return q.reshape(5, -1), k.reshape(5, -1), v.reshape(5, -1)


@pytest.mark.parametrize(
    ("name", "settings", "kv", "split"),
    [
        ("gpt_neox.layers.0.attention.query_key_value.weight", {"model_type": "gpt_neox"}, HEADS, by_head),
        ("h.0.self_attention.query_key_value.weight", {"model_type": "bloom"}, HEADS, by_head),
        (
            "h.0.self_attention.query_key_value.weight",
            {"model_type": "falcon", "multi_query": False},
            HEADS,
            by_head,
        ),
        (
            "h.0.self_attention.query_key_value.weight",
            {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
            2,
            grouped(2),
        ),
        (
            "h.0.self_attention.query_key_value.weight",
            {"model_type": "falcon", "multi_query": True, "num_kv_heads": HEADS},
            1,
            blocks(1),
        ),
        (
            "layers.0.attention.wqkv.weight",
            {"model_type": "internlm2", "num_key_value_heads": 3},
            3,
            grouped(3),
        ),
        (
            "layers.0.self_attn.qkv_proj.weight",
            {"model_type": "phi3", "num_key_value_heads": 2},
            2,
            blocks(2),
        ),
        ("blocks.0.attn.Wqkv.weight", {"model_type": "dbrx", "attn_config": {"kv_n_heads": 3}}, 3, blocks(3)),
        ("layers.0.self_attn.W_pack.weight", {"model_type": "baichuan"}, HEADS, blocks(HEADS)),
        ("h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode", "multi_query": True}, 1, blocks(1)),
        ("h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode", "multi_query": False}, HEADS, by_head),
        (
            "encoder.layers.0.self_attention.query_key_value.weight",
            {
                "model_type": "chatglm",
                "multi_query_attention": True,
                "multi_query_group_num": 2,
                "kv_channels": SIZE,
            },
            2,
            blocks(2),
        ),
        ("h.0.attn.qkv_proj.weight", {"model_type": "codegen"}, HEADS, codegen),
        ("visual.blocks.0.attn.qkv.weight", {"model_type": "qwen2_vl"}, HEADS, blocks(HEADS)),
        ("blocks.0.attn.qkv.weight", {"architecture": "vit_small_patch16_224"}, HEADS, blocks(HEADS)),
    ],
)
def test_attention_is_split_as_its_library_splits_it(name, settings, kv, split):
    fused = noise((HEADS + 2 * kv) * SIZE, HIDDEN)
    found = of_one(name, fused, BASE | settings)
    assert list(found) == (["q", "v", "k"] if settings.get("model_type") == "codegen" else ["q", "k", "v"])
    for part, expected in zip("qkv", split(X @ fused.T), strict=True):
        np.testing.assert_allclose(projected(found[part], X), expected, rtol=1e-10, atol=1e-12)


def test_a_conv1d_is_split_by_columns():
    fused = noise(HIDDEN, 3 * HIDDEN)
    found = of_one("h.0.attn.c_attn.weight", fused, {"model_type": "gpt2", "n_embd": HIDDEN, "n_head": HEADS})
    for part, expected in zip("qkv", np.split(X @ fused, 3, axis=-1), strict=True):
        np.testing.assert_allclose(X @ found[part], expected)


def test_torch_attention_needs_no_config():
    module = torch.nn.MultiheadAttention(HIDDEN, HEADS, bias=False, batch_first=True)
    found = of_one("layers.0.self_attn.in_proj_weight", module.in_proj_weight.detach().numpy())
    x = torch.randn(1, 5, HIDDEN)
    heads = [
        (x @ torch.from_numpy(found[part].T).float()).view(1, 5, HEADS, SIZE).transpose(1, 2)
        for part in "qkv"
    ]
    mixed = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(1, 5, HIDDEN)
    torch.testing.assert_close(mixed @ module.out_proj.weight.T, module(x, x, x)[0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("suffix", ["", "_l0"])
def test_gates_of_an_lstm(suffix):
    cell = torch.nn.LSTMCell(12, 10, bias=False)
    weights = {f"rnn.{k}{suffix}": v.detach().numpy() for k, v in cell.named_parameters()}
    found = {(name[4:13], part): w for (name, _, part), w in parts(weights).items()}
    x, h, c = (np.random.default_rng(i).standard_normal((1, n)) for i, n in enumerate((12, 10, 10)))
    gate = {g: x @ found["weight_ih", g].T + h @ found["weight_hh", g].T for g in "ifgo"}
    new = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
    expected = cell(*(torch.tensor(x).float(),), (torch.tensor(h).float(), torch.tensor(c).float()))
    np.testing.assert_allclose(new, expected[1].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(sigmoid(gate["o"]) * np.tanh(new), expected[0].detach().numpy(), atol=1e-5)


def test_gates_of_a_gru():
    cell = torch.nn.GRUCell(12, 10, bias=False)
    weights = {f"gru.{k}_l0_reverse": v.detach().numpy() for k, v in cell.named_parameters()}
    found = {(name[4:13], part): w for (name, _, part), w in parts(weights).items()}
    x, h = (np.random.default_rng(i).standard_normal((1, n)) for i, n in enumerate((12, 10)))
    from_x, from_h = ({g: v @ found[w, g].T for g in "rzn"} for w, v in (("weight_ih", x), ("weight_hh", h)))
    z = sigmoid(from_x["z"] + from_h["z"])
    new = np.tanh(from_x["n"] + sigmoid(from_x["r"] + from_h["r"]) * from_h["n"])
    expected = cell(torch.tensor(x).float(), torch.tensor(h).float()).detach().numpy()
    np.testing.assert_allclose((1 - z) * new + z * h, expected, atol=1e-5)


def shapes_of(module):
    return {f"rnn.{k}": v.detach().numpy() for k, v in module.named_parameters() if "bias" not in k}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (torch.nn.RNN(12, 10), {"weight_ih_l0": [None], "weight_hh_l0": [None]}),
        (
            torch.nn.LSTM(12, 20, proj_size=9),
            {"weight_ih_l0": list("ifgo"), "weight_hh_l0": list("ifgo"), "weight_hr_l0": [None]},
        ),
        (torch.nn.GRU(40, 10), {"weight_ih_l0": list("rzn"), "weight_hh_l0": list("rzn")}),
    ],
)
def test_which_recurrent_tensors_are_split(module, expected):
    rows = planned(shapes_of(module))
    found = {}
    for row in rows:
        found.setdefault(row.tensor.name[4:], []).append(row.part)
    assert found == expected
    assert {row.role for row in rows} == {Role.RECURRENT}


@pytest.mark.parametrize(
    ("kind", "shape", "halves"),
    [
        ("llama4_text", (2, HIDDEN, 64), lambda w: (w[:, :32], w[:, 32:])),
        ("qwen3_moe", (2, 64, HIDDEN), lambda w: (w[:32], w[32:])),
        ("gpt_oss", (2, HIDDEN, 64), lambda w: (w[:, 0::2], w[:, 1::2])),
    ],
)
def test_gate_and_up_of_stacked_experts(kind, shape, halves):
    stack = noise(*shape)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    found = parts({name: stack}, {"model_type": kind, "hidden_size": HIDDEN})
    assert len(found) == 4
    for expert in range(2):
        for part, expected in zip(("gate", "up"), halves(stack[expert]), strict=True):
            np.testing.assert_array_equal(found[name, expert, part], expected)


def test_gate_and_up_of_a_linear_layer():
    rows = planned({"layers.0.mlp.gate_up_proj.weight": noise(64, HIDDEN)}, BASE | {"model_type": "phi3"})
    each = 32 * HIDDEN * 4
    assert [(r.part, r.role, r.shape, r.start, r.stop, r.cut) for r in rows] == [
        ("gate", Role.GATE, (32, HIDDEN), 0, each, None),
        ("up", Role.UP, (32, HIDDEN), each, 2 * each, None),
    ]


def test_a_square_expert_says_that_its_halves_are_not_known():
    stack = {"model.layers.0.mlp.experts.gate_up_proj": noise(2, HIDDEN, HIDDEN)}
    rows = planned(stack, {"model_type": "llama4_text", "hidden_size": HIDDEN})
    assert [(row.part, row.role, row.note, row.skip) for row in rows] == [
        (None, Role.GATE_UP, "ambiguous_orientation", None)
    ] * 2


def test_experts_stacked_along_the_rows():
    settings = {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 3}}
    stack = noise(30, 12)
    found = parts({"blocks.0.ffn.experts.mlp.w1": stack}, settings)
    for expert in range(3):
        np.testing.assert_array_equal(
            found["blocks.0.ffn.experts.mlp.w1", expert, None], stack[10 * expert : 10 * expert + 10]
        )


QKV = "layers.0.self_attn.qkv_proj.weight"


@pytest.mark.parametrize(
    ("name", "shape", "settings", "role"),
    [
        (QKV, (144, 48), {}, Role.QKV),
        (QKV, (144, 48), {"model_type": "unheard_of"} | BASE, Role.QKV),
        (QKV, (150, 48), {"model_type": "phi3"} | BASE, Role.QKV),
        (QKV, (144, 48), {"model_type": "phi3", "hidden_size": 48}, Role.QKV),
        (QKV, (144, 48), {"model_type": ["phi3"], "hidden_size": "48", "num_attention_heads": 0}, Role.QKV),
        (QKV, (144, 48), {"model_type": "phi3", "num_attention_heads": True, "hidden_size": 48}, Role.QKV),
        (QKV, (144, 48), {"model_type": "phi3", "num_key_value_heads": 5} | BASE, Role.QKV),
        ("h.0.crossattention.c_attn.weight", (48, 96), {"model_type": "gpt2"} | BASE, Role.QKV),
        ("blocks.0.attn.qkv.weight", (144, 48), {"architecture": "maxvit_tiny_tf_224"}, Role.QKV),
        ("layers.0.mlp.gate_up_proj.weight", (64, 48), {}, Role.GATE_UP),
        ("layers.0.mlp.gate_up_proj.weight", (64, 48), {"model_type": "unheard_of"} | BASE, Role.GATE_UP),
        ("layers.0.mlp.gate_up_proj.weight", (48, 48), {"model_type": "phi3"} | BASE, Role.GATE_UP),
        ("layers.0.mlp.gate_up_proj.weight", (63, 48), {"model_type": "phi3"} | BASE, Role.GATE_UP),
        ("rnn.weight_ih_l0", (40, 12), {}, Role.RECURRENT),
        ("mixer.in_proj.weight", (144, 48), {"model_type": "mamba"}, Role.OTHER),
        ("self_attn.in_proj_weight", (100, 48), {}, Role.QKV),
    ],
)
def test_what_is_not_certain_is_one_row(name, shape, settings, role):
    (row,) = planned({name: noise(*shape)}, settings)
    assert (row.part, row.role, row.shape, row.skip) == (None, role, shape, None)


def test_the_text_config_of_a_composite_model_counts():
    settings = {"model_type": "some_vlm", "text_config": BASE | {"model_type": "phi3"}, "vision_config": {}}
    rows = planned({"language_model." + QKV: noise(144, 48)}, settings)
    assert [row.part for row in rows] == ["q", "k", "v"]


def test_as_stored_keeps_fused_tensors_whole():
    values = {QKV: noise(144, 48), "attn.in_proj_weight": noise(144, 48)}
    rows = planned(values, BASE | {"model_type": "phi3"}, as_stored=True)
    assert [(row.part, row.role) for row in rows] == [(None, Role.QKV)] * 2


def test_parts_that_share_bytes_name_the_same_bytes():
    name = "gpt_neox.layers.0.attention.query_key_value.weight"
    rows = planned({name: noise(144, 48)}, BASE | {"model_type": "gpt_neox"})
    assert {(row.start, row.stop) for row in rows} == {(0, 144 * 48 * 4)}
    assert [row.shape for row in rows] == [(48, 48)] * 3


def test_a_part_that_is_too_small_is_a_row_of_its_own():
    name = "h.0.self_attention.query_key_value.weight"
    settings = {"model_type": "falcon", "hidden_size": 24, "num_attention_heads": 6}
    rows = planned({name: noise(32, 24)}, settings, min_side=8)
    assert [(row.part, row.skip and row.skip.value) for row in rows] == [
        ("q", None),
        ("k", "too_small"),
        ("v", "too_small"),
    ]
