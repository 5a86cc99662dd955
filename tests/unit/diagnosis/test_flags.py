"""Every rule below, at and above its threshold, and the silence of blocks that failed."""

from dataclasses import replace

import numpy as np
import pytest
from nouns import ROW

from scanner.api import scan
from scanner.diagnosis.flags import judge, layer_findings, model_findings
from schemas.config import TRUNCATED_ESTIMATOR, Thresholds
from schemas.results import FlagKind, Phase

LIMITS = Thresholds()
SOUND = replace(
    ROW,
    N=1000,
    M=1000,
    kernel_size=1,
    num_evals=1000,
    norm=1.0,
    log_spectral_norm=0.0,
    rank0_frac=0.0,
    fit_status="ok",
    alpha=3.0,
    alpha_stderr=0.1,
    alpha_trunc=2.9,
    D_ks=0.05,
    n_tail=100,
    tail_decades=1.0,
    bulk_status="ok",
    mp_softrank=0.1,
    phase=Phase.HEAVY_TAILED,
)


def kinds(**changes):
    return {flag.kind.value for flag in layer_findings(replace(SOUND, **changes), LIMITS)}


def test_a_sound_layer_has_no_findings():
    assert kinds() == set()


WEAK = {"fit_unreliable"}
STEEP = {"alpha": 7.0, "alpha_trunc": 7.0}
LOW = {"alpha": 1.5, "alpha_trunc": 1.5}
FITTED = {"null_status": "off", "phase": Phase.HEAVY_TAILED}

