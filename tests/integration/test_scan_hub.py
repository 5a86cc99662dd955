"""`hubspectra scan` over a real HTTP hub with the unmodified client: what is asked, read, stored and kept secret."""

import json

import pytest
from running import Scanned, differences, ended, finish, rows, run_cli, start_cli
from zoo import FAILURES

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.hub.server import HubServer
from jobs.verbs.scanning import exit_code
from scanner.sources.hub import HubSource
from scanner.sources.transfer import TransferPolicy
from schemas.config import ScanConfig, WorkLimits
from schemas.work import Target

pytestmark = pytest.mark.usefixtures("clean_hub")
TOKEN = "hf_secretsecretsecret"
PLACE = (
    *("revision", "file_sha256", "source", "failure_id", "message", "hub_endpoint"),
    *("downloads", "likes", "last_modified", "library_name", "http_status"),
)
"""Columns that tell where a model was read, which a folder and a hub state differently."""


@pytest.fixture(scope="module")
def hub(make_hub_root, tmp_path_factory):
    """acme/{base,tuned,sharded} open; gated, private, disabled and renamed ones beside them."""
    with HubServer(make_hub_root(tmp_path_factory.mktemp("hub")), token=TOKEN, test_control=True) as server:
        yield server


@pytest.fixture
def scan(hub, tmp_path):
    """Scan models of the hub into a lake of the test's own."""

    def run(*targets: str) -> Scanned:
        lake = tmp_path / "lake"
        return Scanned(lake, run_cli("scan", *targets, "--lake", lake, "--endpoint", hub.endpoint))

    return run


@pytest.fixture
def hasty(monkeypatch):
    """The same retries as ever, sooner."""
    policy = TransferPolicy(backoff=0.001, read_timeout=2.0, rate_limit_margin=0.01)
    monkeypatch.setitem(HubSource.__init__.__kwdefaults__, "policy", policy)


def scan_soon(endpoint, folder, *names):
    """A scan that tries again at once; its lake is the one of `scan`."""
    request = Request(
        targets=tuple(Target(repo_id=name) for name in names),
        lake=folder / "lake",
        config=ScanConfig(),
        limits=WorkLimits(backoff=0.01),
        engine="local",
        endpoint=endpoint,
    )
    with quiet_progress() as display:
        return request.lake, run_scan(request, display)


def failures_of(lake):
    query = "SELECT repo_id, kind, http_status, file FROM failures WHERE NOT resolved ORDER BY repo_id"
    return [tuple(row.values()) for row in rows(lake, query)]


def revision(hub, repo_id):
    return HubSource(hub.endpoint, TOKEN).repository(repo_id).ref.revision


# What is scanned


def test_a_model_is_pinned_to_the_commit_of_its_branch(hub, scan):
    scanned = scan("acme/base")
    assert scanned.ran.code == 0
    query = "SELECT repo_id, revision, source, downloads FROM repositories"
    expected = {"repo_id": "acme/base", "revision": revision(hub, "acme/base"), "source": hub.endpoint}
    assert rows(scanned.lake, query) == [expected | {"downloads": 30}]
    assert rows(scanned.lake, "SELECT DISTINCT revision FROM layers") == [{"revision": expected["revision"]}]
    assert rows(scanned.lake, "SELECT hub_endpoint FROM runs") == [{"hub_endpoint": hub.endpoint}]


def test_a_commit_can_be_asked_for_and_is_the_same_model(hub, scan):
    commit = revision(hub, "acme/base")
    assert scan(f"acme/base@{commit}").ran.code == 0
    again = scan("acme/base@main", "acme/base")
    assert again.ran.code == 0
    assert "(2 already in the lake" in again.ran.err
    assert rows(again.lake, "SELECT count(*) AS n FROM repositories") == [{"n": 1}]


@pytest.mark.parametrize(
    ("target", "kind", "status"),
    [
        ("acme/missing", "repo_missing_or_private", 401),
        ("acme/base@no-such-branch", "revision_gone", 404),
        (f"acme/base@{'0' * 40}", "revision_gone", 404),
        ("acme/secret", "repo_missing_or_private", 401),
        ("acme/gated", "gated", 401),
        ("acme/closed", "gated", 401),
        ("acme/off", "disabled", 403),
    ],
)
def test_what_cannot_be_had_fails_by_name_and_the_rest_is_scanned(scan, target, kind, status):
    scanned = scan(target, "acme/tuned")
    assert scanned.ran.code == 3
    ((repo_id, found, http_status, _),) = failures_of(scanned.lake)
    assert (repo_id, found, http_status) == (target.split("@")[0], kind, status)
    assert f"failed ({kind}) {target.split('@')[0]}" in scanned.ran.err
    counted = "SELECT repo_id, count(*) AS n FROM layers WHERE status = 'ok' GROUP BY repo_id"
    assert rows(scanned.lake, counted) == [{"repo_id": "acme/tuned", "n": 2}]


