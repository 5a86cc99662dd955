"""Views that need the whole lake: strata, anomalies, history, universality, load and temperature, flow.

And the order in which layers and findings are told.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from jobs.lake import questions
from jobs.lake.leaderboard import ask
from jobs.lake.store import Store
from schemas.config import ESTIMATOR, ScanConfig, code_version, from_toml
from schemas.refs import RepoRef
from schemas.results import FlagKind
from schemas.rows import LayerMetrics, RepositoryRow, RunRow
from schemas.tables import SCHEMA_VERSION
from schemas.work import RepoPlan, UnitResult

CONFIG = ScanConfig()
DAY = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = 24
BLOCKS = 5


def layer(ref, index, role, block, alpha, **other):
    return LayerMetrics(
        repo_id=ref.repo_id,
        revision=ref.revision,
        file="model.safetensors",
        tensor=f"layers.{block}.{role}.weight",
        matrix_index=index,
        role=role,
        layer_index=block,
        is_last=False,
        dtype="F32",
        shape=(200, 200),
        N=200,
        M=200,
        Q=1.0,
        kernel_size=1,
        num_evals=200,
        estimator=ESTIMATOR,
        status="ok",
        bulk_status="off",
        fit_status="ok",
        norm=100.0,
        lambda_max=10.0,
        log_norm=2.0,
        log_spectral_norm=1.0,
        log_soft_rank=2.0,
        alpha=alpha,
        alpha_trunc=alpha,
        alpha_hill=alpha / 2,
        alpha_stderr=0.1,
        D_ks=0.03,
        n_tail=100,
        tail_decades=1.0,
        counted=True,
        **{"config_fingerprint": CONFIG.fingerprint()} | other,
    )


def about(ref, config, **other):
    facts = {"architecture": "Toy", "pipeline_tag": "text-generation", "params": 1_000_000} | other
    return RepositoryRow(
        repo_id=ref.repo_id,
        revision=ref.revision,
        config_fingerprint=config.fingerprint(),
        code_version=code_version(),
        source="local",
        scanned_at=DAY,
        num_planned=2 * BLOCKS,
        num_files_failed=0,
        **facts,
    )


def commit(store, ref, rows, config=CONFIG, **facts):
    plan = RepoPlan(ref=ref, units=(), components=(about(ref, config, **facts),))
    store.commit(
        plan, [UnitResult(unit_id="u", rows=rows, failures=(), bytes_read=0, secs=0)], config, "scan"
    )


def test_an_alpha_below_one_has_no_root(tmp_path):
    ref = RepoRef("acme/truncated", "0" * 40)
    with Store.writing(tmp_path) as store:
        commit(store, ref, tuple(layer(ref, i, "q", i, alpha) for i, alpha in enumerate((0.5, 2.0))))
    (row,) = ask(tmp_path, "SELECT legacy_bsqrt_sum, legacy_bform_mean FROM models").to_pylist()
    b = 10 * (np.log(10) - 1)
    assert row["legacy_bsqrt_sum"] == pytest.approx(np.sqrt(b))
    assert row["legacy_bform_mean"] == pytest.approx(b * (1.0 - 0.5) / 2)


def run(config):
    return RunRow(
        scan_id="scan",
        config_fingerprint=config.fingerprint(),
        config_json=config.to_json(),
        code_version=code_version(),
        estimator=ESTIMATOR,
        hub_endpoint="",
        schema_version=SCHEMA_VERSION,
        started_at=DAY,
        status="finished",
        versions={},
        devices={},
    )


def alphas(model):
    """Smooth along the depth and like one's peers, but for model 3 (rough) and model 7 (one far layer)."""
    rng = np.random.default_rng(model)
    values = {(role, k): 3 + 0.1 * k + rng.normal(0, 0.05) for role in ("q", "up") for k in range(BLOCKS)}
    if model == 3:
        values = {(role, k): a + (0.15 if k % 2 else -0.15) for (role, k), a in values.items()}
    if model == 7:
        values["up", 2] = 5.5
    return values


