"""Every column explains itself, and the models view gives exactly what its row class declares."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from jobs.lake.leaderboard import SQL_VIEWS, TABLE_VIEWS, ask, connect
from jobs.lake.store import Store
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.memory import MemorySource
from schemas.columns import NEVER, columns
from schemas.config import MatrixRules, ScanConfig, WorkLimits
from schemas.tables import SCHEMAS, TABLES, to_table

COLUMNS = [(table, name) for table, row in TABLES.items() for name in columns(row)]


@pytest.mark.parametrize(("table", "name"), COLUMNS, ids="/".join)
def test_a_column_has_a_unit_and_a_meaning_of_null(table, name):
    about = columns(TABLES[table])[name]
    assert about["unit"].strip()
    assert about["null"].strip()


def test_the_overlap_says_of_which_orientation_it_is():
    assert "W_NM" in columns(TABLES["layers"])["subspace_overlap10"]["unit"]


def test_row_classes_explain_themselves():
    for row in TABLES.values():
        assert row.__doc__


def state():
    rng = np.random.default_rng(0)
    tensors = {
        f"layers.{i}.{name}.weight": rng.standard_normal((90, 60)) * np.arange(1, 61) ** (-0.1 * (i + 1))
        for i in range(5)
        for name in ("q_proj", "k_proj")
    }
    tensors |= {"embed_tokens.weight": rng.standard_normal((200, 60)), "norm.weight": np.ones(60)}
    tensors |= {
        "conv.weight": rng.standard_normal((24, 20, 3, 3)),
        "lm_head.weight": rng.standard_normal((90, 60)),
    }
    tensors["broken.weight"] = np.full((60, 60), np.nan)
    tensors["zero.weight"] = np.zeros((60, 60))
    return tensors


def write(folder, state, config):
    source = MemorySource(state, "owner/name")
    plan = plan_repository(source, source.repository("owner/name"), config, WorkLimits())
    results = [run_unit(source, unit, config) for unit in plan.units]
    with Store.writing(folder) as store:
        rows, _ = store.commit(plan, results, config, "scan")
    return rows


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake") / "lake"
    return folder, write(folder, state(), ScanConfig())


@pytest.fixture(scope="module")
def model(lake):
    (row,) = ask(lake[0], "SELECT * FROM models").to_pylist(maps_as_pydicts="strict")
    return row


@pytest.mark.parametrize("full", [True, False])
def test_the_view_has_the_columns_and_types_of_its_row_class(lake, tmp_path, full):
    folder = lake[0]
    if not full:
        folder = tmp_path / "lake"
        with Store.writing(folder):
            pass
    found = ask(folder, "SELECT * FROM models").schema
    assert found.names == SCHEMAS["models"].names
    for field in SCHEMAS["models"]:
        assert found.field(field.name).type == field.type, field.name


def test_the_snapshot_of_the_view_is_a_table_of_models(lake):
    table = ask(lake[0], "SELECT * FROM models").cast(SCHEMAS["models"])
    for field in SCHEMAS["models"]:
        if columns(TABLES["models"])[field.name]["null"] == NEVER:
            assert table.column(field.name).null_count == 0, field.name


def test_every_view_answers(lake):
    with connect(lake[0]) as connection:
        for view in (*TABLE_VIEWS, *SQL_VIEWS):
            assert connection.sql(f"SELECT * FROM {view}").to_arrow_table().num_columns > 5


def test_no_number_in_the_view_is_nan(model):
    assert not [name for name, value in model.items() if isinstance(value, float) and not np.isfinite(value)]


def test_nothing_planned_is_lost(lake, model):
    rows = lake[1]
    assert model["num_matrices"] == len(rows) == len(state())
    assert model["num_matrices"] == model["num_ok"] + model["num_skipped"] + model["num_failed"]
    assert (model["num_skipped"], model["num_failed"], model["status"]) == (1, 1, "partial")
    assert model["num_counted"] == sum(row.counted for row in rows) == 11


def test_aggregates_are_those_of_the_counted_rows(lake, model):
    rows = lake[1]
    counted = [row for row in rows if row.counted]
    alphas = np.array([row.alpha for row in counted])
    sizes = np.array([row.N * row.M * row.kernel_size for row in counted])
    reliable = [row.alpha for row in counted if "fit_unreliable" not in row.flags]
    norms = np.array([row.log_spectral_norm for row in counted])
    lambda_max = 10.0**norms
    b = lambda_max * (np.log(lambda_max) - 1)
    expected = {
        "alpha_mean": alphas.mean(),
        "alpha_mean_all": np.mean([row.alpha for row in rows if row.fit_ok]),
        "alpha_mean_star": np.mean([row.alpha for row in counted if not row.is_last]),
        "alpha_mean_reliable": np.mean(reliable) if reliable else None,
        "alpha_mean_numel": np.average(alphas, weights=sizes),
        "alpha_median": np.median(alphas),
        "alpha_std": alphas.std(ddof=1),
        "alpha_p10": np.quantile(alphas, 0.1),
        "alpha_p90": np.quantile(alphas, 0.9),
        "alpha_hill_mean": np.mean([row.alpha_hill for row in counted]),
        "alpha_weighted_mean": np.mean(alphas * norms),
        "alpha_weighted_sum": np.sum(alphas * norms),
        "alpha_weighted_n_mean": np.mean(alphas * (norms - np.log10([row.N for row in counted]))),
        "legacy_bform_mean": np.mean(b * (alphas - 1)),
        "legacy_bsqrt_sum": np.sum(np.sqrt(b[b > 0] * (alphas[b > 0] - 1))),
        "log_norm_mean": np.mean([row.log_norm for row in counted]),
        "log_norm_sum": np.sum([row.log_norm for row in counted]),
        "log_alpha_norm_mean": np.mean([row.log_alpha_norm for row in counted]),
        "stable_rank_mean": np.mean([row.stable_rank for row in counted]),
        "mp_softrank_median": np.median([row.mp_softrank for row in counted if row.mp_softrank is not None]),
        "entropy_mean": np.mean([row.entropy for row in counted]),
        "frac_2_4": np.mean((alphas >= 2) & (alphas <= 4)),
        "frac_15_5": np.mean((alphas >= 1.5) & (alphas <= 5)),
        "frac_lt_2": np.mean(alphas < 2),
        "frac_gt_6": np.mean(alphas > 6),
    }
    for name, value in expected.items():
        assert model[name] == (pytest.approx(value, rel=1e-9) if value is not None else None), name


def test_depth_is_the_course_of_the_block_means(lake, model):
    blocks = {}
    for row in lake[1]:
        if row.counted and row.layer_index is not None:
            blocks.setdefault(row.layer_index, []).append(row.alpha)
    means = np.array([np.mean(blocks[k]) for k in sorted(blocks)])
    steps = np.arange(len(means))
    assert len(means) == 5
    assert model["depth_slope"] == pytest.approx(np.polyfit(steps / 4, means, 1)[0])
    assert model["depth_rho"] == pytest.approx(np.corrcoef(steps, means.argsort().argsort())[0, 1])
    assert model["depth_roughness"] == pytest.approx(np.abs(np.diff(means)).mean())


def test_phase_shares_are_shares(lake, model):
    phases = [row.phase for row in lake[1] if row.phase is not None]
    assert model["phase_shares"] == pytest.approx({p: phases.count(p) / len(phases) for p in set(phases)})


@pytest.mark.parametrize("mode", ["pool", "slice", "flatten"])
def test_coverage_is_the_share_of_parameters_in_ok_rows(tmp_path, mode):
    tensors = {"conv.weight": state()["conv.weight"], "norm.weight": np.ones(1000)}
    write(tmp_path / "lake", tensors, ScanConfig(matrices=MatrixRules(conv_mode=mode)))
    (found,) = ask(tmp_path / "lake", "SELECT coverage_params FROM models").to_pylist()
    assert found["coverage_params"] == pytest.approx(4320 / 5320)


def test_a_model_without_counted_rows_has_no_means(tmp_path):
    write(tmp_path / "lake", {"norm.weight": np.ones(5)}, ScanConfig())
    (found,) = ask(tmp_path / "lake", "SELECT * FROM models").to_pylist()
    assert (found["status"], found["num_counted"], found["alpha_mean"], found["frac_2_4"]) == (
        "skipped",
        0,
        None,
        None,
    )


def test_a_lake_has_no_rows_of_another_table(lake):
    """Each row class has its own columns: a layer is no model."""
    with pytest.raises(AttributeError):
        to_table("models", [replace(lake[1][0])])


def test_arrow_and_duckdb_agree_on_every_layer_column(lake):
    found = ask(lake[0], "SELECT * FROM layers LIMIT 1").schema
    for field in SCHEMAS["layers"]:
        kept = found.field(field.name).type
        assert kept == field.type or pa.types.is_list(kept), field.name
