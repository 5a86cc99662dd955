"""The view nlp_metrics against the definitions written out over the rows, and over the matrices themselves."""

from dataclasses import replace
from importlib.resources import files

import duckdb
import numpy as np
import pytest
from nouns import ROW

from jobs.lake.leaderboard import ask
from jobs.lake.store import Store
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.memory import MemorySource
from schemas.config import MatrixRules, ScanConfig, Stages, WorkLimits
from schemas.tables import to_table

EVERYTHING = Stages(alternatives=True, null_model=True, vectors=True)
MEANS = {
    "log_norm": "log_norm",
    "log_spectral_norm": "log_spectral_norm",
    "mp_softrank": "mp_softrank",
    "stable_rank": "stable_rank",
    "alpha_weighted": "alpha_weighted",
    "log_alpha_norm": "log_alpha_norm",
    "entropy": "entropy",
    "PL_alpha": "alpha",
    "PL_KS_distance": "D_ks",
    "E_TPL_beta": "etpl_beta",
    "E_TPL_lambda": "etpl_lambda",
    "E_TPL_KS_distance": "etpl_D_ks",
    "EXP_lambda": "exp_lambda",
    "rand_distance": "rand_distance_ww",
    "tail_mean_vec_entropy": "vec_entropy_tail",
    "bulk_mean_vec_entropy": "vec_entropy_bulk",
}
SUMS = {"L2", "PARAM_NORM", "LOG_PROD_OF_FRO", "LOG_PROD_OF_SPEC", "LOG_SUM_OF_FRO", "LOG_SUM_OF_SPEC"}
OF_A_BASE = {"L2_DIST", "FRO_DIST", "DIST_SPEC_INIT", "W_CKA"}


def state():
    rng = np.random.default_rng(0)
    tensors = {
        f"layers.{i}.q_proj.weight": rng.standard_normal((90, 60)) * np.arange(1, 61) ** (-0.2 * (i + 1))
        for i in range(3)
    }
    return tensors | {"conv.weight": rng.standard_normal((24, 20, 3, 3)), "zero.weight": np.zeros((60, 60))}


def stored(folder, config):
    source = MemorySource(state(), "owner/name")
    plan = plan_repository(source, source.repository("owner/name"), config, WorkLimits())
    with Store.writing(folder) as store:
        rows, _ = store.commit(plan, [run_unit(source, unit, config) for unit in plan.units], config, "scan")
    [found] = ask(folder, "SELECT * FROM nlp_metrics").to_pylist()
    return rows, found


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    config = ScanConfig(matrices=MatrixRules(conv_mode="flatten"), stages=EVERYTHING)
    return stored(tmp_path_factory.mktemp("nlp") / "lake", config)


def test_has_the_22_data_free_and_the_4_base_needing_keys(flat):
    names = flat[1].keys() - {
        "repo_id",
        "revision",
        "component",
        "config_fingerprint",
        "num_matrices",
        "left_out",
    }
    assert names == MEANS.keys() | SUMS | OF_A_BASE
    assert len(MEANS.keys() | SUMS) == 22


def test_means_are_those_of_the_rows(flat):
    rows, found = flat
    for name, column in MEANS.items():
        values = [value for row in rows if (value := getattr(row, column)) is not None]
        assert len(values) >= 3, name
        assert found[name] == pytest.approx(np.mean(values), rel=1e-12), name


def test_sums_are_those_of_the_matrices(flat):
    matrices = [w.reshape(len(w), -1) for w in state().values() if w.any()]
    fro = np.array([np.linalg.norm(w) ** 2 for w in matrices])
    spec = np.array([np.linalg.norm(w, 2) ** 2 for w in matrices])
    expected = {
        "L2": np.sqrt(fro.sum()),
        "PARAM_NORM": fro.sum(),
        "LOG_PROD_OF_FRO": np.log(fro).sum(),
        "LOG_PROD_OF_SPEC": np.log(spec).sum(),
        "LOG_SUM_OF_FRO": np.log(4 * np.prod(fro ** (1 / 4))),
        "LOG_SUM_OF_SPEC": np.log(4 * np.prod(spec ** (1 / 4))),
    }
    assert {name: flat[1][name] for name in SUMS} == pytest.approx(expected, rel=1e-10)
    assert (flat[1]["num_matrices"], flat[1]["left_out"]) == (4, 0)


def test_without_a_base_there_is_no_distance(flat):
    assert {flat[1][name] for name in OF_A_BASE} == {None}


def test_pooled_convolutions_are_left_out_and_counted(tmp_path):
    rows, found = stored(tmp_path / "lake", ScanConfig())
    dense = [row.norm for row in rows if row.conv_mode is None and row.norm]
    assert (found["num_matrices"], found["left_out"]) == (3, 1)
    assert found["PARAM_NORM"] == pytest.approx(sum(dense))
    assert found["E_TPL_beta"] is found["rand_distance"] is found["tail_mean_vec_entropy"] is None


def row_with_base(name, W, base, **about):
    delta = W - base
    norm, norm0 = np.sum(W**2), np.sum(base**2)
    top = np.linalg.norm(delta, 2)
    return replace(
        ROW,
        tensor=name,
        shape=W.shape,
        norm=norm,
        lambda_max=np.linalg.norm(W, 2) ** 2,
        rel_delta=np.linalg.norm(delta) / np.sqrt(norm0),
        d_log_norm=np.log10(norm / norm0),
        delta_log_spectral_norm=2 * np.log10(top) if top else None,
        **({"base_status": "ok", "cka": 0.5} | about),
    )


def test_distances_to_the_base_are_those_of_the_differences():
    rng = np.random.default_rng(1)
    base = [rng.standard_normal((40, 30)) for _ in range(4)]
    tuned = [base[0] + 0.1 * rng.standard_normal((40, 30)), base[1] * 1.5, base[2], base[3] + 1]
    rows = [row_with_base(f"{i}.weight", W, W0) for i, (W, W0) in enumerate(zip(tuned, base, strict=True))]
    rows[3] = replace(rows[3], base_status="no_match")
    with duckdb.connect() as connection:
        connection.register("layers", to_table("layers", rows))
        view = view_sql_of("nlp_metrics")
        [found] = connection.sql(view).to_arrow_table().to_pylist()
    deltas = [W - W0 for W, W0 in zip(tuned[:3], base[:3], strict=True)]
    squares = sum(np.sum(delta**2) for delta in deltas)
    assert found["L2_DIST"] == pytest.approx(np.sqrt(squares))
    assert found["FRO_DIST"] == pytest.approx(squares)
    assert found["DIST_SPEC_INIT"] == pytest.approx(sum(np.linalg.norm(delta, 2) ** 2 for delta in deltas))
    assert found["W_CKA"] == pytest.approx(0.5)


def view_sql_of(name):
    """The SELECT of one view, as it is shipped."""
    return (files("schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
