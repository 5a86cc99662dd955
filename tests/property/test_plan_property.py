"""Planning covers everything once, within its bounds, and always the same way."""

from dataclasses import replace
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.weights.matrices import plan_matrices
from scanner.weights.plan import cost, plan_units
from scanner.weights.roles import layer_indices
from schemas.config import MatrixRules, ScanConfig, WorkLimits
from schemas.refs import FileRef, RepoRef, TensorRef
from schemas.results import SkipReason

REPO = RepoRef("owner/name", "a" * 40)
NAMES = st.sampled_from(
    [
        "embed_tokens.weight",
        "layers.{i}.q_proj.weight",
        "layers.{i}.experts.w1",
        "layers.{i}.mlp.qweight",
        "layers.{i}.mlp.scales",
        "layer{i}.0.conv1.weight",
        "norm{i}.bias",
        "lm_head.weight",
        "x{i}",
    ]
)
SHAPES = st.lists(st.integers(0, 40), min_size=0, max_size=5).map(tuple)
FUSED = st.sampled_from(
    [
        ("layers.{i}.qkv_proj", (36, 12)),
        ("layers.{i}.query_key_value", (24, 8)),
        ("layers.{i}.mlp.experts.gate_up_proj", (2, 16, 8)),
        ("layers.{i}.mlp.experts.gate_up_proj", (2, 8, 16)),
        ("layers.{i}.in_proj_weight", (30, 10)),
    ]
)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F8_E4M3", "I32", "U8", "BOOL"])
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I32": 4, "U8": 1, "BOOL": 1}
MODES = st.sampled_from(["pool", "slice", "flatten"])


@st.composite
def models(draw):
    """Tensors of one to three files, end to end as in safetensors."""
    tensors, at = [], {}
    pieces = st.one_of(st.tuples(NAMES, SHAPES), FUSED)
    for i, ((name, shape), dtype, file) in enumerate(
        draw(st.lists(st.tuples(pieces, DTYPES, st.integers(0, 2)), max_size=12))
    ):
        ref = FileRef(REPO, f"model-{file}.safetensors", 1 << 40, f"content {file}")
        start = at.get(file, 100)
        at[file] = start + prod(shape) * SIZES[dtype]
        tensors.append(TensorRef(ref, f"m{i}.{name.format(i=i)}", dtype, shape, start, at[file]))
    return sorted(tensors, key=lambda t: (t.file.path, t.start, t.stop))


CONFIG_JSON = st.sampled_from(
    [
        {},
        {"model_type": "phi3", "hidden_size": 12, "num_attention_heads": 3, "tie_word_embeddings": True},
        {"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2},
        {"model_type": "gpt_oss", "hidden_size": 8},
    ]
)

quick = settings(max_examples=80, deadline=None)


def covered(row, itemsize):
    """Offsets in the file of every element of a row, axis by axis as its cut says."""
    shape = row.cut.whole(row.shape) if row.cut else row.shape
    at = row.start + itemsize * np.arange(prod(shape)).reshape(shape)
    if row.cut:
        along = np.arange(shape[row.cut.axis]) % row.cut.period
        at = np.compress((row.cut.start <= along) & (along < row.cut.stop), at, axis=row.cut.axis)
    assert at.shape == row.shape
    return at.ravel()


@quick
@given(models(), MODES, CONFIG_JSON)
def test_every_tensor_is_planned_and_its_rows_tile_its_bytes(tensors, mode, config):
    rows = plan_matrices(tensors, MatrixRules(conv_mode=mode), settings=config)
    assert [row.index for row in rows] == list(range(len(rows)))
    for tensor in tensors:
        own = [row for row in rows if row.tensor is tensor]
        assert own
        if own[0].slice_id is not None:
            assert [row.slice_id for row in own] == list(range(prod(tensor.shape[2:])))
            own = own[:1]
        if own[0].lora is None:
            size = SIZES[tensor.dtype]
            places = np.sort(np.concatenate([covered(row, size) for row in own]))
            assert np.array_equal(places, np.arange(tensor.start, tensor.stop, size))


@quick
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.booleans(), MODES)
def test_a_lora_pair_is_read_once_and_none_of_it_is_lost(rank, m, n, turned, mode):
    shapes = [("x.lora_A.weight", (rank, n)), ("x.lora_B.weight", (m, rank))]
    ref, tensors, at = FileRef(REPO, "adapter.safetensors", 1 << 20, "content"), [], 0
    for name, shape in shapes[:: -1 if turned else 1]:
        tensors.append(TensorRef(ref, name, "F32", shape, at, at + 4 * prod(shape)))
        at = tensors[-1].stop
    first, second = sorted(plan_matrices(tensors, MatrixRules(conv_mode=mode)), key=lambda r: r.tensor.name)
    assert (first.shape, second.skip, second.nbytes) == ((m, n), SkipReason.LORA_PAIR, 0)
    assert sorted(first.spans) == [(t.start, t.stop) for t in tensors]
    assert first.nbytes == (0 if min(m, n) < 8 else at)