RULES = {
    "D_ks at most .1": ({"D_ks": 0.1}, {"D_ks": 0.1001}, WEAK),
    "n_tail at least 3 % of num_evals": ({"n_tail": 30}, {"n_tail": 29}, WEAK),
    "n_tail at least 20": ({"n_tail": 20, "num_evals": 100}, {"n_tail": 19, "num_evals": 100}, WEAK),
    "tail_decades at least .3": ({"tail_decades": 0.3}, {"tail_decades": 0.2999}, WEAK),
    "alpha at most 1 above alpha_trunc": (
        {"alpha": 4.0, "alpha_trunc": 3.0},
        {"alpha": 4.01, "alpha_trunc": 3.0},
        WEAK,
    ),
    "no alpha_trunc, no excess": ({"alpha_trunc": None}, {"alpha_trunc": 1.9}, WEAK),
    "under_trained above 6": (
        {"alpha": 6.0, "alpha_trunc": 6.0},
        {"alpha": 6.01, "alpha_trunc": 6.0},
        {"under_trained"},
    ),
    "no_tail above 6": (
        {"alpha": 6.0, "alpha_trunc": 4.9},
        {"alpha": 6.01, "alpha_trunc": 4.9},
        WEAK | {"no_tail"},
    ),
    "under_trained only if reliable": (STEEP | {"D_ks": 0.2}, STEEP, {"under_trained"}),
    "no_tail only if not": (STEEP, STEEP | {"D_ks": 0.2}, WEAK | {"no_tail"}),
    "over_trained by two standard errors": (
        {"alpha": 1.75, "alpha_stderr": 0.125, "alpha_trunc": 1.7},
        {"alpha": 1.74, "alpha_stderr": 0.125, "alpha_trunc": 1.7},
        {"over_trained"},
    ),
    "over_trained only if reliable": (LOW | {"D_ks": 0.2}, LOW, {"over_trained"}),
    "well_trained from 2": (
        FITTED | {"alpha": 1.9999, "alpha_trunc": 2.0},
        FITTED | {"alpha": 2.0, "alpha_trunc": 2.0},
        {"well_trained"},
    ),
    "well_trained to 4": (
        FITTED | {"alpha": 4.0001, "alpha_trunc": 4.0},
        FITTED | {"alpha": 4.0, "alpha_trunc": 4.0},
        {"well_trained"},
    ),
    "well_trained only if reliable": (FITTED | {"D_ks": 0.2}, FITTED, {"well_trained"}),
    "well_trained in the phase of decay": (
        FITTED | {"phase": Phase.BULK_SPIKES},
        FITTED | {"phase": Phase.BULK_DECAY},
        {"well_trained"},
    ),
    "well_trained not while bleeding out": (FITTED | {"phase": Phase.BLEEDING_OUT}, FITTED, {"well_trained"}),
    "well_trained not undecided": (FITTED | {"phase": Phase.UNDECIDED}, FITTED, {"well_trained"}),
    "well_trained without traps": (
        FITTED | {"null_status": "failed", "num_traps": None},
        FITTED | {"null_status": "ok", "num_traps": 0},
        {"well_trained"},
    ),
    "well_trained whatever a null that is off says": (
        FITTED | {"null_status": "too_small", "num_traps": 0},
        FITTED | {"null_status": "off", "num_traps": 3},
        {"well_trained"},
    ),
    "random_like": ({"phase": Phase.BLEEDING_OUT}, {"phase": Phase.RANDOM_LIKE}, {"random_like"}),
    "rank_collapse from 5 %": ({"rank0_frac": 0.0499}, {"rank0_frac": 0.05}, {"rank_collapse"}),
    "rank_collapse unless quantised": (
        {"rank0_frac": 0.05, "quant_method": "gptq"},
        {"rank0_frac": 0.05, "quant_method": None},
        {"rank_collapse"},
    ),
    "correlation_trap by the mean": (
        {"null_status": "ok", "num_traps": 0},
        {"null_status": "ok", "num_traps": 1, "trap_cause": "mean", "w_mean": 0.3},
        {"correlation_trap"},
    ),
    "correlation_trap by the elements": (
        {"null_status": "off", "num_traps": 1, "phase": Phase.BULK_SPIKES},
        {"null_status": "ok", "num_traps": 1, "trap_cause": "elements", "w_mean": 0.0},
        {"correlation_trap"},
    ),
    "erg_violated below 0": (
        {"alpha": 1.99, "erg_dlambda": 0.0},
        {"alpha": 1.99, "erg_dlambda": -0.1},
        {"erg_violated"},
    ),
    "erg_violated below 2": (
        {"alpha": 2.0, "erg_dlambda": -0.1},
        {"alpha": 1.99, "erg_dlambda": -0.1},
        {"erg_violated"},
    ),
    "erg_violated without a crossing": (
        {"alpha": 1.99, "erg_dlambda": None},
        {"alpha": 1.99, "erg_dlambda": -0.1, "erg_gap": -3},
        {"erg_violated"},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_on_both_sides_of_each_clause(rule):
    outside, inside, found = RULES[rule]
    assert not kinds(**outside) & (found - WEAK or found)
    assert kinds(**inside) == found


@pytest.mark.parametrize("change", [{"D_ks": 0.2}, STEEP, LOW | {"erg_dlambda": -0.1, "erg_gap": -3}, {}])
def test_no_verdict_from_a_tail_cut_at_xmax(change):
    assert kinds(**FITTED | change)
    assert kinds(**FITTED | change, estimator=TRUNCATED_ESTIMATOR) == set()


@pytest.mark.parametrize("fingers", [0, 3, 9])
def test_fingers_alone_are_no_finding(fingers):
    assert kinds(num_fingers=fingers, alpha_clipped=1.5) == set()


def test_every_sentence_names_its_evidence_with_numbers():
    changes = [inside for _, inside, _ in RULES.values()]
    flags = [flag for change in changes for flag in layer_findings(replace(SOUND, **change), LIMITS)]
    assert {flag.kind for flag in flags} >= {
        FlagKind(kind) for _, _, found in RULES.values() for kind in found
    }
    for flag in flags:
        assert any(char.isdigit() for char in flag.sentence), flag
        assert "None" not in flag.sentence


NO_FIT = {"fit_status": "no_candidate", "alpha": None, "alpha_stderr": None}


@pytest.mark.parametrize(
    "changes",
    [
        NO_FIT | {"D_ks": 0.5, "n_tail": 1, "tail_decades": 0.0},
        {"fit_status": "constant", "alpha": 9.0},
        {"bulk_status": "no_bulk", "phase": Phase.RANDOM_LIKE},
        {"bulk_status": "no_bulk", "phase": Phase.HEAVY_TAILED, "null_status": "off"},
        NO_FIT | {"alpha": 3.0, "alpha_stderr": 0.1, "null_status": "off"},
        NO_FIT | {"alpha": 7.0, "alpha_stderr": 0.1, "alpha_trunc": 7.0},
        {"null_status": "off", "num_traps": 3, "phase": Phase.BULK_SPIKES},
        {"null_status": "failed", "num_traps": 3},
        NO_FIT | {"alpha": 1.5, "erg_dlambda": -1.0},
        {"status": "skipped", "alpha": 9.0},
        {"status": "failed", "status_reason": "read_error", "alpha": 9.0},
    ],
)
def test_a_failed_block_raises_no_flag(changes):
    assert kinds(**changes) == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"null_status": "ok", "num_traps": 1, "trap_cause": "mean", "w_mean": None},
        {"null_status": "ok", "num_traps": 1, "trap_cause": "elements", "w_mean": None},
        STEEP | {"alpha_stderr": None},
        STEEP | {"D_ks": 0.2, "tail_decades": None},
    ],
)
def test_no_finding_without_the_number_that_its_sentence_needs(changes):
    """Rows of another version, or a table of one's own, may lack it."""
    assert kinds(**changes) == set()


