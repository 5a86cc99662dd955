"""From a source to rows: plans, units, failures as values, nothing lost."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from faulty import Flaky, Narrow
from safetensors.numpy import save, save_file

from scanner import pipeline
from scanner.failures import failure_of
from scanner.pipeline import fail_unit, run_unit, scan_unit
from scanner.place import place
from scanner.planning import FIRST_READ, plan_repository, read_header
from scanner.sources.local import LocalSource
from scanner.sources.memory import MemorySource
from schemas.config import ScanConfig, WorkLimits, code_version, profile_config
from schemas.errors import FormatError, SourceError
from schemas.results import FailureKind, Stage
from schemas.rows import Failure, LayerMetrics

CONFIG = ScanConfig()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def state():
    return {
        "embed_tokens.weight": noise(64, 32),
        "layers.0.q_proj.weight": noise(32, 32, seed=1),
        "layers.0.norm.weight": np.ones(32, np.float32),
        "layers.1.q_proj.weight": noise(32, 32, seed=2),
        "conv.weight": noise(16, 16, 3, 3, seed=3),
    }


@pytest.fixture
def model(tmp_path):
    """A folder and a way to open it."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaModel"], "hidden_size": 32})
    )
    return tmp_path


def plan_of(root, config=CONFIG, **limits):
    source = LocalSource(root)
    plan = plan_repository(source, source.repository("owner/name"), config, WorkLimits(**limits))
    return source, plan


def outcomes(root, config=CONFIG):
    source, plan = plan_of(root, config)
    measured = [out for unit in plan.units for out in scan_unit(source, unit, config)]
    return plan, [*measured, *(place(ref, config) for ref in plan.skipped)]


def split(outcomes):
    found = list(outcomes)
    rows = [out for out in found if isinstance(out, LayerMetrics)]
    return rows, [out for out in found if isinstance(out, Failure)]


def sharded(root, tensors, shards=2, extra=None):
    """Deal tensors to shards and write their index."""
    names = list(tensors)
    weight_map = {}
    for k in range(shards):
        part = {name: tensors[name] for name in names[k::shards]}
        path = f"model-{k + 1:05}-of-{shards:05}.safetensors"
        save_file(part, root / path)
        weight_map |= dict.fromkeys(part, path)
    index = {"metadata": {}, "weight_map": weight_map | (extra or {})}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))


def test_every_tensor_becomes_a_planned_row_and_every_planned_row_an_outcome(model):
    save_file(state(), model / "model.safetensors")
    plan, found = outcomes(model)
    rows, failures = split(found)
    assert {row.tensor for row in rows} == state().keys()
    assert (plan.planned, len(rows), failures) == (5, 5, [])
    assert sorted(row.matrix_index for row in rows) == list(range(5))
    assert Counter(row.status for row in rows) == {"ok": 4, "skipped": 1}


def test_the_component_tells_what_the_plan_knows(model):
    tensors = state() | {"half.weight": noise(8, 8).astype(np.float16)}
    save_file(tensors, model / "model.safetensors")
    (about,) = plan_of(model)[1].components
    assert (about.architecture, about.dtype_main, about.quant_method) == ("LlamaModel", "F32", None)
    assert about.params == sum(array.size for array in tensors.values())
    assert (about.num_planned, about.num_files_failed, about.source) == (6, 0, "local")
    assert (about.config_fingerprint, about.code_version) == (CONFIG.fingerprint(), code_version())


def test_parameters_of_shards_that_begin_alike_are_all_counted(model):
    """Equal names in length and equal shapes give shards equal headers, hence tensors at equal offsets."""
    tensors = {f"layers.{i}.w": noise(32, 32, seed=i) for i in range(4)}
    sharded(model, tensors)
    (about,) = plan_of(model)[1].components
    assert about.params == 4 * 32 * 32


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"architectures": 3, "quantization_config": "x"}'])
def test_a_config_that_says_nothing_is_no_obstacle(model, text):
    save_file(state(), model / "model.safetensors")
    (model / "config.json").write_text(text)
    (about,) = plan_of(model)[1].components
    assert (about.architecture, about.quant_method) == (None, None)