def test_a_token_opens_private_and_gated_models_and_reaches_no_storage_host(hub, scan, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    scanned = scan("acme/secret", "acme/gated")
    assert scanned.ran.code == 0
    assert rows(scanned.lake, "SELECT count(*) AS n FROM models WHERE status = 'ok'") == [{"n": 2}]
    asked = {on: {entry["had_auth"] for entry in hub.log if entry["on"] == on} for on in ("hub", "cdn")}
    assert asked == {"hub": {True}, "cdn": {False}}


def test_a_token_is_written_nowhere(hub, scan, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.fault(match="/acme/base/resolve/", status=404)
    scanned = scan("acme/base", "acme/gated")
    assert (scanned.ran.code, TOKEN in scanned.ran.err) == (3, False)
    stored = [path for path in scanned.lake.rglob("*") if path.is_file()]
    assert stored
    assert not any(TOKEN.encode() in path.read_bytes() for path in stored)
    columns = "SELECT * FROM failures f FULL JOIN runs r ON true"
    assert TOKEN not in json.dumps(rows(scanned.lake, columns), default=str)


def test_failures_are_resolved_once_a_token_is_there(scan, monkeypatch):
    assert scan("acme/secret", "acme/gated").ran.code == 3
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    scanned = scan("acme/secret", "acme/gated")
    assert (scanned.ran.code, failures_of(scanned.lake)) == (0, [])
    assert rows(scanned.lake, "SELECT count(*) AS n FROM failures WHERE resolved") == [{"n": 2}]


def test_shards_are_read_through_their_index(scan):
    scanned = scan("acme/sharded")
    assert scanned.ran.code == 0
    assert rows(scanned.lake, "SELECT tensor, file FROM layers ORDER BY tensor") == [
        {"tensor": f"layers.{k}.weight", "file": f"model-0000{k + 1}-of-00002.safetensors"} for k in (0, 1)
    ]


def test_a_renamed_model_is_stored_under_its_new_name_once(scan):
    scanned = scan("acme/old", "acme/base")
    assert scanned.ran.code == 0
    assert rows(scanned.lake, "SELECT DISTINCT repo_id FROM layers") == [{"repo_id": "acme/base"}]


# What is read


def test_one_listing_and_few_ranges_and_never_a_whole_unneeded_file(hub, scan):
    assert scan("acme/base").ran.code == 0
    listings = [entry["path"] for entry in hub.log if entry["path"].startswith("/api/")]
    assert listings == ["/api/models/acme/base"]
    assert {entry["path"].rsplit("/", 1)[1] for entry in hub.log if entry["on"] == "cdn"} != {"README.md"}
    assert all(entry["range"] for entry in hub.log if entry["on"] == "cdn")


def test_the_client_asks_no_other_hub_of_its_own_accord(hub, tmp_path):
    """It looks up a list once a day, at the endpoint of its environment."""
    arguments = ("scan", "acme/base", "--lake", tmp_path / "lake", "--endpoint", hub.endpoint)
    chatty = {"HF_HUB_DISABLE_TELEMETRY": "0", "HF_HOME": str(tmp_path)}
    with ended(start_cli(*arguments, **chatty)) as process:
        assert finish(process).code == 0
    assert "/api/agent-harnesses" in [entry["path"] for entry in hub.log]


def test_nothing_of_a_model_is_written_to_disk(hub, tmp_path):
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    for folder in (home, scratch):
        folder.mkdir()
    places = {"HOME": str(home), "HF_HOME": str(home / "hf"), "TMPDIR": str(scratch)}
    arguments = ("scan", "acme/base", "acme/sharded", "--lake", tmp_path / "lake", "--endpoint", hub.endpoint)
    with ended(start_cli(*arguments, **places)) as process:
        assert finish(process).code == 0
    left = [path for folder in (home, scratch) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in left if path.suffix in (".safetensors", ".json", ".incomplete")] == []
    assert sum(path.stat().st_size for path in left) < 1000


def test_a_hub_and_a_folder_of_the_same_models_give_the_same_rows(zoo, zoo_scan, tmp_path):
    lake = tmp_path / "hub"
    with HubServer(zoo) as server:
        names = [f"{folder.parent.name}/{folder.name}" for folder in sorted(zoo.glob("*/*"))]
        ran = run_cli("scan", *names, "--lake", lake, "--endpoint", server.endpoint)
    assert ran.code == 3
    assert differences(lake, zoo_scan.lake, ignore=PLACE) == []
    found = rows(lake, "SELECT repo_id, file, tensor, kind FROM failures")
    assert {(f["repo_id"], f["file"], f["tensor"]): f["kind"] for f in found} == FAILURES


# What goes wrong on the way


def test_a_file_that_changes_while_it_is_read_fails_by_name(hub, scan, hasty):
    hub.fault(match="/acme/tuned/", on="cdn", skip=1, count=99, etag='"another"')
    scanned = scan("acme/base", "acme/tuned")
    assert scanned.ran.code == 3
    ((repo_id, kind, _, file),) = failures_of(scanned.lake)
    assert (repo_id, kind, file) == ("acme/tuned", "etag_changed", "model.safetensors")
    query = (
        "SELECT repo_id, status, count(*) AS n FROM layers WHERE status <> 'skipped' GROUP BY ALL ORDER BY 1"
    )
    assert [tuple(row.values()) for row in rows(scanned.lake, query)] == [
        ("acme/base", "ok", 2),
        ("acme/tuned", "failed", 2),
    ]


def test_a_connection_cut_twice_costs_nothing(hub, scan, hasty):
    hub.fault(match="base", on="cdn", skip=1, count=2, cut_after=100)
    assert scan("acme/base").ran.code == 0
    assert [entry["on"] for entry in hub.log].count("cdn") >= 4


def test_a_model_that_stays_down_fails_and_the_next_scan_completes_it(hub, scan, hasty, tmp_path):
    hub.fault(match="/acme/tuned/", on="cdn", skip=1, count=999, status=503)
    lake, summary = scan_soon(hub.endpoint, tmp_path, "acme/sharded", "acme/tuned")
    ((repo_id, kind, status, _),) = failures_of(lake)
    assert (repo_id, kind, status) == ("acme/tuned", "http_error", 503)
    assert [failure.retryable for failure in summary.failures] == [True]
    assert summary.counts.tensors_done == summary.counts.planned
    assert summary.counts.cost_done == pytest.approx(summary.counts.cost)
    assert rows(lake, "SELECT status, num_failed FROM models WHERE repo_id = 'acme/tuned'") == [
        {"status": "failed", "num_failed": 2}
    ]
    hub.clear()
    again = scan("acme/sharded", "acme/tuned")
    assert (again.ran.code, failures_of(again.lake)) == (0, [])
    assert rows(again.lake, "SELECT repo_id, status FROM models ORDER BY 1") == [
        {"repo_id": "acme/sharded", "status": "ok"},
        {"repo_id": "acme/tuned", "status": "ok"},
    ]
    assert rows(again.lake, "SELECT resolved FROM failures") == [{"resolved": True}]
    assert not any("/acme/sharded/resolve" in entry["path"] for entry in hub.log)


def test_a_hub_that_is_not_there_fails_every_model_by_name(hub, tmp_path, hasty):
    with HubServer(hub.tree.root) as gone:
        endpoint = gone.endpoint
    _, summary = scan_soon(endpoint, tmp_path, "acme/base", "acme/tuned")
    assert exit_code(summary) == 3
    for failure, name in zip(summary.failures, ("acme/base", "acme/tuned"), strict=True):
        assert (failure.kind, failure.retryable) == ("http_error", True)
        assert f"{name}: {endpoint} cannot be reached" in failure.message


def test_explain_names_a_model_that_is_not_there_once(hub, tmp_path):
    ran = run_cli("explain", "acme/missing", "w", "--endpoint", hub.endpoint, "--lake", tmp_path / "none")
    assert (ran.code, ran.err.count("acme/missing")) == (1, 1)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_endpoint_that_is_no_url_is_the_users_error(tmp_path, more):
    ran = run_cli("scan", "acme/base", "--lake", tmp_path / "lake", "--endpoint", "huggingface.co", *more)
    assert ran.code == 1
    assert "endpoint" in ran.err