def test_every_weakness_is_one_flag_with_the_first_reason():
    weak = replace(SOUND, D_ks=0.3, n_tail=5, tail_decades=0.1)
    (flag,) = layer_findings(weak, LIMITS)
    assert (flag.kind, flag.value, flag.threshold) == (FlagKind.FIT_UNRELIABLE, 0.3, 0.1)
    assert "0.300" in flag.sentence


def test_evidence_travels_with_the_flag():
    (flag,) = layer_findings(replace(SOUND, alpha=7.5, alpha_trunc=7.0), LIMITS)
    assert (flag.kind, flag.value, flag.threshold) == (FlagKind.UNDER_TRAINED, 7.5, 6.0)


def test_thresholds_come_from_the_config():
    limits = Thresholds(under_trained_alpha=2.0)
    assert [flag.kind for flag in layer_findings(SOUND, limits)] == [FlagKind.UNDER_TRAINED]


def test_zeros_and_nonfinite_entries():
    (zero,) = layer_findings(replace(ROW, status_reason="zero_matrix"), LIMITS)
    broken = replace(ROW, status="failed", status_reason="nonfinite", num_nonfinite=3)
    (nonfinite,) = layer_findings(broken, LIMITS)
    assert zero.kind is FlagKind.ZERO_MATRIX
    assert (nonfinite.kind, nonfinite.value) == (FlagKind.NONFINITE, 3.0)


def siblings(logs, **changes):
    return judge([replace(SOUND, log_spectral_norm=log, **changes) for log in logs], LIMITS)


@pytest.mark.parametrize(
    ("logs", "outliers"),
    [
        ([0.0] * 11 + [0.99], 0),
        ([0.0] * 11 + [1.0], 1),
        ([0.0] * 11 + [-1.0], 1),
        ([0.0, 0.2] * 5 + [0.1, 1.2], 1),
        ([0.0, 0.3] * 5 + [0.15, 1.4], 0),
        ([0.0, 1.0] * 5 + [0.5, 2.74], 0),
        ([0.0, 1.0] * 5 + [0.5, 2.76], 1),
        ([0.0] * 5 + [9.0], 1),
        ([0.0] * 4 + [9.0], 0),
        ([0.0] * 4 + [9.0, None], 0),
    ],
)
def test_scale_outliers(logs, outliers):
    rows = siblings(logs)
    assert sum("scale_outlier" in row.flags for row in rows) == outliers


def test_the_deviation_and_its_evidence_are_stored():
    rows = siblings([1.0] * 6 + [-2.0])
    assert [row.scale_dev for row in rows] == [0.0] * 6 + [-3.0]
    assert {row.scale_peers for row in rows} == {7}
    (flag,) = rows[-1].findings
    assert (flag.kind, flag.value, flag.threshold) == (FlagKind.SCALE_OUTLIER, -3.0, 1.0)
    assert "10^3.0 below" in flag.sentence
    assert rows[-1].flags == ("scale_outlier",)


