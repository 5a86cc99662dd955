"""Fine-tunes scanned with the base that their cards name, over a real hub, in this process and on Ray."""

import json

import numpy as np
import pytest
from running import differences, rows, run_cli
from safetensors.numpy import save_file

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.hub.server import HubServer
from scanner.sources.hub import HubSource
from scanner.sources.transfer import TransferPolicy
from schemas.config import ScanConfig, WorkLimits
from schemas.work import Target

pytestmark = pytest.mark.usefixtures("clean_hub")
LAYERS = [f"layers.{k}.weight" for k in range(6)]
CARDS = {
    "collapsed": "acme/base",
    "copy": "acme/base",
    "half": "acme/base",
    "resized": "acme/base",
    "wrapped": "acme/base",
    "orphan": "acme/nowhere",
    "locked": "acme/gated",
    "pickled": "acme/pickle",
    "own": "acme/own",
    "adapter": "acme/base",
    "plain": None,
}
"""Fine-tune -> the base that its card names."""


def weights():
    random = np.random.default_rng(0)
    made = {name: random.standard_t(3, (48, 40)).astype("f4") for name in LAYERS}
    return made | {"embed_tokens.weight": random.standard_normal((90, 40)).astype("f4")}


def edits(base):
    """Fine-tune -> its tensors."""
    resized = base | {"embed_tokens.weight": np.ones((96, 40), "f4"), "head.weight": base[LAYERS[0]]}
    return {
        "collapsed": base | {LAYERS[3]: base[LAYERS[3]] * np.float32(1e-3)},
        "copy": base,
        "half": {name: w.astype("f2") for name, w in base.items()},
        "resized": resized,
        "wrapped": {f"module.model.{name}": w * np.float32(1.1) for name, w in base.items()},
        "adapter": {
            "layers.0.lora_A.weight": base[LAYERS[0]],
            "layers.0.lora_B.weight": base[LAYERS[0]].T.copy(),
        },
    }


def write(folder, tensors, base=None, file="model.safetensors", **settings):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (folder / ".hub.json").write_text(json.dumps(settings))
    if tensors is not None:
        save_file(tensors, folder / file, {"format": "pt"})
    card = f"base_model: {base}\n" if base else ""
    (folder / "README.md").write_text(f"---\nlicense: mit\n{card}---\n# {folder.name}\n")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """acme/base, a gated base, a base of pickles, and the fine-tunes of CARDS."""
    root, base = tmp_path_factory.mktemp("hub"), weights()
    write(root / "acme/base", base)
    write(root / "acme/gated", base, gated="manual")
    write(root / "acme/pickle", None)
    (root / "acme/pickle/pytorch_model.bin").write_bytes(b"never opened")
    made = edits(base)
    for name, card in CARDS.items():
        file = "adapter_model.safetensors" if name == "adapter" else "model.safetensors"
        write(root / "acme" / name, made.get(name, base | {LAYERS[0]: 2 * base[LAYERS[0]]}), card, file)
    (root / "acme/adapter/adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    return root


@pytest.fixture(scope="module")
def hub(shelf):
    with HubServer(shelf, token="hf_secret", test_control=True) as server:
        yield server


def scan(hub, lake, *names, engine="local", config=None, **limits):
    request = Request(
        targets=tuple(Target(repo_id=f"acme/{name}") for name in names),
        lake=lake,
        config=config or ScanConfig(),
        limits=WorkLimits(backoff=0.01, **limits),
        engine=engine,
        workers=2 if engine == "ray" else None,
        endpoint=hub.endpoint,
        token=False,
    )
    with quiet_progress() as display:
        return run_scan(request, display)


@pytest.fixture(scope="module")
def scanned(hub, tmp_path_factory):
    lake = tmp_path_factory.mktemp("lakes") / "local"
    return lake, scan(hub, lake, *CARDS)


def of(lake, name):
    found = rows(lake, f"SELECT * FROM fine_tunes WHERE repo_id = 'acme/{name}'")
    return found[0] if found else None


def statuses(lake, name):
    query = f"SELECT DISTINCT base_status FROM layers WHERE repo_id = 'acme/{name}' AND status = 'ok'"
    return {row["base_status"] for row in rows(lake, query)}


def test_no_fine_tune_fails_for_want_of_its_base(scanned):
    lake, summary = scanned
    assert (summary.failures, summary.counts.repos_ok, summary.counts.repos_failed) == ((), len(CARDS), 0)
    assert {row["status"] for row in rows(lake, "SELECT status FROM models")} == {"ok"}


def test_a_base_that_cannot_be_had_is_named_among_the_failures(scanned):
    found = rows(scanned[0], "SELECT repo_id, stage, kind, retryable, message FROM failures ORDER BY repo_id")
    assert [(f["repo_id"], f["stage"], f["kind"], f["retryable"]) for f in found] == [
        ("acme/locked", "compare", "gated", False),
        ("acme/orphan", "compare", "repo_missing_or_private", False),
        ("acme/pickled", "compare", "skipped_pickle", False),
    ]
    assert all(f["message"].startswith("base: acme/") for f in found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("collapsed", {"ok"}),
        ("copy", {"same_file"}),
        ("half", {"ok"}),
        ("resized", {"ok", "shape_mismatch", "no_match"}),
        ("wrapped", {"ok"}),
        ("orphan", {"no_base"}),
        ("locked", {"no_base"}),
        ("pickled", {"no_base"}),
        ("own", {"no_base"}),
        ("plain", {"no_base"}),
        ("adapter", {"off"}),
    ],
)
def test_every_measured_row_says_what_became_of_its_comparison(scanned, name, expected):
    assert statuses(scanned[0], name) == expected


