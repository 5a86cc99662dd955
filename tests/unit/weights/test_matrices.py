"""Which tensors become which rows, and the values each row stands for."""

import numpy as np
import pytest

from scanner.spectra.eigen import DenseWeights, slice_of
from scanner.weights.matrices import StoredWeights, plan_matrices
from schemas.config import MatrixRules
from schemas.refs import FileRef, RepoRef, TensorRef
from schemas.results import Role, SkipReason

FILE = FileRef(RepoRef("owner/name", "0" * 40), "model.safetensors", 1 << 20, "content")
BYTES = {
    "F64": 8,
    "F32": 4,
    "BF16": 2,
    "F16": 2,
    "F8_E4M3": 1,
    "I8": 1,
    "U8": 1,
    "I32": 4,
    "BOOL": 1,
    "F4": 0,
}


def tensor(name, shape, dtype="F32", start=100):
    return TensorRef(FILE, name, dtype, tuple(shape), start, start + int(np.prod(shape)) * BYTES[dtype])


def plan(*tensors, component=None, first_index=0, **rules):
    return plan_matrices(tensors, MatrixRules(**rules), component, first_index)


def only(name, shape, dtype="F32", **rules):
    (row,) = plan(tensor(name, shape, dtype), **rules)
    return row


@pytest.mark.parametrize(
    ("name", "shape", "role", "kernel"),
    [
        ("encoder.layer.0.attention.self.query.weight", (64, 64), Role.Q, 1),
        ("h.0.attn.c_attn.weight", (64, 192), Role.QKV, 1),
        ("anything", (20, 30), Role.OTHER, 1),
        ("attn.qkv.weight", (96, 32), Role.QKV, 1),
        ("conv1.weight", (16, 32, 7), Role.CONV, 7),
        ("layer1.0.conv1.weight", (16, 8, 3, 3), Role.CONV, 9),
        ("stem.weight", (16, 8, 3, 3, 3), Role.CONV, 27),
        ("body.weight", (16, 8, 64), Role.CONV, 64),
    ],
)
def test_one_row_of_the_whole_tensor(name, shape, role, kernel):
    row = only(name, shape)
    assert (row.skip, row.role, row.kernel_size, row.shape) == (None, role, kernel, shape)
    assert (row.start, row.stop) == (row.tensor.start, row.tensor.stop)
    assert (row.expert_id, row.slice_id, row.part, row.quant_method) == (None,) * 4


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "reason"),
    [
        ("norm.weight", (64,), "F32", SkipReason.NOT_A_MATRIX),
        ("logit_scale", (), "F32", SkipReason.NOT_A_MATRIX),
        ("position_ids", (1, 512), "I32", SkipReason.NOT_A_MATRIX),
        ("mask", (64, 64), "BOOL", SkipReason.NOT_A_MATRIX),
        ("codes.weight", (64, 64), "I8", SkipReason.NOT_A_MATRIX),
        ("h.0.attn.bias", (1, 1, 64, 64), "F32", SkipReason.NOT_A_MATRIX),
        ("swin.attn.relative_position_index", (64, 64), "F32", SkipReason.NOT_A_MATRIX),
        ("rotary_emb.inv_freq", (8, 64), "F32", SkipReason.NOT_A_MATRIX),
        ("nothing.weight", (0, 64), "F32", SkipReason.EMPTY),
        ("small.weight", (64, 64), "F4", SkipReason.UNSUPPORTED_DTYPE),
        ("thin.weight", (7, 640), "F32", SkipReason.TOO_SMALL),
        ("tall.weight", (640, 7), "F32", SkipReason.TOO_SMALL),
        ("rgb.conv.weight", (64, 3, 3, 3), "F32", SkipReason.TOO_SMALL),
        ("big.weight", (16385, 16385), "F32", SkipReason.TOO_LARGE),
        ("dw.conv.weight", (64, 1, 3, 3), "F32", SkipReason.SKIP_DEPTHWISE),
        ("dw.conv.weight", (64, 1, 4), "F32", SkipReason.SKIP_DEPTHWISE),
        ("cls_token", (1, 1, 768), "F32", SkipReason.TOO_SMALL),
    ],
)
def test_what_is_no_matrix_is_a_row_with_a_reason(name, shape, dtype, reason):
    row = only(name, shape, dtype)
    assert row.skip is reason
    assert row.nbytes == 0


@pytest.mark.parametrize("shape", [(8, 8), (16384, 100_000), (8, 8, 3, 3)])
def test_sizes_at_the_limits_are_rows(shape):
    assert only("x.weight", shape).skip is None


@pytest.mark.parametrize("mode", ["pool", "slice", "flatten"])
def test_a_depthwise_convolution_is_one_skipped_row_in_every_mode(mode):
    assert only("dw.conv.weight", (64, 1, 3, 3), conv_mode=mode).skip is SkipReason.SKIP_DEPTHWISE


def test_depthwise_convolutions_on_request():
    row = only("dw.conv.weight", (64, 1, 3, 3), depthwise=True, min_side=1)
    assert (row.skip, row.kernel_size) == (None, 9)


def test_slices_share_the_bytes_of_their_tensor():
    rows = plan(tensor("conv.weight", (16, 8, 3, 3)), conv_mode="slice")
    assert [row.slice_id for row in rows] == list(range(9))
    assert {(row.start, row.stop, row.skip) for row in rows} == {(100, 100 + 16 * 8 * 9 * 4, None)}