@pytest.mark.parametrize("change", [{"N": 999}, {"role": "k"}, {"kernel_size": 9}, {"component": "vae"}])
def test_only_alike_rows_are_siblings(change):
    rows = judge(
        [replace(SOUND, log_spectral_norm=0.0) for _ in range(5)] + [replace(SOUND, **change)], LIMITS
    )
    assert {row.scale_dev for row in rows} == {None}
    assert {row.scale_peers for row in rows} == {None}


def test_judging_keeps_rows_and_their_order():
    rows = [replace(SOUND, tensor=f"t{i}", matrix_index=i, alpha=7.0, alpha_trunc=7.0) for i in range(4)]
    assert [row.tensor for row in judge(rows, LIMITS)] == ["t0", "t1", "t2", "t3"]
    assert judge([], LIMITS) == ()


@pytest.mark.parametrize(("factor", "deviation"), [(1e-4, -8.0), (10**-0.4, -0.8)])
def test_one_layer_of_twelve_scaled(factor, deviation):
    rng = np.random.default_rng(0)
    state = {f"layers.{i}.q_proj.weight": rng.standard_normal((64, 64)) for i in range(12)}
    plain = list(scan(state))
    state["layers.5.q_proj.weight"] = state["layers.5.q_proj.weight"] * factor
    rows = list(scan(state))
    assert rows[5].scale_dev == pytest.approx(deviation, abs=0.1)
    flagged = [row.layer_index for row in rows if "scale_outlier" in row.flags]
    assert flagged == ([5] if deviation < -1 else [])
    for row, before in zip(rows, plain, strict=True):
        assert row.alpha == pytest.approx(before.alpha, rel=1e-9)


def model(softranks, random):
    rows = [replace(SOUND, mp_softrank=value) for value in softranks]
    return model_findings(
        [
            replace(row, phase=Phase.RANDOM_LIKE if i < random else Phase.BULK_DECAY)
            for i, row in enumerate(rows)
        ],
        LIMITS,
    )


@pytest.mark.parametrize(
    ("softranks", "random", "found"),
    [
        ([0.75] * 6, 2, True),
        ([0.749] * 6, 2, False),
        ([0.75] * 6, 1, False),
        ([1.0] * 4, 4, True),
        ([1.0] * 3, 3, False),
        ([1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1], 7, False),
    ],
)
def test_untrained_models(softranks, random, found):
    flags = model(softranks, random)
    assert [flag.kind for flag in flags] == [FlagKind.UNTRAINED_LIKE] * found


def test_untrained_counts_only_rows_with_a_bulk():
    rows = [replace(SOUND, mp_softrank=1.0, phase=Phase.RANDOM_LIKE) for _ in range(3)]
    rows += [replace(SOUND, bulk_status="too_small", mp_softrank=None, phase=Phase.UNDECIDED)] * 10
    assert model_findings(rows, LIMITS) == ()


def test_untrained_names_the_layers_that_are_not_counted():
    rows = [replace(SOUND, mp_softrank=1.0, phase=Phase.RANDOM_LIKE) for _ in range(4)]
    failed = replace(ROW, status="failed", status_reason="nonfinite")
    assert model_findings(rows, LIMITS)[0].sentence.endswith("the model looks untrained")
    assert "; 2 that failed or are beyond" in model_findings([*rows, failed, failed], LIMITS)[0].sentence


def test_the_soft_rank_of_a_random_layer_is_held_against_that_at_the_edge_of_noise():
    """Noise with one eigenvalue pulled just inside the edge, and just beyond it."""
    noise = np.linalg.svd(np.random.default_rng(3).standard_normal((400, 200)), full_matrices=False)
    edge = next(iter(scan({"a.weight": (noise[0] * noise[1]) @ noise[2]}))).lambda_edge
    for factor in (0.999, 1.001):
        values = np.append(np.sqrt(edge * factor), noise[1][1:])
        row = next(iter(scan({"a.weight": (noise[0] * values) @ noise[2]})))
        assert row.num_spikes == (factor > 1)
        at_edge = row.lambda_plus / row.lambda_edge
        assert (row.mp_softrank >= at_edge) is (row.num_spikes == 0)
        flags = [flag for flag in row.findings if flag.kind == FlagKind.RANDOM_LIKE]
        assert [flag.threshold for flag in flags] == [at_edge] * (factor < 1)
        assert all(flag.value >= flag.threshold for flag in flags)
