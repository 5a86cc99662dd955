"""Findings about pairs: each rule at and beyond its threshold, and the silence of rows that are none."""

from dataclasses import replace

import numpy as np
import pytest
from nouns import ROW

from scanner.diagnosis.flags import judge, model_findings
from scanner.diagnosis.pairs import scale_changes
from schemas.config import Thresholds

LIMITS = Thresholds()
PAIR = replace(
    ROW,
    norm=1.0,
    w_mean=0.0,
    fit_status="ok",
    alpha=3.0,
    alpha_stderr=0.01,
    base_status="ok",
    rel_delta=0.1,
    d_log_spectral_norm=0.0,
    d_alpha=0.0,
    subspace_overlap10=1.0,
)


def found(*rows):
    return [
        [flag for flag in row.findings if flag.kind.startswith(("ft", "scale_c"))]
        for row in judge(rows, LIMITS)
    ]


def kinds(**changes):
    return [flag.kind.value for flag in found(replace(PAIR, **changes))[0]]


def of_model(*rows):
    return {flag.kind.value: flag for flag in model_findings(judge(rows, LIMITS), LIMITS)}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"rel_delta": 0.5, "subspace_overlap10": 0.79}, 1),
        ({"rel_delta": 0.499, "subspace_overlap10": 0.1}, 0),
        ({"rel_delta": 0.9, "subspace_overlap10": 0.8}, 0),
        ({"rel_delta": 0.9, "subspace_overlap10": None}, 0),
        ({"d_log_spectral_norm": 0.3}, 1),
        ({"d_log_spectral_norm": 0.299}, 0),
        ({"d_log_spectral_norm": -2.0}, 0),
        ({"null_status": "ok", "num_traps": 2, "d_num_traps": 1}, 1),
        ({"null_status": "ok", "num_traps": 2, "d_num_traps": 0}, 0),
        ({"null_status": "ok", "num_traps": 2, "d_num_traps": None}, 0),
        ({"null_status": "off", "d_num_traps": 1}, 0),
        ({"d_alpha": -0.5, "alpha": 1.99}, 1),
        ({"d_alpha": -0.499, "alpha": 1.99}, 0),
        ({"d_alpha": -1.5, "alpha": 2.0}, 0),
        ({"d_alpha": -1.5, "alpha": 1.5, "fit_status": "failed"}, 0),
        ({"rel_delta": 2.0, "subspace_overlap10": 0.1, "d_log_spectral_norm": 1.0}, 2),
        ({"rel_delta": 2.0, "subspace_overlap10": 0.1, "base_status": "failed"}, 0),
    ],
)
def test_each_sign_of_an_unstable_run_is_a_sentence_of_its_own(changes, count):
    assert kinds(**changes) == ["ft_unstable"] * count


def test_a_kind_is_listed_once_however_many_its_sentences():
    row = judge([replace(PAIR, d_log_spectral_norm=1.0, rel_delta=2.0, subspace_overlap10=0.1)], LIMITS)[0]
    assert row.flags.count("ft_unstable") == 1
    sentences = [flag.sentence for flag in row.findings if flag.kind == "ft_unstable"]
    assert sentences == [
        "the change is 2.00 of the base's norm and only 0.10 of its leading directions are left",
        "lambda_max grew by a factor of 10.0 against the base",
    ]


def model(*changes, **more):
    return [
        replace(PAIR, d_log_spectral_norm=change, matrix_index=i, **more) for i, change in enumerate(changes)
    ]


def test_z_is_the_robust_deviation_from_the_model_s_other_changes():
    changes = np.array([0.01, -0.02, 0.03, 0.0, -2.0, 0.02])
    deviations = changes - np.median(changes)
    expected = deviations / (1.4826 * np.median(np.abs(deviations)) + 0.02)
    assert scale_changes(model(*changes)) == pytest.approx(dict(enumerate(expected)))
    assert [row.scale_change_z for row in judge(model(*changes), LIMITS)] == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("changes", "collapsed"),
    [
        ([0, 0, 0, -2.0], [3]),
        ([0, 0, 0, -0.5], [3]),
        ([0, 0, 0, -0.499], []),
        ([0, 0, 0, 0, 2.0, -2.0], [4, 5]),
        ([0, 0, 2.0, -2.0], []),
        ([0.3, -0.3, 0.2, -0.2, 0.6], []),
        ([-2.0], []),
        ([0, -2.0], []),
    ],
)
def test_a_scale_collapses_alone(changes, collapsed):
    flagged = found(*model(*changes))
    assert [
        i for i, flags in enumerate(flagged) if any(f.kind == "scale_collapse" for f in flags)
    ] == collapsed
    assert "scale_shift" not in of_model(*model(*changes)) or len(changes) == 1


