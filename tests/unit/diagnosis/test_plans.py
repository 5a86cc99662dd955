"""Allocation plans against the worked fixture of the definitions, their guards, and what must always hold."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.diagnosis.allotment import largest_remainder
from scanner.diagnosis.plans import (
    MIN_EVALS,
    MIN_RANGE,
    MIN_USABLE,
    PUBLISHED,
    PlanKind,
    make_plan,
)
from schemas.errors import ConfigError, UsageError
from schemas.results import FitStatus, Role, RowStatus, SkipReason
from schemas.rows import LayerMetrics

LR, WD, PRUNE, EXPERTS = PlanKind
FIXTURE = (2.0, 2.5, 3.0, 4.0)
PARAMS = (100, 100, 200, 200)


def row(tensor, alpha=None, **more):
    """A fitted square-ish matrix whose three alpha columns are all `alpha`."""
    columns = {"alpha": alpha, "alpha_hill": alpha, "alpha_peak_compat": alpha}
    return LayerMetrics(
        **{
            "repo_id": "acme/model",
            "revision": "0" * 40,
            "file": "model.safetensors",
            "tensor": tensor,
            "matrix_index": 0,
            "role": Role.OTHER,
            "is_last": False,
            "dtype": "F32",
            "shape": (100, 60),
            "N": 100,
            "M": 60,
            "Q": 100 / 60,
            "kernel_size": 1,
            "num_evals": 60,
            "status": RowStatus.OK,
            "fit_status": FitStatus.OK if alpha is not None else FitStatus.CONSTANT,
            **columns,
            **more,
        }
    )


def tensors(alphas):
    """Matrices of these alphas between a first and a last one."""
    inner = [row(f"layers.{i}.weight", a) for i, a in enumerate(alphas)]
    return [row("conv1.weight", 9.0), *inner, row("head.weight", 1.1, role=Role.CLASSIFIER, is_last=True)]


def blocks(alphas, params=None):
    """A matrix of so many parameters in each of these blocks."""
    sizes = params or [6000] * len(alphas)
    return [
        row(f"layers.{i}.w.weight", a, layer_index=i, N=n, M=1)
        for i, (a, n) in enumerate(zip(alphas, sizes, strict=True))
    ]


def values(plan):
    return [entry.value for entry in plan.entries]


def inner_values(plan):
    return values(plan)[1:-1]


def share(plan):
    return sum(e.value * e.params for e in plan.entries) / sum(e.params for e in plan.entries)


# The fixture of the definitions, to six digits


def test_learning_rates_of_the_fixture():
    plan = make_plan(tensors(FIXTURE), LR, guard=False)
    assert inner_values(plan) == pytest.approx([0.05, 0.075, 0.1, 0.15], abs=5e-7)
    assert [entry.factor for entry in plan.entries] == pytest.approx([1, 0.5, 0.75, 1, 1.5, 1])


def test_weight_decays_of_the_fixture():
    plan = make_plan(tensors(FIXTURE), WD, base=0.1, scale=(2 / 3, 5), guard=False)
    assert inner_values(plan) == pytest.approx([0.066667, 0.175, 0.283333, 0.5], abs=5e-7)
    assert plan == make_plan(tensors(FIXTURE), WD, guard=False)


def test_sparsities_of_the_fixture():
    plan = make_plan(blocks(FIXTURE, PARAMS), PRUNE, base=0.7, scale=(0.8, 1.2), guard=False)
    assert values(plan) == pytest.approx([0.550820, 0.619672, 0.688525, 0.826230], abs=5e-7)
    assert plan == make_plan(blocks(FIXTURE, PARAMS), PRUNE, guard=False)


def test_high_sparsities_of_the_fixture_are_capped_and_the_rest_makes_up_for_it():
    plan = make_plan(blocks(FIXTURE, PARAMS), PRUNE, base=0.9, scale=(0.7, 1.3), guard=False)
    assert values(plan) == pytest.approx([0.670423, 0.814085, 0.957746, 1], abs=5e-7)
    assert share(plan) == pytest.approx(0.9, rel=1e-14)


def test_the_original_pruning_rule_exceeds_one():
    plan = make_plan(blocks(FIXTURE, PARAMS), PRUNE, base=0.9, scale=(0.7, 1.3), clip=False, guard=False)
    assert values(plan)[-1] == pytest.approx(1.141, abs=5e-4)
    assert share(plan) == pytest.approx(0.9, rel=1e-14)


def test_experts_of_the_fixture():
    plan = make_plan(blocks(FIXTURE), EXPERTS, base=16, guard=False)
    assert values(plan) == [1, 3, 4, 8]
    assert [entry.factor for entry in plan.entries] == [0.25, 0.75, 1, 2]


@pytest.mark.parametrize(("variant", "curve"), [("sqrt", math.sqrt), ("log2", math.log2)])
def test_the_other_maps_keep_the_mean_learning_rate(variant, curve):
    plan = make_plan(tensors(FIXTURE), LR, variant=variant, guard=False)
    weights = [curve(a) for a in FIXTURE]
    assert inner_values(plan) == pytest.approx([4 * 0.1 * w / sum(weights) for w in weights], rel=1e-14)
    assert plan.scale is None


# The guard


@pytest.mark.parametrize("kind", PlanKind)
def test_too_few_alphas_give_a_uniform_plan_and_a_reason(kind):
    few = [2.0 + i for i in range(MIN_USABLE - 1)]
    rows = tensors(few) if kind in (LR, WD) else blocks(few)
    plan = make_plan(rows, kind)
    assert "too few" in plan.reason
    assert {entry.factor for entry in plan.entries} == {1.0}
    assert make_plan(rows, kind, guard=False).reason is None
    enough = [*few, 9.0]
    assert make_plan(tensors(enough) if kind in (LR, WD) else blocks(enough), kind).reason is None


@pytest.mark.parametrize("kind", PlanKind)
def test_nearly_equal_alphas_give_a_uniform_plan_and_a_reason(kind):
    def with_range(spread):
        alphas = [3.0 + spread * i / 4 for i in range(5)]
        return make_plan(tensors(alphas) if kind in (LR, WD) else blocks(alphas), kind)

    assert "alike" in with_range(MIN_RANGE - 0.01).reason
    assert {entry.factor for entry in with_range(MIN_RANGE - 0.01).entries} == {1.0}
    assert with_range(MIN_RANGE + 0.01).reason is None


def test_the_dropped_matrices_do_not_count_towards_the_guard():
    assert make_plan(tensors([3.0] * 5), LR).reason is not None


@pytest.mark.parametrize("kind", PlanKind)
def test_equal_alphas_are_uniform_even_without_the_guard(kind):
    plan = make_plan(tensors([3.0] * 6) if kind in (LR, WD) else blocks([3.0] * 8), kind, guard=False)
    assert plan.reason == "all alphas are equal"
    assert {entry.factor for entry in plan.entries} == {1.0}


@pytest.mark.parametrize("kind", PlanKind)
def test_a_model_without_any_fit_gets_a_uniform_plan(kind):
    plan = make_plan([row(f"layers.{i}.weight", layer_index=i) for i in range(8)], kind)
    assert plan.reason == "no layer has a usable alpha"
    assert len(plan.entries) == 8
    assert {entry.factor for entry in plan.entries} == {1.0}
    assert make_plan([], kind).entries == ()


def test_a_uniform_experts_plan_gives_out_all_experts():
    assert sorted(values(make_plan(blocks([3.0] * 3), EXPERTS, base=10))) == [3, 3, 4]


# Which rows count, and how


def test_first_last_and_short_spectra_keep_the_base_value_and_set_no_range():
    rows = tensors([2, 2.5, 3, 3.5, 4])
    rows.insert(3, row("layers.6.weight", 50.0, num_evals=MIN_EVALS - 1))
    plan = make_plan(rows, LR)
    notes = {entry.name: entry.note for entry in plan.entries if entry.note}
    assert notes == {
        "conv1.weight": "first matrix",
        "head.weight": "last matrix",
        "layers.6.weight": "fewer than 50 eigenvalues",
    }
    kept = [entry for entry in plan.entries if entry.note]
    assert {(entry.value, entry.factor) for entry in kept} == {(0.1, 1.0)}
    assert [e.factor for e in plan.entries if not e.note] == pytest.approx([0.5, 0.75, 1, 1.25, 1.5])


def test_the_output_is_last_whatever_its_name_and_ten_follows_nine():
    names = ["lm_head.weight", *(f"model.layers.{i}.w.weight" for i in (10, 9, 2, 1, 0))]
    plan = make_plan([row(n, 2.0 + i, is_last=n == "lm_head.weight") for i, n in enumerate(names)], LR)
    assert [entry.name.split(".")[2] for entry in plan.entries[:-1]] == ["0", "1", "2", "9", "10"]
    assert plan.entries[-1].name == "lm_head.weight"


def test_ends_too_small_to_analyse_are_still_the_ends():
    small = {"status": RowStatus.SKIPPED, "status_reason": SkipReason.TOO_SMALL, "num_evals": None}
    body = [row(f"layers.{i}.weight", 2 + 0.5 * i, is_last=i == 4) for i in range(5)]
    ends = [row("conv1.weight", **small), row("classifier.weight", role=Role.CLASSIFIER, **small)]
    plan = make_plan([*ends, *body], LR)
    assert [e.name for e in plan.entries if e.note] == ["conv1.weight", "classifier.weight"]
    assert inner_values(plan) == pytest.approx([0.05, 0.075, 0.1, 0.125, 0.15])


def test_a_broken_matrix_is_neither_pruned_nor_tuned():
    broken = row("layers.3.x.weight", layer_index=3, status=RowStatus.FAILED, num_evals=None)
    assert make_plan([*blocks(range(2, 8)), broken], PRUNE) == make_plan(blocks(range(2, 8)), PRUNE)
    plan = make_plan([*tensors([2, 2.5, 3, 3.5, 4]), broken], LR)
    assert [e.factor for e in plan.entries if e.name == broken.tensor] == [1.0]


def test_a_failed_fit_keeps_the_base_value():
    plan = make_plan([*tensors([2, 2.5, 3, 3.5, 4]), row("layers.7.weight")], LR)
    entry = next(entry for entry in plan.entries if entry.name == "layers.7.weight")
    assert (entry.alpha, entry.factor, entry.note) == (None, 1.0, "no alpha_hill")


@pytest.mark.parametrize("kind", PlanKind)
@pytest.mark.parametrize(
    "more",
    [
        {"role": Role.EMBED},
        {"role": Role.POS_EMBED},
        {"role": Role.LORA},
        {"status": RowStatus.SKIPPED, "status_reason": SkipReason.DUPLICATE_TIED},
        {"status": RowStatus.SKIPPED, "status_reason": SkipReason.NOT_A_MATRIX},
    ],
)
def test_embeddings_adapters_duplicates_and_vectors_are_in_no_plan(kind, more):
    rows = [row(f"layers.{i}.w.weight", 2.0 + i, layer_index=i) for i in range(8)]
    with_more = [*rows, row("layers.3.x.weight", 99.0, layer_index=3, **more)]
    assert make_plan(with_more, kind) == make_plan(rows, kind)


def test_the_experts_of_a_stacked_tensor_share_one_learning_rate():
    stack = [row("layers.9.experts", 2.0 + e, expert_id=e) for e in range(3)]
    plan = make_plan([*tensors([2, 2.5, 3, 3.5, 4]), *stack], LR)
    entries = [entry for entry in plan.entries if entry.name == "layers.9.experts"]
    assert [(e.alpha, e.params, e.factor) for e in entries] == [(3.0, 18000, pytest.approx(1.0))]


def test_a_block_has_the_mean_alpha_and_all_parameters_of_its_matrices():
    rows = blocks([2, 3, 4, 5, 6])
    rows += [row("layers.0.v.weight", 4.0, layer_index=0, kernel_size=9)]
    first = make_plan(rows, PRUNE).entries[0]
    assert (first.name, first.alpha, first.params) == ("layers.0", 3.0, 6000 + 9 * 6000)
    assert first.tensors == ("layers.0.w.weight", "layers.0.v.weight")


def test_encoder_and_decoder_have_blocks_of_their_own():
    rows = [
        row(f"{side}.block.{i}.w.weight", 2 + i, layer_index=i)
        for side in ("encoder", "decoder")
        for i in range(3)
    ]
    names = [entry.name for entry in make_plan(rows, EXPERTS).entries]
    assert names == [f"{side}.block.{i}" for side in ("decoder", "encoder") for i in range(3)]


def test_a_matrix_too_large_to_analyse_is_pruned_as_its_block():
    large = row(
        "layers.1.large.weight",
        layer_index=1,
        status=RowStatus.SKIPPED,
        status_reason=SkipReason.TOO_LARGE,
        N=90_000,
    )
    plan = make_plan([*blocks(range(2, 9)), large], PRUNE)
    assert "layers.1.large.weight" in plan.entries[1].tensors
    assert plan.entries[1].params == 6000 + 90_000 * 60
    assert share(plan) == pytest.approx(0.7, rel=1e-14)


def test_a_block_without_an_alpha_takes_the_even_share():
    rows = [*blocks([2, 3, 4, 5, 6]), row("layers.5.w.weight", layer_index=5)]
    pruning, experts = make_plan(rows, PRUNE), make_plan(rows, EXPERTS, base=60)
    assert (pruning.entries[5].value, pruning.entries[5].note) == (0.7, "no alpha_peak_compat")
    assert share(pruning) == pytest.approx(0.7, rel=1e-14)
    assert experts.entries[5].value == 10
    assert sum(values(experts)) == 60


def test_heads_and_matrices_outside_the_blocks_are_not_pruned():
    rows = [*blocks(range(2, 8)), row("pooler.weight", 3.0), row("h.0.weight", 3.0, role=Role.LM_HEAD)]
    assert make_plan(rows, PRUNE) == make_plan(blocks(range(2, 8)), PRUNE)


# What was asked


@pytest.mark.parametrize("kind", PlanKind)
def test_defaults_are_the_published_ones_and_the_plan_names_its_source(kind):
    plan = make_plan([], kind)
    rule = PUBLISHED[kind]
    assert (plan.base, plan.scale, plan.alpha, plan.beta) == (rule.base, rule.scale, rule.alpha, rule.beta)
    assert plan.source == rule.source


def test_the_alpha_column_is_the_one_asked_for():
    rows = [row(f"layers.{i}.weight", 2.0 + i, alpha_hill=9.0 - i) for i in range(8)]
    rising, falling = make_plan(rows, LR, alpha="alpha"), make_plan(rows, LR)
    assert inner_values(rising) == pytest.approx(inner_values(falling)[::-1])


def test_a_column_that_was_not_computed_names_those_that_were():
    rows = [row(f"layers.{i}.w.weight", 2.0 + i, layer_index=i, alpha_peak_compat=None) for i in range(8)]
    with pytest.raises(UsageError, match=r"alpha_peak_compat .* take alpha_hill or alpha instead"):
        make_plan(rows, PRUNE)
    assert make_plan(rows, PRUNE, alpha="alpha_hill").reason is None


def test_sub_models_are_planned_one_at_a_time():
    rows = [row("a.weight", 2.0, component="unet"), row("a.weight", 3.0, component="vae")]
    with pytest.raises(ConfigError, match="unet, vae"):
        make_plan(rows, LR)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LR, {"beta": 2.0}),
        (LR, {"clip": False}),
        (LR, {"variant": "sqrt", "scale": (0.5, 1.5)}),
        (LR, {"variant": "cube"}),
        (LR, {"alpha": "alpha_trunc"}),
        (LR, {"base": 0.0}),
        (LR, {"base": math.nan}),
        (LR, {"base": math.inf}),
        (WD, {"scale": (2.0, 1.0)}),
        (WD, {"scale": (0.0, 1.0)}),
        (WD, {"scale": (1.0, math.inf)}),
        (PRUNE, {"base": 1.5}),
        (PRUNE, {"variant": "sqrt"}),
        (EXPERTS, {"scale": (0.5, 1.5)}),
        (EXPERTS, {"base": 10.5}),
        (EXPERTS, {"base": math.inf}),
        (EXPERTS, {"beta": 0.0}),
    ],
)
def test_options_that_make_no_sense_are_refused(kind, options):
    with pytest.raises(ConfigError):
        make_plan(blocks([2, 3, 4, 5, 6]), kind, **options)


# What always holds

ALPHAS = st.lists(st.integers(1010, 50_000).map(lambda n: n / 1000), min_size=1, max_size=40)


def rising(found, alphas):
    pairs = sorted(zip(alphas, found, strict=True))
    return all(y1 <= y2 + 1e-12 for (x1, y1), (x2, y2) in pairwise(pairs) if x1 < x2)


@given(
    ALPHAS,
    st.sampled_from([LR, WD]),
    st.sampled_from(["linear", "sqrt", "log2"]),
    st.floats(1e-6, 10),
    st.booleans(),
)
def test_rates_and_decays_rise_with_alpha(alphas, kind, variant, base, guard):
    plan = make_plan(tensors(alphas), kind, variant=variant, base=base, guard=guard)
    assert rising(inner_values(plan), alphas)
    if variant == "linear":
        low, high = PUBLISHED[kind].scale
        assert all(low - 1e-12 <= entry.factor <= high + 1e-12 for entry in plan.entries)
    else:
        assert sum(e.factor for e in plan.entries[1:-1]) == pytest.approx(len(alphas))


@given(st.data(), ALPHAS, st.floats(0.01, 1), st.floats(0, 0.99), st.booleans(), st.booleans())
def test_pruning_keeps_the_total_and_rises_with_alpha(data, alphas, base, eps, clip, guard):
    params = data.draw(st.lists(st.integers(1, 10**9), min_size=len(alphas), max_size=len(alphas)))
    plan = make_plan(
        blocks(alphas, params), PRUNE, base=base, scale=(1 - eps, 1 + eps), clip=clip, guard=guard
    )
    assert share(plan) == pytest.approx(base, rel=1e-9)
    assert rising(values(plan), alphas)
    assert all(value > 0 for value in values(plan))
    if clip:
        assert all(value <= 1 for value in values(plan))


@given(ALPHAS, st.integers(1, 5000), st.floats(0.1, 50), st.booleans())
def test_experts_add_up_and_rise_with_alpha(alphas, total, beta, guard):
    plan = make_plan(blocks(alphas), EXPERTS, base=total, beta=beta, guard=guard)
    assert sum(values(plan)) == total
    assert all(isinstance(value, int) and value >= 0 for value in values(plan))
    if not plan.reason:
        assert rising(values(plan), alphas)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50), st.integers(0, 10_000))
def test_rounded_shares_add_up_and_are_the_share_rounded_up_or_down(weights, total):
    counts = largest_remainder(weights, total)
    assert sum(counts) == total
    assert all(
        abs(count - total * weight / sum(weights)) < 1 + 1e-9
        for count, weight in zip(counts, weights, strict=True)
    )


def test_equal_remainders_go_to_the_larger_weight_and_then_to_the_earlier():
    assert largest_remainder([1, 1, 1], 4) == [2, 1, 1]
    assert largest_remainder([1, 3], 2) == [0, 2]