def test_rows_name_the_base_s_commit_and_tensor(hub, scanned):
    query = (
        "SELECT base_repo_id, base_revision, tensor, base_tensor FROM layers WHERE repo_id = 'acme/wrapped'"
    )
    commit = HubSource(hub.endpoint).repository("acme/base").ref.revision
    for row in rows(scanned[0], query):
        assert (row["base_repo_id"], row["base_revision"]) == ("acme/base", commit)
        assert row["tensor"] == f"module.model.{row['base_tensor']}"
    query = "SELECT count(base_repo_id) AS n FROM layers WHERE base_status IN ('no_base', 'off')"
    assert rows(scanned[0], query) == [{"n": 0}]


def test_a_collapsed_layer_is_the_worst_of_its_fine_tune(scanned):
    found = of(scanned[0], "collapsed")
    assert (found["base_pairs"], found["base_unmatched"], found["flags"]) == (7, 0, ["scale_collapse"])
    assert (found["worst_tensor"], found["worst_flags"]) == (LAYERS[3], ["scale_collapse"])
    assert (found["rel_delta_median"], found["num_scale_collapse"]) == (0, 1)
    assert found["d_log_spectral_norm_mean"] == pytest.approx(-6 / 7, abs=1e-6)
    assert of(scanned[0], "collapsed")["worst_rel_delta"] == pytest.approx(0.999, abs=1e-6)


def test_a_reupload_is_a_fine_tune_without_a_change(scanned):
    found = of(scanned[0], "copy")
    assert (found["base_pairs"], found["base_same_file"], found["rel_delta_median"]) == (7, 7, 0)
    assert (found["d_alpha_mean"], found["flags"]) == (0, ["ft_noop"])


def test_a_resized_vocabulary_and_a_new_head_have_no_counterpart(scanned):
    found = of(scanned[0], "resized")
    assert (found["base_pairs"], found["base_unmatched"], found["flags"]) == (6, 2, ["ft_noop"])


def test_numbers_are_those_of_the_weights(scanned):
    base = weights()
    query = (
        "SELECT base_tensor, rel_delta, d_log_norm, delta_stable_rank FROM layers WHERE repo_id = 'acme/half'"
    )
    for row in rows(scanned[0], query):
        own = base[row["base_tensor"]].astype("f2").astype("f8")
        delta = own - base[row["base_tensor"]]
        assert row["rel_delta"] == pytest.approx(
            np.linalg.norm(delta) / np.linalg.norm(base[row["base_tensor"]].astype("f8"))
        )
        top = np.linalg.norm(delta, 2)
        assert row["delta_stable_rank"] == pytest.approx(np.linalg.norm(delta) ** 2 / top**2)


def test_models_and_fine_tunes_say_the_same(scanned):
    query = (
        "SELECT count(*) AS n FROM fine_tunes f JOIN models m USING (repo_id, revision) "
        "WHERE f.base_pairs = m.base_pairs AND f.base_unmatched = m.base_unmatched"
    )
    assert rows(scanned[0], query) == [{"n": 5}]
    query = "SELECT repo_id FROM models WHERE base_pairs IS NOT NULL OR rel_delta_median IS NOT NULL"
    assert len(rows(scanned[0], query)) == 5


def test_nothing_of_the_base_is_read_for_a_copy(hub, tmp_path):
    lake = tmp_path / "lake"
    scan(hub, lake, "copy")
    read = [entry["range"] for entry in hub.log if entry["on"] == "cdn" and "/acme/base/" in entry["path"]]
    assert len(read) == 1
    (row,) = rows(lake, "SELECT bytes_read FROM repositories")
    assert row["bytes_read"] == 4 * (6 * 48 * 40 + 90 * 40)