@quick
@given(models(), MODES, CONFIG_JSON)
def test_a_row_to_analyse_is_a_float_matrix_of_sufficient_size(tensors, mode, config):
    rules = MatrixRules(conv_mode=mode)
    for row in plan_matrices(tensors, rules, settings=config):
        if row.skip is None:
            assert row.tensor.dtype in ("F32", "F16", "BF16", "F8_E4M3")
            assert min(row.shape[:2]) >= rules.min_side
            held = row.cut.whole(row.shape) if row.cut else row.shape
            assert row.stop - row.start == prod(held) * SIZES[row.tensor.dtype]
        elif row.skip is SkipReason.TOO_SMALL:
            assert len(row.tensor.shape) > 1


@quick
@given(models(), st.integers(1, 20_000), st.floats(1e-4, 1e-2))
def test_units_cover_what_is_not_skipped_once_in_order_and_keep_their_bounds(tensors, unit_bytes, unit_cost):
    config = ScanConfig()
    rows = plan_matrices(tensors, config.matrices)
    units = plan_units(REPO, rows, config, WorkLimits(unit_bytes=unit_bytes, unit_cost=unit_cost))
    assert [row for unit in units for row in unit.matrices] == [row for row in rows if not row.skip]
    assert len({unit.unit_id for unit in units}) == len(units)
    for unit in units:
        places = {(row.tensor.file.path, row.start, row.stop): row.nbytes for row in unit.matrices}
        work = sum(cost(row, "gram") for row in unit.matrices)
        assert unit.nbytes == sum(places.values())
        if len(places) > 1:
            assert unit.nbytes <= unit_bytes
            assert work <= unit_cost * (1 + 1e-9)


@quick
@given(models())
def test_the_same_repository_is_cut_into_the_same_units(tensors):
    config = ScanConfig()
    first, again = (
        plan_units(REPO, plan_matrices(tensors, config.matrices), config, WorkLimits(unit_bytes=2000))
        for _ in range(2)
    )
    assert first == again


@quick
@given(models(), st.data())
def test_a_changed_file_renames_just_the_units_that_hold_it(tensors, data):
    config, limits = ScanConfig(), WorkLimits(unit_bytes=1)
    paths = sorted({tensor.file.path for tensor in tensors})
    if not paths:
        return
    changed = data.draw(st.sampled_from(paths))
    others = [
        replace(t, file=replace(t.file, content_id="new")) if t.file.path == changed else t for t in tensors
    ]
    before = plan_units(REPO, plan_matrices(tensors, config.matrices), config, limits)
    after = plan_units(REPO, plan_matrices(others, config.matrices), config, limits)
    for old, new in zip(before, after, strict=True):
        holds = any(row.tensor.file.path == changed for row in old.matrices)
        assert (old.unit_id != new.unit_id) is holds


@quick
@given(st.lists(st.text(alphabet="abl0123.", max_size=12)))
def test_block_numbers_are_numbers_of_the_names_given(names):
    found = layer_indices(names)
    assert found.keys() <= set(names)
    assert all(number >= 0 for number in found.values())