def fused_model(root):
    """NeoX-like attention, two stacked experts, and a head that the config ties to the embedding."""
    about = {
        "model_type": "gpt_neox",
        "hidden_size": 40,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    }
    (root / "config.json").write_text(json.dumps(about))
    tensors = {
        "embed_in.weight": noise(70, 40),
        "embed_out.weight": noise(70, 40),
        "layers.0.attention.query_key_value.weight": noise(120, 40, seed=1),
        "layers.0.attention.in_proj_weight": noise(120, 40, seed=2),
        "layers.0.moe.experts.w1": noise(2, 40, 80, seed=3),
        "rnn.weight_ih_l0": noise(64, 20, seed=4),
        "rnn.weight_hh_l0": noise(64, 16, seed=5),
    }
    save_file(tensors, root / "model.safetensors")
    return tensors


def test_parts_of_fused_tensors_are_rows_with_their_own_numbers(model):
    tensors = fused_model(model)
    plan, found = outcomes(model)
    rows, failures = split(found)
    assert (plan.planned, len(rows), failures) == (18, 18, [])
    assert {row.tensor: row.status_reason for row in rows if row.status != "ok"} == {
        "embed_out.weight": "duplicate_tied"
    }
    norms = {(row.tensor, row.part): row.norm for row in rows if row.part}
    heads = tensors["layers.0.attention.query_key_value.weight"].reshape(4, 3, 10, 40)
    torchs = tensors["layers.0.attention.in_proj_weight"].reshape(3, 40, 40)
    gates = tensors["rnn.weight_hh_l0"].reshape(4, 16, 16)
    expected = {("layers.0.attention.query_key_value.weight", p): heads[:, i] for i, p in enumerate("qkv")}
    expected |= {("layers.0.attention.in_proj_weight", p): torchs[i] for i, p in enumerate("qkv")}
    expected |= {("rnn.weight_hh_l0", p): gates[i] for i, p in enumerate("ifgo")}
    for where, part in expected.items():
        assert norms[where] == pytest.approx(np.sum(part.astype("f8") ** 2), rel=1e-12), where


def test_shared_bytes_are_read_and_counted_once(model):
    tensors = fused_model(model)
    source, plan = plan_of(model)
    held = sum(array.nbytes for name, array in tensors.items() if name != "embed_out.weight")
    assert sum(unit.nbytes for unit in plan.units) == held
    _, fine = plan_of(model, unit_bytes=1)
    assert sum(run_unit(source, unit, CONFIG).bytes_read for unit in fine.units) == held


def test_weightwatchers_profile_takes_tensors_as_stored(model):
    tensors = fused_model(model)
    _, found = outcomes(model, profile_config("weightwatcher"))
    rows, _ = split(found)
    assert Counter(row.status for row in rows) == {"ok": len(tensors) + 1}
    assert {row.part for row in rows} == {None}


def test_rows_do_not_depend_on_how_work_is_cut(model):
    save_file(state(), model / "model.safetensors")
    source, plan = plan_of(model)
    _, fine = plan_of(model, unit_bytes=1)
    assert (len(plan.units), len(fine.units)) == (1, 4)
    numbers = [
        sorted(
            (row.tensor, row.alpha, row.norm, row.mp_D)
            for unit in units
            for row in run_unit(source, unit, CONFIG).rows
        )
        for units in (plan.units, fine.units)
    ]
    assert numbers[0] == numbers[1]


def test_sharded_models_are_read_through_their_index(model):
    sharded(model, state(), shards=3)
    _, found = outcomes(model)
    rows, failures = split(found)
    assert ({row.tensor for row in rows}, failures) == (state().keys(), [])
    assert len({row.file for row in rows}) == 3


def test_a_bad_header_costs_its_file_only(model):
    sharded(model, state())
    (model / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 64)
    plan, found = outcomes(model)
    (failure,) = plan.failures
    assert (failure.kind, failure.stage, failure.file) == (
        "bad_header",
        "header",
        "model-00001-of-00002.safetensors",
    )
    assert (plan.components[0].num_files_failed, failure.retryable) == (1, False)
    assert {row.tensor for row in split(found)[0]} == set(list(state())[1::2])


def test_an_index_that_promises_more_is_a_failure_and_the_rest_is_scanned(model):
    sharded(model, state(), extra={"ghost.weight": "model-00001-of-00002.safetensors"})
    plan, found = outcomes(model)
    (failure,) = plan.failures
    assert (failure.kind, failure.stage) == ("index_mismatch", "plan")
    assert "'ghost.weight'" in failure.message
    assert len(split(found)[0]) == 5


def test_a_broken_index_is_a_failure_and_the_shards_are_scanned(model):
    sharded(model, state())
    (model / "model.safetensors.index.json").write_text("{")
    plan, found = outcomes(model)
    assert [failure.file for failure in plan.failures] == ["model.safetensors.index.json"]
    assert len(split(found)[0]) == 5