def rows_of(ref, values, **other):
    return tuple(layer(ref, i, *place, alpha, **other) for i, (place, alpha) in enumerate(values.items()))


def fill(path, config=CONFIG):
    with Store.writing(path) as store:
        store.save_run(run(config))
        for model in range(MODELS):
            ref = RepoRef(f"acme/m{model:02}", f"{model:040x}")
            rows = rows_of(ref, alphas(model), config_fingerprint=config.fingerprint())
            commit(store, ref, rows, config, tokens=model * 10**7 or None)
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("views") / "lake")


def found(lake, query):
    return ask(lake, query).to_pylist(maps_as_pydicts="strict")


def test_a_layer_far_from_its_peers_is_anomalous_and_says_so(lake):
    (flag,) = found(lake, "SELECT * FROM flags WHERE flag = 'anomalous_alpha'")
    peers = np.array([alphas(m)["up", k] for m in range(MODELS) for k in range(BLOCKS)])
    median = np.median(peers)
    deviations = (5.5 - median) / (1.4826 * np.median(abs(peers - median)))
    assert (flag["repo_id"], flag["tensor"], flag["value"]) == ("acme/m07", "layers.2.up.weight", 5.5)
    far = CONFIG.thresholds.anomalous_mads * 1.4826 * np.median(abs(peers - median))
    assert flag["threshold"] == pytest.approx(median + far)
    assert flag["sentence"] == (
        f"alpha 5.50 lies {deviations:.1f} robust deviations from {median:.2f}, "
        f"the median of {len(peers)} layers of role up in its stratum"
    )
    (model,) = found(lake, "SELECT flags FROM models WHERE repo_id = 'acme/m07'")
    assert "anomalous_alpha" in model["flags"]


def test_a_rough_depth_is_irregular_among_enough_models(lake):
    rough = found(lake, "SELECT repo_id, depth_roughness FROM models ORDER BY depth_roughness DESC")
    flagged = found(
        lake, "SELECT repo_id, value, threshold FROM flags WHERE flag = 'depth_irregular' ORDER BY value DESC"
    )
    limit = np.quantile([row["depth_roughness"] for row in rough], 0.95)
    over = [(row["repo_id"], row["depth_roughness"]) for row in rough if row["depth_roughness"] > limit]
    assert [(row["repo_id"], row["value"]) for row in flagged] == over
    assert [row["threshold"] for row in flagged] == [pytest.approx(limit)] * len(over)
    assert "acme/m03" in dict(over)
    assert len(over) < MODELS / 5


def test_every_finding_has_a_threshold(lake):
    assert found(lake, "FROM flags WHERE threshold IS NULL") == []


@pytest.mark.parametrize(
    ("name", "left"),
    [("anomalous_peers_min", "depth_irregular"), ("irregular_peers_min", "anomalous_alpha")],
)
def test_thresholds_are_those_of_the_config_that_scanned(tmp_path, name, left):
    (tmp_path / "c.toml").write_text(f"[thresholds]\n{name} = 1000\n")
    lake = fill(tmp_path / "lake", from_toml(tmp_path / "c.toml"))
    assert found(lake, "SELECT DISTINCT flag FROM flags") == [{"flag": left}]


@pytest.mark.parametrize("rules", ["conv_mode = 'slice'", "as_stored = true"])
def test_alphas_of_other_matrices_are_ranked_apart(tmp_path, rules):
    lake = fill(tmp_path / "lake")
    (tmp_path / "c.toml").write_text(f"[matrices]\n{rules}\n")
    other = from_toml(tmp_path / "c.toml")
    with Store.writing(lake) as store:
        store.save_run(replace(run(other), scan_id="other"))
        ref = RepoRef("acme/other", "f" * 40)
        commit(store, ref, rows_of(ref, alphas(1), config_fingerprint=other.fingerprint()), other)
    ranked = found(lake, "SELECT repo_id, stratum_rank FROM leaderboard WHERE stratum_n = 1")
    assert ranked == [{"repo_id": "acme/other", "stratum_rank": None}]