def test_a_base_is_pinned_and_its_header_read_once_for_all_its_fine_tunes(hub, tmp_path):
    scan(hub, tmp_path / "lake", "collapsed", "half", "copy")
    assert [entry["path"] for entry in hub.log].count("/api/models/acme/base") == 1
    (row,) = rows(tmp_path / "lake", "SELECT bytes_read FROM repositories WHERE repo_id = 'acme/collapsed'")
    assert row["bytes_read"] == 2 * 4 * (6 * 48 * 40 + 90 * 40)


def test_a_stage_that_is_off_asks_for_no_base(hub, tmp_path):
    config = tmp_path / "off.toml"
    config.write_text('[stages]\nbase = "off"\n')
    lake = tmp_path / "lake"
    ran = run_cli("scan", "acme/half", "--lake", lake, "--endpoint", hub.endpoint, "--config", config)
    assert (ran.code, statuses(lake, "half"), of(lake, "half")) == (0, {"off"}, None)
    assert not any("acme/base" in entry["path"] for entry in hub.log)


def test_units_of_any_size_give_the_same_rows(hub, scanned, tmp_path):
    lake = tmp_path / "lake"
    scan(hub, lake, *CARDS, unit_bytes=10_000)
    assert differences(lake, scanned[0], ignore=("failure_id",)) == []


def test_ray_gives_the_same_rows(hub, scanned, tmp_path, local_ray):
    lake = tmp_path / "lake"
    summary = scan(hub, lake, *CARDS, engine="ray")
    assert (summary.engine, summary.failures) == ("ray", ())
    assert differences(lake, scanned[0]) == []


def test_a_base_that_is_down_for_a_while_costs_a_retry(hub, tmp_path, monkeypatch):
    policy = TransferPolicy(backoff=0.001, attempts=2, read_timeout=2.0)
    monkeypatch.setitem(HubSource.__init__.__kwdefaults__, "policy", policy)
    hub.fault(match="/acme/base/", on="cdn", skip=1, count=2, status=503)
    lake = tmp_path / "lake"
    summary = scan(hub, lake, "half")
    assert summary.failures == ()
    assert statuses(lake, "half") == {"ok"}


def test_a_base_that_stays_down_is_tried_again_by_the_next_scan(hub, tmp_path, monkeypatch):
    policy = TransferPolicy(backoff=0.001, attempts=2, read_timeout=2.0)
    monkeypatch.setitem(HubSource.__init__.__kwdefaults__, "policy", policy)
    hub.fault(match="/acme/base/", on="cdn", skip=1, count=999, status=503)
    lake = tmp_path / "lake"
    (failure,) = scan(hub, lake, "half").failures
    assert (failure.kind, failure.retryable, "acme/base" in failure.message) == ("http_error", True, True)
    hub.clear()
    assert scan(hub, lake, "half").failures == ()
    assert statuses(lake, "half") == {"ok"}


def test_a_folder_of_models_pairs_as_the_hub_does(hub, shelf, scanned, tmp_path):
    lake = tmp_path / "lake"
    ran = run_cli("scan", shelf, "--lake", lake, "--engine", "local")
    assert ran.code == 3
    query = "SELECT tensor, base_status, rel_delta, subspace_overlap10, flags FROM layers WHERE repo_id = '{}' ORDER BY 1"
    for name in ("acme/collapsed", "acme/half", "acme/resized", "acme/copy"):
        assert rows(lake, query.format(name)) == rows(scanned[0], query.format(name))
    found = rows(lake, "SELECT repo_id, kind, message FROM failures WHERE stage = 'compare' ORDER BY 1")
    assert [f["repo_id"] for f in found] == ["acme/orphan", "acme/pickled"]
    assert "which is not beside" in found[0]["message"]


def test_a_dry_run_counts_the_base_and_says_why_there_is_none(hub):
    arguments = ("scan", "acme/half", "acme/plain", "acme/orphan", "--dry-run", "--endpoint", hub.endpoint)
    ran = run_cli(*arguments)
    lines = ran.text.splitlines()
    told = {line.split(",")[0]: line for line in lines[1:]}
    mbytes = {name: float(line.split(",")[6]) for name, line in told.items()}
    assert ran.code == 0
    assert mbytes["acme/half"] == pytest.approx(1.5 * mbytes["acme/plain"], abs=2e-3)
    assert "acme/base@" in told["acme/half"]
    assert "repo_missing_or_private" in told["acme/orphan"]