def test_when_most_scales_change_the_model_was_rescaled_and_no_layer_collapsed():
    rows = model(-1.0, -1.0, -1.0, 0.0, -9.0)
    assert not any(flag.kind == "scale_collapse" for flags in found(*rows) for flag in flags)
    flag = of_model(*rows)["scale_shift"]
    assert (flag.value, flag.threshold) == (-1.0, 0.5)
    assert (
        "80% of 5 layers changed lambda_max by a factor of 10^0.5 or more (median 10^-1.0)" in flag.sentence
    )


def test_sub_models_are_scaled_by_themselves():
    text = model(0, 0, 0, 0, component="text")
    image = model(-1, -1, -1, -1, component="image")
    flagged = judge([*text, *image], LIMITS)
    assert not any("scale_collapse" in row.flags for row in flagged)
    assert "scale_shift" in of_model(*image)
    assert "scale_shift" not in of_model(*text)


def test_rows_of_the_base_s_own_file_are_pairs_that_did_not_change():
    same = [replace(PAIR, base_status="same_file", rel_delta=None, d_log_spectral_norm=None)] * 3
    judged = judge([*same, *model(-2.0)], LIMITS)
    assert [row.scale_change_z for row in judged] == [None, None, None, pytest.approx(-100)]
    assert "scale_collapse" in judged[3].flags


@pytest.mark.parametrize(
    ("deltas", "noop"), [([0.0, 0.0], True), ([0.0, 0.99e-4], True), ([0.0, 1e-4], False), ([], False)]
)
def test_a_fine_tune_without_a_change_says_so(deltas, noop):
    rows = [replace(PAIR, rel_delta=delta) for delta in deltas]
    unpaired = [replace(PAIR, base_status="no_match", rel_delta=None, d_log_spectral_norm=None)]
    assert ("ft_noop" in of_model(*rows, *unpaired)) is noop


def test_a_copy_of_the_base_s_file_is_a_fine_tune_without_a_change():
    same = replace(PAIR, base_status="same_file", rel_delta=None, d_log_spectral_norm=None)
    flag = of_model(same, same)["ft_noop"]
    assert (flag.value, flag.threshold) == (0.0, 1e-4)
    assert "all 2 matrices with a counterpart are unchanged" in flag.sentence
    assert "ft_noop" not in of_model(same, replace(PAIR, rel_delta=0.3))


@pytest.mark.parametrize(
    "unknown",
    [
        {"status": "failed", "status_reason": "nonfinite", "base_status": None},
        {"status": "skipped", "status_reason": "too_large", "base_status": None},
        {"status": "skipped", "status_reason": "unsupported_dtype", "base_status": None},
        {"base_status": "failed"},
        {"base_status": "ok", "norm": 1.0},
    ],
    ids=["failed", "too_large", "unsupported", "base failed", "from zero"],
)
def test_a_matrix_that_was_not_compared_may_be_the_one_that_changed(unknown):
    same = replace(PAIR, rel_delta=0.0)
    missing = replace(PAIR, rel_delta=None, d_log_spectral_norm=None)
    assert "ft_noop" not in of_model(same, same, replace(missing, **unknown))


def test_zero_stays_zero_and_what_is_too_small_is_named():
    same = replace(PAIR, rel_delta=0.0)
    zero = replace(PAIR, rel_delta=None, d_log_spectral_norm=None, norm=None)
    small = replace(zero, status="skipped", status_reason="too_small", base_status=None)
    vector = replace(small, status_reason="not_a_matrix")
    sentence = of_model(same, zero, small, vector)["ft_noop"].sentence
    assert "all 2 matrices with a counterpart are unchanged" in sentence
    assert "1 too small to compare" in sentence


def test_a_model_of_which_a_file_is_missing_is_no_reupload():
    rows = [replace(PAIR, rel_delta=0.0)] * 3
    assert [flag.kind for flag in model_findings(rows, LIMITS)] == ["ft_noop"]
    assert model_findings(rows, LIMITS, whole=False) == ()


def test_layers_that_failed_count_against_a_rescaled_model():
    moved = model(-1.0, -1.0, -1.0, 0.0)
    failed = replace(PAIR, status="failed", base_status=None, d_log_spectral_norm=None)
    assert "60% of 5 layers" in of_model(*moved, failed)["scale_shift"].sentence
    assert "scale_shift" not in of_model(*moved, failed, failed)


def test_a_quantised_model_is_no_reupload_for_its_unpacked_embeddings():
    packed = replace(PAIR, status="skipped", base_status=None, rel_delta=None, quant_method="gptq")
    same = replace(PAIR, rel_delta=0.0)
    assert "ft_noop" in of_model(same)
    assert "ft_noop" not in of_model(same, packed)


@pytest.mark.parametrize("status", ["no_base", "no_match", "shape_mismatch", "off", "failed", None])
def test_rows_without_a_pair_say_nothing(status):
    row = replace(PAIR, base_status=status, rel_delta=None, d_log_spectral_norm=None, subspace_overlap10=None)
    assert found(row) == [[]]
    assert of_model(row) == {}