def test_copies_of_a_few_models_are_no_peers(tmp_path):
    (tmp_path / "c.toml").write_text(f"[thresholds]\nanomalous_models_min = {MODELS + 1}\n")
    lake = fill(tmp_path / "lake", from_toml(tmp_path / "c.toml"))
    assert found(lake, "FROM anomalies") == []


def test_unreliable_fits_are_neither_anomalous_nor_peers(tmp_path):
    lake = fill(tmp_path / "lake")
    with Store.writing(lake) as store:
        ref = RepoRef("acme/weak", "f" * 40)
        weak = [layer(ref, i, "up", i, 9.0) for i in range(BLOCKS)]
        commit(store, ref, tuple(replace(row, D_ks=0.2) for row in weak))
    assert [row["repo_id"] for row in found(lake, "FROM anomalies")] == ["acme/m07"]
    assert found(lake, "SELECT DISTINCT num_peers FROM anomalies") == [{"num_peers": MODELS * BLOCKS}]


def test_universality_shares_are_those_of_the_counted_layers(lake):
    (row,) = found(lake, "FROM universality WHERE role = 'up'")
    values = np.array([alphas(m)["up", k] for m in range(MODELS) for k in range(BLOCKS)])
    assert (row["num_models"], row["num_layers"], row["num_reliable"]) == (MODELS, len(values), len(values))
    assert row["frac_2_4"] == pytest.approx(np.mean((values >= 2) & (values <= 4)))
    assert row["frac_moderately_heavy"] == 1
    assert row["alpha_p90"] == pytest.approx(np.quantile(values, 0.9))


def test_flow_is_that_of_each_role(lake):
    (row,) = found(lake, "FROM correlation_flow WHERE repo_id = 'acme/m03' AND role = 'q'")
    course = [alphas(3)["q", k] for k in range(BLOCKS)]
    steps = np.arange(BLOCKS)
    assert row["num_blocks"] == BLOCKS
    assert row["depth_slope"] == pytest.approx(np.polyfit(steps / (BLOCKS - 1), course, 1)[0])
    assert row["depth_rho"] == pytest.approx(np.corrcoef(steps, np.argsort(np.argsort(course)))[0, 1])
    assert row["depth_roughness"] == pytest.approx(np.abs(np.diff(course)).mean())
    assert row["lightest_block"] == int(np.argmax(course))


@pytest.mark.parametrize("course", [(2, 2, 3, 4, 4), (4, 3, 3, 3, 5, 2), (5, 4, 3, 2)])
def test_blocks_that_tie_share_the_middle_of_their_ranks(tmp_path, course):
    ref = RepoRef("acme/tied", "a" * 40)
    with Store.writing(tmp_path) as store:
        commit(store, ref, tuple(layer(ref, k, "q", k, float(alpha)) for k, alpha in enumerate(course)))
    expected = {"depth_rho": pytest.approx(stats.spearmanr(range(len(course)), course).statistic)}
    assert found(tmp_path, "SELECT depth_rho FROM models") == [expected]
    assert found(tmp_path, "SELECT depth_rho FROM correlation_flow") == [expected]


def test_the_stacks_of_an_encoder_decoder_follow_one_another(tmp_path):
    course = {"encoder": [3.0, 3.1, 3.2, 3.3], "decoder": [5.0, 4.9, 4.8, 4.7]}
    ref, lake = RepoRef("acme/t5", "a" * 40), tmp_path / "lake"
    places = [(stack, k, alpha) for stack, alphas in course.items() for k, alpha in enumerate(alphas)]
    rows = tuple(
        replace(layer(ref, i, "q", k, alpha), tensor=f"{stack}.block.{k}.q.weight")
        for i, (stack, k, alpha) in enumerate(places)
    )
    with Store.writing(lake) as store:
        store.save_run(run(CONFIG))
        commit(store, ref, rows)
    for view in ("models", "correlation_flow"):
        (row,) = found(lake, f"FROM {view}")
        whole = [*course["encoder"], *course["decoder"]]
        assert row["depth_slope"] == pytest.approx(np.polyfit(np.arange(8) / 7, whole, 1)[0])
        assert row["depth_roughness"] == pytest.approx(0.1)


