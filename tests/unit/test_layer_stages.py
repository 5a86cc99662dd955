"""The optional stages: each fills its own columns where it is asked for, and nothing where it is not."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from scanner.api import scan
from schemas.config import ScanConfig, Stages, profile_config
from schemas.rows import LayerMetrics

COLUMNS = {
    "erg": ("erg_num", "erg_lambda", "erg_gap", "erg_dlambda"),
    "alternatives": ("llr_exp", "llr_sexp", "llr_logn", "llr_tpl", "best_dist"),
    "estimators": ("alpha_peak", "alpha_peak_compat", "alpha_clipped", "num_fingers", "alpha_farms"),
    "null_model": ("rand_seed", "rand_lambda_max", "rand_distance", "num_traps"),
    "bootstrap": ("p_boot", "boot_reps", "alpha_boot_stderr"),
    "quantiles": ("esd_quantiles",),
    "vectors": ("vec_entropy_tail", "vec_entropy_bulk"),
}
OFF = Stages(erg=False)


def row(stages: Stages) -> LayerMetrics:
    weights = np.random.default_rng(5).standard_t(3, (200, 120)).astype("f4")
    [found] = scan({"layers.0.up_proj.weight": weights}, config=replace(ScanConfig(), stages=stages))
    return found


@pytest.mark.parametrize("stage", COLUMNS)
def test_a_stage_fills_its_columns_and_no_others(stage: str) -> None:
    on = asdict(row(replace(OFF, **{stage: 20 if stage == "bootstrap" else True})))
    off = asdict(row(OFF))
    changed = {name for name in on if on[name] != off[name]} - {"secs", "config_fingerprint"}
    assert set(COLUMNS[stage]) <= changed
    others = {name for key, names in COLUMNS.items() if key != stage for name in names}
    assert not changed & others


def test_statuses_say_what_was_off() -> None:
    assert (row(OFF).alt_status, row(OFF).null_status) == ("off", "off")
    full = row(profile_config("full").stages)
    assert (full.alt_status, full.null_status, full.boot_reps) == ("ok", "ok", 200)


def test_the_quantiles_span_the_spectrum() -> None:
    found = row(replace(OFF, quantiles=True))
    assert len(found.esd_quantiles) == 129
    assert list(found.esd_quantiles) == sorted(found.esd_quantiles)
    assert found.esd_quantiles[-1] == pytest.approx(found.log_spectral_norm, rel=1e-12)


def test_the_bootstrap_error_of_alpha_includes_the_choice_of_xmin() -> None:
    found = row(replace(OFF, bootstrap=100))
    assert found.alpha_boot_stderr > found.alpha_stderr


def test_random_stages_depend_on_the_seed_and_the_place_only() -> None:
    stages = replace(OFF, null_model=True, bootstrap=50)
    first, again, other = row(stages), row(stages), row(replace(stages, seed=1))
    assert (first.p_boot, first.rand_lambda_max) == (again.p_boot, again.rand_lambda_max)
    assert first.rand_lambda_max != other.rand_lambda_max
