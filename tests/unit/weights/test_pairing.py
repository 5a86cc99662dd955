"""Which matrix of the base a row is held against."""

from dataclasses import replace

import pytest

from scanner.weights.matrices import plan_matrices
from scanner.weights.pairing import Base, paired, plain_name
from schemas.config import MatrixRules
from schemas.refs import FileRef, RepoRef, TensorRef

REF = RepoRef("acme/base", "b" * 40)
OWN = RepoRef("acme/tuned", "a" * 40)


def rows(shapes, repo=OWN, content="own", sha256=None, rules=None, dtype="F32", settings=None):
    file = FileRef(repo, "model.safetensors", 10**6, content, sha256)
    tensors, start = [], 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        tensors.append(TensorRef(file, name, dtype, shape, start, start + size))
        start += size
    return plan_matrices(tensors, rules or MatrixRules(), settings=settings or {})


def against(shapes, base_shapes, **about):
    base = Base(REF, rows(base_shapes, REF, **({"content": "base"} | about)))
    return [
        (
            row.tensor.name,
            row.base.status.value,
            row.base.matrix.tensor.name if row.base.matrix else None,
        )
        for row in paired(rows(shapes), base)
    ]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("layers.0.weight", "layers.0.weight"),
        ("model.layers.0.weight", "layers.0.weight"),
        ("module.model.layers.0.weight", "layers.0.weight"),
        ("base_model.model.model.layers.0.weight", "layers.0.weight"),
        ("bert.layers.0.weight", "bert.layers.0.weight"),
        ("models.0.weight", "models.0.weight"),
        ("x.model.weight", "x.model.weight"),
    ],
)
def test_only_known_prefixes_are_stripped(name, plain):
    assert plain_name(name) == plain


SQUARE = (32, 32)


@pytest.mark.parametrize(
    ("own", "base", "found"),
    [
        ({"a": SQUARE}, {"a": SQUARE}, ("a", "ok", "a")),
        ({"model.a": SQUARE}, {"a": SQUARE}, ("model.a", "ok", "a")),
        ({"a": SQUARE}, {"module.model.a": SQUARE}, ("a", "ok", "module.model.a")),
        ({"model.a": SQUARE}, {"model.a": SQUARE, "a": SQUARE}, ("model.a", "ok", "model.a")),
        ({"module.a": SQUARE}, {"model.a": SQUARE, "a": SQUARE}, ("module.a", "no_match", None)),
        ({"head": SQUARE}, {"a": SQUARE}, ("head", "no_match", None)),
        ({"a": SQUARE}, {"a": (32, 33)}, ("a", "shape_mismatch", "a")),
        ({"a": (32, 33)}, {"a": (33, 32)}, ("a", "shape_mismatch", "a")),
        ({"bert.a": SQUARE}, {"a": SQUARE}, ("bert.a", "no_match", None)),
        ({"a": SQUARE}, {"a": (4, 4)}, ("a", "no_match", None)),
    ],
)
def test_pairs_are_by_name_and_shape(own, base, found):
    assert against(own, base) == [found]


def test_an_extra_layer_misaligns_nothing():
    own = {"a": SQUARE, "new": SQUARE, "b": SQUARE}
    assert [status for _, status, _ in against(own, {"b": SQUARE, "a": SQUARE})] == ["ok", "no_match", "ok"]


def test_experts_and_slices_meet_their_own():
    stack = {"experts.up": (3, 32, 40)}
    base = Base(REF, rows(stack, REF, "base"))
    pairs = [(row.expert_id, row.base.matrix.expert_id) for row in paired(rows(stack), base)]
    assert pairs == [(0, 0), (1, 1), (2, 2)]
    sliced = MatrixRules(conv_mode="slice")
    conv = {"conv.weight": (16, 16, 2, 2)}
    base = Base(REF, rows(conv, REF, "base", rules=sliced))
    found = [(row.slice_id, row.base.matrix.slice_id) for row in paired(rows(conv, rules=sliced), base)]
    assert found == [(k, k) for k in range(4)]


def test_parts_of_a_fused_tensor_meet_their_own():
    settings = {"model_type": "gpt2", "n_embd": 32, "n_head": 4}
    fused = {"h.0.attn.c_attn.weight": (32, 96)}
    base = Base(REF, rows(fused, REF, "base", settings=settings))
    found = [
        (row.part, row.base.matrix.part, row.partner.cut)
        for row in paired(rows(fused, settings=settings), base)
    ]
    assert [(part, other) for part, other, _ in found] == [("q", "q"), ("k", "k"), ("v", "v")]
    assert len({cut for _, _, cut in found}) == 3


def test_sub_models_meet_their_own():
    base = Base(REF, tuple(replace(row, component="text") for row in rows({"a": SQUARE}, REF, "base")))
    (row,) = paired(rows({"a": SQUARE}), base)
    assert row.base.status == "no_match"


@pytest.mark.parametrize("same", [{"content": "own"}, {"sha256": "f" * 64}])
def test_the_base_s_own_file_is_not_read_again(same):
    own = rows({"a": SQUARE}, **({"content": "own"} | same))
    base = Base(REF, rows({"a": SQUARE}, REF, **({"content": "base"} | same)))
    (row,) = paired(own, base)
    assert (row.base.status, row.base.matrix.tensor.name, row.partner) == ("same_file", "a", None)
    assert row.pair_bytes == row.nbytes


def test_a_pair_reads_both():
    (row,) = paired(rows({"a": SQUARE}), Base(REF, rows({"a": SQUARE}, REF, "base", dtype="F32")))
    assert row.partner.tensor.file.repo == row.base.repo == REF
    assert row.pair_bytes == 2 * row.nbytes == 2 * 4 * 32 * 32


def test_without_a_base_rows_say_so_and_skipped_ones_say_nothing():
    kept, skipped = paired(rows({"a": SQUARE, "bias": (32,)}), None)
    assert (kept.base.status, kept.base.repo, kept.partner) == ("no_base", None, None)
    assert skipped.base.status == "off"


def test_packed_codes_of_a_base_are_no_match():
    base = Base(REF, rows({"a": SQUARE}, REF, "base", dtype="I32"))
    (row,) = paired(rows({"a": SQUARE}), base)
    assert row.base.status == "no_match"


def test_adapters_are_not_paired():
    own = rows({"layer.lora_A.weight": SQUARE})
    assert own[0].role == "lora"
    (row,) = paired(own, Base(REF, rows({"layer.lora_A.weight": SQUARE}, REF, "base")))
    assert row.base.status == "off"