def test_load_is_data_per_parameter_where_the_card_states_it(lake):
    rows = {row["repo_id"]: row for row in found(lake, "FROM load_temperature")}
    assert len(rows) == MODELS
    assert rows["acme/m00"]["load"] is None
    assert rows["acme/m02"]["load"] == pytest.approx(20.0)
    shapes = {name: row["shape"] for name, row in rows.items()}
    assert rows["acme/m05"]["shape_dev"] == pytest.approx(shapes["acme/m05"] - np.median([*shapes.values()]))
    assert {row["family_n"] for row in rows.values()} == {MODELS}


def test_history_tells_what_changed_between_revisions(tmp_path):
    lake = tmp_path / "lake"
    with Store.writing(lake) as store:
        store.save_run(run(CONFIG))
        for day, alpha in enumerate((3.0, 7.0, 3.5)):
            ref = RepoRef("acme/model", f"{day:040x}")
            values = {("q", k): alpha for k in range(BLOCKS)}
            commit(store, ref, rows_of(ref, values), last_modified=DAY + timedelta(days=day))
    first, second, third = found(lake, "FROM history")
    assert (first["d_alpha_mean"], first["flags_new"]) == (None, first["flags"])
    assert (second["d_alpha_mean"], second["flags_new"], second["flags_gone"]) == (
        pytest.approx(4.0),
        ["under_trained"],
        [],
    )
    assert (third["d_alpha_mean"], third["flags_new"], third["flags_gone"]) == (
        pytest.approx(-3.5),
        [],
        ["under_trained"],
    )


def test_log_soft_rank_is_averaged(lake):
    assert found(lake, "SELECT DISTINCT log_soft_rank_mean AS mean FROM models") == [{"mean": 2.0}]


WORST_FIRST = {
    "rank_collapse": {"rank0_frac": 0.5},
    "correlation_trap": {"null_status": "ok", "num_traps": 1, "w_mean": 0.0},
    "under_trained": {"alpha": 7.0, "alpha_trunc": 7.0},
    "erg_violated": {"alpha": 1.9, "alpha_trunc": 1.9, "erg_dlambda": -0.5},
    "random_like": {"bulk_status": "ok", "phase": "RANDOM-LIKE"},
    "fit_unreliable": {"D_ks": 0.2},
    "": {},
}


@pytest.fixture
def faults(tmp_path):
    """A model with a layer of each fault, the worst last."""
    ref = RepoRef("acme/faults", "a" * 40)
    rows = [layer(ref, i, "q", i, 3.0) for i in range(len(WORST_FIRST))]
    with Store.writing(tmp_path) as store:
        ill = zip(rows, reversed(WORST_FIRST.values()), strict=True)
        commit(store, ref, tuple(replace(row, **fault) for row, fault in ill))
    return tmp_path


def test_layers_stand_in_the_order_of_their_worst_finding(faults):
    shown = questions.layers(faults, "acme/faults", 100, brief=True, everything=True)
    assert shown.column("findings").to_pylist() == list(WORST_FIRST)


def test_findings_and_layers_have_one_order(faults):
    told = questions.flags(faults, None, None, 100, brief=False).column("flag").to_pylist()
    assert told == [kind for kind in WORST_FIRST if kind]


def test_every_kind_of_finding_has_one_place():
    assert sorted(questions.BY_WEIGHT) == sorted(FlagKind)


def test_headlines_tell_what_is_only_unlike_its_peers(lake):
    told = questions.headlines(lake).column("flag").to_pylist()
    assert told == ["anomalous_alpha"] + ["depth_irregular"] * (len(told) - 1)
    assert len(told) > 1