def test_tensors_of_files_that_are_not_read_are_rows_with_that_reason(model):
    save_file(state(), model / "model.safetensors")
    half = {name: array.astype(np.float16) for name, array in state().items()}
    save_file(half, model / "model.fp16.safetensors")
    (model / "checkpoint-5").mkdir()
    (model / "checkpoint-5" / "model.safetensors").write_bytes(b"no header")
    plan, found = outcomes(model)
    rows, _ = split(found)
    [about] = plan.components
    unread = {row.tensor for row in rows if row.status_reason == "not_selected"}
    assert unread == state().keys()
    assert {row.file for row in rows if row.tensor in unread and row.dtype == "F16"} == {
        "model.fp16.safetensors"
    }
    assert about.num_planned == plan.planned == len(rows) == 2 * len(state())
    assert about.params == sum(array.size for array in state().values())
    assert sorted(note.partition(":")[0] for note in about.left_out) == [
        "checkpoint-5/model.safetensors",
        "model.fp16.safetensors",
    ]
    assert [(f.file, f.kind) for f in plan.failures] == [("checkpoint-5/model.safetensors", "bad_header")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pytorch_model.bin", "skipped_pickle"), ("model.gguf", "skipped_gguf"), ("notes.json", "no_weights")],
)
def test_a_repository_without_weights_says_why(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(FormatError) as caught:
        plan_of(tmp_path)
    assert caught.value.kind == kind


def test_nan_fails_one_row_and_counts_add_up(model):
    tensors = {name: noise(32, 32, seed=i) for i, name in enumerate("abc")}
    tensors["b"][0, :3] = np.nan
    save_file(tensors, model / "model.safetensors")
    plan, found = outcomes(model)
    rows, (failure,) = split(found)
    assert {row.tensor: row.status for row in rows} == {"a": "ok", "b": "failed", "c": "ok"}
    bad = rows[1]
    assert (bad.status_reason, bad.num_nonfinite, bad.failure_id) == ("nonfinite", 3, failure.failure_id)
    assert (bad.alpha, bad.norm) == (None, None)
    assert (failure.tensor, failure.stage, failure.file) == ("b", "spectrum", "model.safetensors")
    assert "3 of 1024 entries" in failure.message
    assert plan.planned == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_a_failure_of_ours_and_in_no_mean(model, monkeypatch, bad):
    save_file({"a": noise(32, 32)}, model / "model.safetensors")
    measured = pipeline.measure
    monkeypatch.setattr(pipeline, "measure", lambda *args: replace(measured(*args), alpha=bad))
    (row,), (failure,) = split(outcomes(model)[1])
    assert (row.status, row.alpha, failure.kind) == ("failed", None, "internal")
    assert failure.message.endswith("not finite: alpha")


def test_numbers_whose_sum_is_too_large_are_numbers(model, monkeypatch):
    save_file({"a": noise(32, 32)}, model / "model.safetensors")
    measured = pipeline.measure
    monkeypatch.setattr(pipeline, "measure", lambda *args: replace(measured(*args), norm=1e308, xmax=1e308))
    (row,), failures = split(outcomes(model)[1])
    assert (row.status, row.norm, failures) == ("ok", 1e308, [])


def test_a_zero_convolution_is_a_row_like_any_other(model):
    save_file({"conv.weight": np.zeros((32, 32, 3, 3), np.float32)}, model / "model.safetensors")
    ((row,), failures) = split(outcomes(model)[1])
    assert (row.status, row.status_reason, failures) == ("ok", "zero_matrix", [])


def test_a_file_cut_short_after_planning_fails_the_rows_it_lost(model):
    save_file(state(), model / "model.safetensors")
    source, plan = plan_of(model)
    (unit,) = plan.units
    last = max(unit.matrices, key=lambda ref: ref.stop)
    with (model / "model.safetensors").open("r+b") as handle:
        handle.truncate(last.stop - 1)
    rows, (failure,) = split(scan_unit(source, unit, CONFIG))
    assert len(rows) == 4
    lost = [row for row in rows if row.status == "failed"]
    assert last.tensor.name in {row.tensor for row in lost}
    assert {row.failure_id for row in lost} == {failure.failure_id}
    assert failure.stage == "read"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_was_read_before_a_final_error_is_kept(model, after):
    save_file({name: noise(32, 32) for name in "abc"}, model / "model.safetensors")
    _, plan = plan_of(model)
    source = Flaky(model, after, SourceError(FailureKind.READ_ERROR, "gone"))
    rows, failures = split(scan_unit(source, plan.units[0], CONFIG))
    assert [row.status for row in rows] == ["ok"] * after + ["failed"] * (3 - after)
    assert len(failures) == 1


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("name", list("abc"))
def test_a_tensor_that_there_is_no_memory_to_read_costs_its_row(model, name, device):
    save_file({name: noise(32, 32) for name in "abc"}, model / "model.safetensors")
    _, plan = plan_of(model)
    (lost,) = [ref for ref in plan.units[0].matrices if ref.tensor.name == name]
    source = Narrow(model, (lost.start, lost.stop))
    rows, (failure,) = split(scan_unit(source, plan.units[0], CONFIG, device))
    assert {row.tensor: row.status for row in rows} == {n: "failed" if n == name else "ok" for n in "abc"}
    assert (failure.kind, failure.stage, failure.tensor) == ("out_of_memory", "read", name)


def test_an_error_worth_retrying_leaves_the_unit_whole(model):
    save_file({name: noise(32, 32) for name in "abc"}, model / "model.safetensors")
    _, plan = plan_of(model)
    source = Flaky(model, 1, SourceError(FailureKind.STALLED, "slow", retryable=True))
    with pytest.raises(SourceError, match="slow"):
        run_unit(source, plan.units[0], CONFIG)


def test_a_unit_given_up_has_a_row_for_every_matrix(model):
    save_file(state(), model / "model.safetensors")
    _, plan = plan_of(model)
    (unit,) = plan.units
    error = SourceError(FailureKind.STALLED, "slow", retryable=True)
    failure = failure_of(error, Stage.READ, "owner/name")
    result = fail_unit(unit, failure, CONFIG)
    assert {row.tensor for row in result.rows} == {ref.tensor.name for ref in unit.matrices}
    assert {row.status for row in result.rows} == {"failed"}
    assert {row.failure_id for row in result.rows} == {failure.failure_id}
    assert (result.failures, result.unit_id, result.bytes_read) == ((failure,), unit.unit_id, 0)


def test_a_unit_reports_what_it_read(model):
    save_file(state(), model / "model.safetensors")
    source, plan = plan_of(model)
    result = run_unit(source, plan.units[0], CONFIG)
    assert result.bytes_read == 4 * (64 * 32 + 2 * 32 * 32 + 16 * 16 * 9)
    assert result.secs > 0


def test_the_name_of_a_failure_is_its_place_and_kind():
    def named(kind=FailureKind.READ_ERROR, message="x", file="f", tensor=None, revision="a" * 40):
        error = SourceError(kind, message, file=file)
        return failure_of(error, Stage.READ, "owner/name", revision, tensor).failure_id

    assert re.fullmatch("[0-9a-f]{16}", named())
    assert named() == named(message="other words")
    changed = [
        named(kind=FailureKind.STALLED),
        named(file="g"),
        named(tensor="t"),
        named(revision="b" * 40),
    ]
    assert len({named(), *changed}) == 5


def test_a_message_is_printable_and_bounded():
    failure = failure_of(SourceError(FailureKind.READ_ERROR, "a\x1b[31m\n" + "x" * 1000), Stage.READ, "r")
    assert failure.message.startswith("a\\x1b[31m\\n")
    assert len(failure.message) <= 512
    assert failure.message.isprintable()


class Counting(MemorySource):
    """Remembers what was read."""

    def read(self, file, start, stop):
        self.reads = [*getattr(self, "reads", []), (start, stop)]
        return super().read(file, start, stop)


@pytest.mark.parametrize(("count", "reads"), [(1, 1), (3000, 2)])
def test_a_header_takes_one_read_or_two(count, reads):
    source = Counting({f"layer.{i:05}.weight": np.zeros(1, np.float32) for i in range(count)})
    (file,) = source.repository("x").files
    assert len(read_header(source, file)) == count
    assert len(source.reads) == reads
    assert source.reads[0] == (0, min(file.size, FIRST_READ))


def test_bytes_of_a_saved_file_are_what_memory_serves():
    tensors = {name: noise(4, 4, seed=i) for i, name in enumerate("ab")}
    source = MemorySource(tensors)
    (file,) = source.repository("x").files
    assert {t.name: (t.dtype, t.shape) for t in read_header(source, file)} == {
        "a": ("F32", (4, 4)),
        "b": ("F32", (4, 4)),
    }
    assert save(tensors)[-128:] == source.read(file, file.size - 128, file.size)