def test_a_flattened_convolution_is_a_matrix():
    assert only("conv.weight", (16, 8, 3, 3), conv_mode="flatten").shape == (16, 72)


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj", (4, 32, 16), Role.GATE_UP),
        ("model.layers.0.mlp.experts.down_proj", (4, 16, 32), Role.DOWN),
        ("moe.w", (4, 16, 65), Role.OTHER),
    ],
)
def test_a_stack_of_experts_is_a_row_each(name, shape, role):
    rows = plan(tensor(name, shape))
    size = shape[1] * shape[2] * 4
    assert [row.expert_id for row in rows] == [0, 1, 2, 3]
    assert [(row.start, row.stop) for row in rows] == [
        (100 + e * size, 100 + (e + 1) * size) for e in range(4)
    ]
    assert {(row.shape, row.role, row.skip) for row in rows} == {(shape[1:], role, None)}


def test_a_table_stored_with_a_leading_one_is_a_matrix():
    row = only("vit.embeddings.position_embeddings", (1, 197, 64))
    assert (row.shape, row.role, row.skip) == ((197, 64), Role.POS_EMBED, None)


@pytest.mark.parametrize("name", ["fir.conv.weight", "Conv1.weight", "model.conv_post.weight"])
def test_a_convolution_with_one_output_stays_one(name):
    row = only(name, (1, 64, 15), min_side=1)
    assert (row.shape, row.kernel_size, row.role, row.skip) == ((1, 64, 15), 15, Role.CONV, None)
    assert only(name, (1, 64, 15)).skip is SkipReason.TOO_SMALL
    assert [
        r.slice_id for r in plan(tensor(name, (1, 64, 3)), conv_mode="slice", min_side=1, min_evals=1)
    ] == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    "names",
    [
        {"x.qweight": "I32", "x.qzeros": "I32", "x.scales": "F16", "x.g_idx": "I32"},
        {"x.weight_packed": "I32", "x.weight_scale": "F16"},
        {"x.weight": "F8_E4M3", "x.weight_scale_inv": "I32"},
        {"x.weight": "U8", "x.weight.absmax": "F32", "x.weight.quant_map": "F32"},
        {"experts.down_proj_blocks": "U8", "experts.down_proj_scales": "U8"},
    ],
)
def test_codes_that_do_not_fit_and_companions_are_never_analysed(names):
    rows = plan(*(tensor(name, (32, 32), dtype) for name, dtype in names.items()))
    refused = {SkipReason.UNSUPPORTED_QUANT, SkipReason.QUANT_LAYOUT_UNKNOWN}
    assert rows[0].skip in refused
    assert {row.skip for row in rows[1:]} == {SkipReason.QUANT_COMPANION}


def test_every_tensor_has_a_row_and_indices_run_through():
    shapes = {"a.weight": (64,), "b.weight": (0, 3), "c.weight": (32, 32), "experts.w": (2, 16, 16)}
    rows = plan(*(tensor(n, s) for n, s in shapes.items()), component="unet", first_index=7)
    assert [row.tensor.name for row in rows] == [*list(shapes)[:3], "experts.w", "experts.w"]
    assert [row.index for row in rows] == list(range(7, 12))
    assert {row.component for row in rows} == {"unet"}


@pytest.mark.parametrize(
    ("names", "last"),
    [
        (["embed_tokens.weight", "layers.0.q_proj.weight", "lm_head.weight"], ["lm_head.weight"]),
        (["layers.0.q_proj.weight", "score.weight", "pooler.dense.weight"], ["score.weight"]),
        (["embeddings.weight", "layer.1.q.weight", "pooler.dense.weight"], ["pooler.dense.weight"]),
        (["dense9.weight", "dense10.weight", "wte.weight"], ["dense10.weight"]),
        (["wte.weight", "h.0.q.weight"], []),
    ],
)
def test_the_last_matrix(names, last):
    rows = plan(*(tensor(name, (32, 32)) for name in names))
    assert [row.tensor.name for row in rows if row.is_last] == last


def test_a_skipped_tensor_is_not_last():
    rows = plan(tensor("body.weight", (32, 32)), tensor("classifier.bias", (32,)))
    assert [row.is_last for row in rows] == [True, False]


def test_block_numbers():
    rows = plan(tensor("h.3.attn.weight", (32, 32)), tensor("wte.weight", (32, 32)))
    assert [row.layer_index for row in rows] == [3, None]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_slice_of_stored_weights_is_that_of_all_of_them(shape, dtype):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    stored = tensor("conv.weight", shape, dtype="F32" if dtype is np.float32 else "F64", start=0)
    (row,) = plan(stored, min_side=1, min_evals=1)
    for s in range(values[0, 0].size):
        found = slice_of(StoredWeights(row, values.tobytes()), s)
        np.testing.assert_array_equal(found, slice_of(DenseWeights(values), s))
        assert found.flags.c_contiguous
        assert found.dtype == np.float64


def test_stored_weights_of_a_slice_and_an_expert():
    values = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    rules = {"min_side": 1, "min_evals": 1}
    slices = plan(tensor("conv.weight", values.shape, start=0), conv_mode="slice", **rules)
    for s, row in enumerate(slices):
        weights = StoredWeights(row, values.tobytes())
        assert weights.shape == (4, 5)
        np.testing.assert_array_equal(weights.block(slice(1, 3), slice(0, 5)), values[1:3, :, s])
    experts = plan(tensor("experts.w", values.shape, start=0), **rules)
    for e, row in enumerate(experts):
        block = StoredWeights(row, values.tobytes()[row.start : row.stop]).block(slice(None), slice(2, 4))
        np.testing.assert_array_equal(block, values[e, :, 2:4])
        assert block.flags.c_contiguous
        assert block.dtype == np.float64
