"""HubSource against a real hub on loopback: what it lists, what it reads, and each way the wire can lie."""

import contextlib
import gzip
import hashlib
import itertools
import json
import random
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from dataclasses import replace

import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from scripting import http, scripted

from jobs.hub.server import HubServer
from scanner.sources.hub import HubSource
from scanner.sources.transfer import TransferPolicy, UnreachableError
from schemas.errors import ConfigError, SourceError
from schemas.refs import FileRef, RepoRef, is_safe_path
from schemas.results import FailureKind

pytestmark = pytest.mark.usefixtures("clean_hub")
TOKEN = "hf_secretsecretsecret"
SIZE = 300_000
SHARD = random.Random(7).randbytes(SIZE)
CONFIG = json.dumps({"model_type": "test", "pad": "x" * 500}).encode()
CARD = b"---\nlicense: mit\nbase_model:\n- acme/root\npipeline_tag: text-generation\n---\n# Model\n"

POLICY = TransferPolicy(
    connect_timeout=2.0,
    read_timeout=0.25,
    attempts=3,
    backoff=0.005,
    backoff_cap=0.02,
    progress=50_000,
    rate_limit_margin=0.01,
    gap=1000,
    chunk=4096,
)
PATIENT = TransferPolicy(backoff=0.005, rate_limit_margin=0.01)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for name, settings_ in {
        "acme/model": {"downloads": 12, "likes": 3},
        "acme/gated": {"gated": "manual"},
        "acme/private": {"private": True},
        "acme/disabled": {"disabled": True},
        "acme/old": {"renamed_to": "acme/model"},
    }.items():
        folder = root / "models" / name
        folder.mkdir(parents=True)
        (folder / "sub dir").mkdir()
        (folder / "model.safetensors").write_bytes(SHARD)
        (folder / "sub dir" / "größe+%41.json").write_bytes(b"{}")
        (folder / "config.json").write_bytes(CONFIG)
        (folder / "empty.json").write_bytes(b"")
        (folder / "README.md").write_bytes(CARD)
        (folder / ".hub.json").write_text(json.dumps(settings_))
    with HubServer(root, token=TOKEN, test_control=True) as server:
        yield server


@pytest.fixture
def source(hub):
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=POLICY)) as opened:
        yield opened


@pytest.fixture
def repository(source, hub):
    found = source.repository("acme/model")
    hub.clear()
    return found


@pytest.fixture
def shard(repository):
    return file_of(repository, "model.safetensors")


def file_of(repository, path):
    return next(file for file in repository.files if file.path == path)


def refused(call, *args):
    with pytest.raises(SourceError) as caught:
        call(*args)
    return caught.value


def streamed(source, file, spans):
    return [bytes(buffer) for buffer in source.stream(file, spans)]


def pieces(spans):
    return [SHARD[start:stop] for start, stop in spans]


# What is listed


def test_repository_is_pinned_with_sizes_hashes_and_facts(source):
    found = source.repository("acme/model", "main")
    assert len(found.ref.revision) == 40
    shard, config = file_of(found, "model.safetensors"), file_of(found, "config.json")
    assert (shard.size, shard.sha256) == (SIZE, hashlib.sha256(SHARD).hexdigest())
    assert shard.content_id == shard.sha256
    assert (config.sha256, len(config.content_id)) == (None, 40)
    facts = found.facts
    assert (facts.license, facts.base_model, facts.pipeline_tag) == ("mit", "acme/root", "text-generation")
    assert (facts.downloads, facts.likes) == (12, 3)
    assert facts.last_modified is not None
    assert facts.card["base_model"] == ["acme/root"]


def test_a_listing_costs_one_request(source, hub):
    source.repository("acme/model")
    assert [entry["path"] for entry in hub.log] == ["/api/models/acme/model"]


def test_a_renamed_repository_has_its_new_name_and_old_references_still_read(source, repository):
    found = source.repository("acme/old")
    assert found.ref == repository.ref
    old = FileRef(RepoRef("acme/old", found.ref.revision), "model.safetensors", SIZE, "x")
    assert source.read(old, 5, 50) == SHARD[5:50]


@pytest.mark.parametrize(
    ("repo_id", "revision", "kind", "status"),
    [
        ("acme/missing", None, FailureKind.REPO_MISSING_OR_PRIVATE, 401),
        ("acme/private", None, FailureKind.REPO_MISSING_OR_PRIVATE, 401),
        ("acme/disabled", None, FailureKind.DISABLED, 403),
        ("acme/model", "no-such-branch", FailureKind.REVISION_GONE, 404),
        ("acme/../x", None, FailureKind.REPO_MISSING_OR_PRIVATE, None),
    ],
)
def test_refusals_of_a_listing(hub, repo_id, revision, kind, status):
    with contextlib.closing(HubSource(hub.endpoint, False, policy=POLICY)) as anonymous:
        error = refused(anonymous.repository, repo_id, revision)
    assert (error.kind, error.http_status, error.retryable) == (kind, status, False)


def test_a_wrong_token_is_an_error_that_does_not_show_it(hub):
    with contextlib.closing(HubSource(hub.endpoint, "hf_wrongwrongwrong", policy=POLICY)) as source:
        error = refused(source.repository, "acme/model")
    assert (error.kind, error.http_status) == (FailureKind.HTTP_ERROR, 401)
    assert "hf_wrong" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("token", ["hf_line\nbreak", "hf_gr\u00f6sse"])
def test_a_token_that_is_no_header_text_is_refused_without_showing_it(token):
    with pytest.raises(ConfigError) as caught:
        HubSource("http://127.0.0.1:9", token)
    assert token not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://huggingface.co", "https://user:pw@host"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(ConfigError, match="endpoint"):
        HubSource(endpoint, False)


def test_a_listing_survives_one_503_and_one_rate_limit(source, hub):
    hub.fault(match="/api/models/", status=503)
    hub.fault(match="/api/models/", status=429, headers={"RateLimit": '"api";r=0;t=0'})
    assert source.repository("acme/model").files
    assert [entry["status"] for entry in hub.log] == [503, 429, 200]


def test_a_listing_gives_up_on_a_hub_that_stays_down(source, hub):
    hub.fault(match="/api/models/", status=503, count=99)
    error = refused(source.repository, "acme/model")
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.HTTP_ERROR, 503, True)
    assert len(hub.log) == POLICY.attempts


def test_a_hub_that_is_not_there_is_retryable():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.closing(HubSource(f"http://127.0.0.1:{port}", False, policy=POLICY)) as source:
        error = refused(source.repository, "acme/model")
        assert (error.kind, error.http_status, error.retryable) == (FailureKind.HTTP_ERROR, None, True)
        file = FileRef(RepoRef("acme/model", "0" * 40), "model.safetensors", SIZE, "x")
        error = refused(source.read, file, 0, 8)
        assert (error.kind, error.retryable) == (FailureKind.HTTP_ERROR, True)


@pytest.mark.parametrize("silence", [60.0, 0.0])
def test_a_hub_that_never_answered_is_not_asked_for_each_model(hub, silence):
    """Each would wait as long; when it has been left alone for a while, it is asked again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint, policy = f"http://127.0.0.1:{port}", replace(POLICY, silence=silence)
    with contextlib.closing(HubSource(endpoint, False, policy=policy)) as source:
        for name in ("acme/model", "acme/old"):
            error = refused(source.repository, name)
            assert isinstance(error, UnreachableError)
            assert error.message.startswith(f"{name}: {endpoint} cannot be reached (")
            assert "HF_ENDPOINT" in error.message
        with HubServer(hub.tree.root, port=port):
            if silence:
                assert isinstance(refused(source.repository, "acme/model"), UnreachableError)
            else:
                assert source.repository("acme/model").files


def test_a_hub_that_goes_away_is_waited_for(hub):
    with HubServer(hub.tree.root) as server:
        source = HubSource(server.endpoint, False, policy=POLICY)
        source.repository("acme/model")
    with contextlib.closing(source):
        error = refused(source.repository, "acme/model")
    assert "cannot be reached" in error.message
    assert not isinstance(error, UnreachableError)


def test_a_silent_hub_ends_in_a_stall(source, hub):
    hub.fault(match="/api/models/", delay=3.0, count=99)
    error = refused(source.repository, "acme/model")
    assert (error.kind, error.retryable) == (FailureKind.STALLED, True)


# What is read


def test_one_resolve_and_one_storage_request_for_many_spans(source, hub, shard):
    spans = [(start, start + 2900) for start in range(0, SIZE - 3000, 3000)]
    assert streamed(source, shard, spans) == pieces(spans)
    assert [(entry["on"], entry["range"]) for entry in hub.log] == [
        ("hub", f"bytes=0-{spans[-1][1] - 1}"),
        ("cdn", f"bytes=0-{spans[-1][1] - 1}"),
    ]


def test_spans_far_apart_are_separate_requests_of_one_resolve(source, hub, shard):
    spans = [(0, 100), (600, 700), (150_000, 150_100), (SIZE - 10, SIZE)]
    assert streamed(source, shard, spans) == pieces(spans)
    assert source.read(shard, 8, 16) == SHARD[8:16]
    assert [entry["on"] for entry in hub.log].count("hub") == 1
    assert [entry["range"] for entry in hub.log if entry["on"] == "cdn"] == [
        "bytes=0-699",
        "bytes=150000-150099",
        f"bytes={SIZE - 10}-{SIZE - 1}",
        "bytes=8-15",
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, SIZE), max_size=12), st.booleans())
def test_any_spans_give_the_bytes_of_the_file(hub, cuts, only_some):
    edges = sorted(cuts)
    spans = list(zip(edges[::2], edges[1::2], strict=False)) if only_some else list(itertools.pairwise(edges))
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=POLICY)) as source:
        file = file_of(source.repository("acme/model"), "model.safetensors")
        assert streamed(source, file, spans) == pieces(spans)


def test_buffers_are_fresh_and_writable(source, shard):
    first, second = source.stream(shard, [(0, 10), (10, 20)])
    first[:] = bytes(10)
    assert second == SHARD[10:20]


def test_streams_may_be_interleaved_and_abandoned(source, repository, shard):
    one, other = source.stream(shard, [(0, 9), (9, 90_000)]), source.stream(shard, [(9, 18), (20, 99)])
    assert (next(one), next(other)) == (SHARD[:9], SHARD[9:18])
    assert source.read(file_of(repository, "config.json"), 0, len(CONFIG)) == CONFIG
    assert next(one) == SHARD[9:90_000]
    other.close()
    assert source.read(shard, 1, 2) == SHARD[1:2]


def test_small_files_come_from_the_hub_itself(source, hub, repository):
    config = file_of(repository, "config.json")
    assert source.read(config, 0, config.size) == CONFIG
    assert source.read(config, 3, 8) == CONFIG[3:8]
    assert {entry["on"] for entry in hub.log} == {"hub"}
    assert source.read(file_of(repository, "sub dir/größe+%41.json"), 0, 2) == b"{}"


def test_empty_spans_cost_no_request(source, hub, repository, shard):
    assert source.read(file_of(repository, "empty.json"), 0, 0) == b""
    assert streamed(source, shard, [(5, 5), (SIZE, SIZE)]) == [b"", b""]
    assert hub.log == []


def test_bytes_beyond_the_file_and_spans_out_of_order_are_refused(source, shard):
    assert refused(source.read, shard, 0, SIZE + 1).kind is FailureKind.SIZE_MISMATCH
    with pytest.raises(ValueError, match="overlap"):
        streamed(source, shard, [(10, 20), (15, 30)])


def test_a_closed_source_can_be_used_again(source, shard):
    source.read(shard, 0, 8)
    source.close()
    assert source.read(shard, 0, 8) == SHARD[:8]


def test_a_small_file_may_come_whole_and_without_length(source, hub, repository):
    hub.fault(match="config.json", ignore_range=True, no_length=True)
    assert source.read(file_of(repository, "config.json"), 0, len(CONFIG)) == CONFIG


# Who learns what


def test_the_token_never_reaches_the_storage_port(source, hub, shard):
    streamed(source, shard, [(0, 10), (100_000, 100_010)])
    assert {(entry["on"], entry["had_auth"]) for entry in hub.log} == {("hub", True), ("cdn", False)}


def test_the_token_does_not_come_back_after_a_detour(source, hub, shard):
    hub.fault(on="cdn", status=302, location=f"{hub.endpoint}/acme/private/resolve/main/model.safetensors")
    error = refused(source.read, shard, 0, 10)
    assert error.kind is FailureKind.REPO_MISSING_OR_PRIVATE
    assert [(entry["on"], entry["had_auth"]) for entry in hub.log] == [
        ("hub", True),
        ("cdn", False),
        ("hub", False),
    ]


@pytest.mark.parametrize(
    "knobs",
    [
        {"on": "cdn", "status": 500, "count": 99},
        {"on": "cdn", "status": 403, "count": 99},
        {"on": "cdn", "cut_after": 3, "count": 99},
        {"on": "cdn", "etag": '"other"', "skip": 1, "count": 99},
        {"on": "cdn", "status": 302, "location": "https://evil.example/x?X-Signature=abc&expires=1"},
    ],
)
def test_errors_show_neither_the_token_nor_the_signed_url(source, hub, shard, knobs):
    hub.fault(**knobs)
    error = refused(streamed, source, shard, [(0, 10), (100_000, 100_010)])
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert TOKEN not in shown
    assert "X-Signature" not in shown
    assert "acme/model@" in error.message
    assert "model.safetensors" in error.message
    assert error.file == "model.safetensors"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://evil.example/file", "evil.example"),
        ("https://evilhf.co/file", "evilhf.co"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://cdn.hf.co/file", "cdn.hf.co"),
        ("file:///etc/passwd", "http"),
        ("https://user@cdn.hf.co/file", "plain"),
        ("https://cdn.hf.co/with space", "characters"),
        ("//[bad", "URL"),
    ],
)
def test_redirects_to_strangers_are_refused(source, hub, shard, location, reason):
    hub.fault(on="hub", match="/resolve/", status=302, location=location)
    error = refused(source.read, shard, 0, 10)
    assert (error.kind, error.retryable) == (FailureKind.REDIRECT_REFUSED, False)
    assert reason in error.message
    assert len(hub.log) == 1


def test_a_redirect_loop_ends(source, hub, shard):
    hub.fault(on="hub", match="/resolve/", status=302, location="?again", count=99)
    assert refused(source.read, shard, 0, 10).kind is FailureKind.REDIRECT_REFUSED
    assert len(hub.log) == POLICY.max_hops + 1


# Refusals while reading


def test_gated_files_are_listed_but_not_read(source):
    found = source.repository("acme/gated")
    error = refused(source.read, file_of(found, "model.safetensors"), 0, 8)
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.GATED, 403, False)


def test_a_file_that_is_gone(source, repository):
    gone = FileRef(repository.ref, "gone.safetensors", SIZE, "x")
    assert refused(source.read, gone, 0, 8).kind is FailureKind.ENTRY_MISSING


def test_a_commit_that_is_gone(source):
    lost = FileRef(RepoRef("acme/model", "0" * 40), "model.safetensors", SIZE, "x")
    assert refused(source.read, lost, 0, 8).kind is FailureKind.REVISION_GONE


@pytest.mark.parametrize(
    "path",
    [
        "../secret.json",
        "a/../b.safetensors",
        "/etc/passwd",
        "a//b",
        "",
        ".",
        "a/.",
        "a\\b",
        "a\nb",
        "a\ud800",
    ],
)
def test_unsafe_paths_are_never_asked_for(source, hub, repository, path):
    assert not is_safe_path(path)
    unsafe = FileRef(repository.ref, path, SIZE, "x")
    assert refused(source.read, unsafe, 0, 8).kind is FailureKind.UNSAFE_PATH
    assert hub.log == []


@pytest.mark.parametrize(
    "path", ["model.safetensors", "a/b-c/..d/e..json", ".gitattributes", "größe.json", "..."]
)
def test_safe_paths(path):
    assert is_safe_path(path)


# Faults of the wire


def test_a_rate_limit_is_waited_out_and_is_no_failure(hub, shard):
    hub.fault(match="/resolve/", status=429, headers={"RateLimit": '"resolvers";r=0;t=1'})
    hub.fault(match="/resolve/", status=429, headers={"Retry-After": "0"}, count=POLICY.attempts)
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=PATIENT)) as source:
        assert source.read(shard, 0, 8) == SHARD[:8]


@pytest.mark.parametrize(
    "headers", [{"RateLimit": '"resolvers";r=0;t=9999'}, {"Retry-After": "9" * 5000}, {}]
)
def test_a_rate_limit_beyond_patience_ends_at_once(hub, shard, headers):
    hub.fault(match="/resolve/", status=429, headers=headers)
    policy = TransferPolicy(rate_limit_patience=5.0)
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=policy)) as source:
        error = refused(source.read, shard, 0, 8)
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.HTTP_ERROR, 429, True)


@pytest.mark.parametrize("on", ["hub", "cdn"])
def test_503_once_and_always(source, hub, shard, on):
    hub.fault(on=on, status=503)
    assert source.read(shard, 0, 8) == SHARD[:8]
    hub.fault(on=on, status=503, count=99)
    source.close()
    error = refused(source.read, shard, 0, 8)
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.HTTP_ERROR, 503, True)


@pytest.mark.parametrize("no_length", [False, True])
def test_a_cut_body_is_resumed_where_it_broke(source, hub, shard, no_length):
    spans = [(1000, 100_000), (100_500, 250_000)]
    hub.fault(on="cdn", cut_after=70_001, no_length=no_length)
    hub.fault(on="cdn", cut_after=29_199, no_length=no_length)
    assert streamed(source, shard, spans) == pieces(spans)
    assert [entry["range"] for entry in hub.log] == [
        "bytes=1000-249999",
        "bytes=1000-249999",
        "bytes=71001-249999",
        "bytes=100500-249999",
    ]


def test_progress_forgives_earlier_cuts(source, hub, shard):
    hub.fault(on="cdn", cut_after=60_000, count=4)
    assert source.read(shard, 0, SIZE) == SHARD


def test_a_body_that_is_always_cut_stalls(source, hub, shard):
    hub.fault(on="cdn", cut_after=10, count=99)
    error = refused(source.read, shard, 0, SIZE)
    assert (error.kind, error.retryable) == (FailureKind.STALLED, True)
    assert len(hub.log) == 1 + POLICY.attempts


@pytest.mark.parametrize("knob", ["delay", "stall"])
def test_silence_before_or_after_the_headers_is_retried(source, hub, shard, knob):
    hub.fault(on="cdn", **{knob: 2.0})
    assert source.read(shard, 0, SIZE) == SHARD
    assert len(hub.log) == 3


def test_endless_silence_stalls(hub, shard):
    hub.fault(on="cdn", stall=2.0, count=99)
    policy = TransferPolicy(read_timeout=0.05, attempts=2, backoff=0.005)
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=policy)) as source:
        error = refused(source.read, shard, 0, SIZE)
    assert (error.kind, error.retryable) == (FailureKind.STALLED, True)


def test_a_trickle_below_the_minimum_rate_stalls(hub, shard):
    hub.fault(on="cdn", rate=2000.0, count=99)
    policy = TransferPolicy(min_rate=1e6, min_rate_window=0.1, attempts=2, backoff=0.005)
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=policy)) as source:
        error = refused(source.read, shard, 0, SIZE)
    assert (error.kind, error.retryable) == (FailureKind.STALLED, True)
    assert "slower" in error.message


def test_a_slow_consumer_is_no_slow_transfer(hub, shard):
    policy = TransferPolicy(min_rate=1e6, min_rate_window=0.1, attempts=1)
    with contextlib.closing(HubSource(hub.endpoint, TOKEN, policy=policy)) as source:
        for (start, stop), buffer in zip(
            [(0, 100_000), (100_000, SIZE)],
            source.stream(shard, [(0, 100_000), (100_000, SIZE)]),
            strict=True,
        ):
            assert buffer == SHARD[start:stop]
            threading.Event().wait(0.15)


def test_an_ignored_range_is_taken_from_the_start_only_and_capped(source, hub, shard):
    hub.fault(on="cdn", ignore_range=True, count=2)
    assert source.read(shard, 0, 1000) == SHARD[:1000]
    error = refused(source.read, shard, 1000, 2000)
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.RANGE_IGNORED, 200, False)


@pytest.mark.parametrize(
    ("knobs", "kind"),
    [
        ({"wrong_content_range": True}, FailureKind.RANGE_IGNORED),
        ({"headers": {"Content-Range": "bytes 0-9"}}, FailureKind.RANGE_IGNORED),
        ({"headers": {"Content-Range": f"bytes 0-99/{SIZE}"}}, FailureKind.RANGE_IGNORED),
        ({"headers": {"Content-Range": "bytes 0-9/10"}}, FailureKind.SIZE_MISMATCH),
        ({"gzip": True}, FailureKind.RANGE_IGNORED),
        ({"status": 416}, FailureKind.SIZE_MISMATCH),
        ({"status": 404}, FailureKind.HTTP_ERROR),
    ],
)
def test_answers_about_other_bytes_are_refused(source, hub, shard, knobs, kind):
    hub.fault(on="cdn", **knobs)
    error = refused(source.read, shard, 0, 10)
    assert (error.kind, error.retryable) == (kind, False)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("X-Repo-Commit", "f" * 40, FailureKind.ETAG_CHANGED),
        ("X-Linked-Size", "12", FailureKind.SIZE_MISMATCH),
        ("X-Linked-Etag", f'"{"e" * 64}"', FailureKind.ETAG_CHANGED),
    ],
)
def test_a_link_to_another_file_is_refused(source, hub, shard, name, value, kind):
    hub.fault(match="/resolve/", headers={name: value})
    assert refused(source.read, shard, 0, 10).kind is kind
    assert [entry["on"] for entry in hub.log] == ["hub"]


def test_an_etag_that_changes_within_a_shard(source, hub, shard):
    hub.fault(on="cdn", etag='"other"', skip=1)
    error = refused(streamed, source, shard, [(0, 10), (100_000, 100_010)])
    assert (error.kind, error.retryable) == (FailureKind.ETAG_CHANGED, False)


def test_an_expired_signature_is_resolved_again_in_the_middle_of_a_shard(source, hub, shard):
    hub.fault(on="cdn", cut_after=50_000)
    hub.fault(on="cdn", status=403)
    assert source.read(shard, 0, SIZE) == SHARD
    assert [(entry["on"], entry["status"]) for entry in hub.log] == [
        ("hub", 302),
        ("cdn", 206),
        ("cdn", 403),
        ("hub", 302),
        ("cdn", 206),
    ]


def test_a_signature_may_expire_more_than_once(source, hub, shard):
    for _ in range(3):
        hub.fault(on="cdn", status=403)
        assert source.read(shard, 0, 10) == SHARD[:10]


def test_a_signature_that_is_dead_at_birth(source, hub, shard):
    hub.fault(match="/resolve/", ttl=-1.0)
    assert source.read(shard, 0, 10) == SHARD[:10]


def test_a_storage_host_that_always_refuses(source, hub, shard):
    hub.fault(on="cdn", status=403, count=99)
    error = refused(source.read, shard, 0, 10)
    assert (error.kind, error.http_status, error.retryable) == (FailureKind.CDN_FORBIDDEN, 403, False)
    assert len(hub.log) == 4


# What only a server of bytes can do


def answered(*answers, tls=None):
    """What ten bytes are read as, given these answers."""
    file = FileRef(RepoRef("acme/model", "0" * 40), "a.json", 10, "x")
    with (
        scripted(*answers, tls=tls) as endpoint,
        contextlib.closing(HubSource(endpoint, False, policy=POLICY)) as source,
    ):
        return source.read(file, 0, 10)


WHOLE = ("Content-Length: 10", "Content-Range: bytes 0-9/10")


def test_a_server_may_send_less_than_asked():
    first = http("206 P", ("Content-Length: 4", "Content-Range: bytes 0-3/10"), b"0123")
    rest = http("206 P", ("Content-Length: 6", "Content-Range: bytes 4-9/10"), b"456789")
    assert answered(first, rest) == b"0123456789"


def test_no_more_is_taken_than_a_server_announces():
    first = http("206 P", ("Content-Length: 10", "Content-Range: bytes 0-3/10"), b"0123abcdef")
    rest = http("206 P", ("Content-Length: 6", "Content-Range: bytes 4-9/10"), b"456789")
    assert answered(first, rest) == b"0123456789"


def test_a_chunked_body_and_a_body_until_the_end_of_the_connection():
    chunked = b"4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n"
    assert answered(http("200 OK", ("Transfer-Encoding: chunked",), chunked)) == b"0123456789"
    assert answered(http("200 OK", (), b"0123456789 and more")) == b"0123456789"


def test_a_keep_alive_connection_that_died_is_replaced_without_a_failure():
    policy = TransferPolicy(attempts=1)
    file = FileRef(RepoRef("acme/model", "0" * 40), "a.json", 10, "x")
    answers = [http("206 P", WHOLE, b"0123456789")] * 2
    with (
        scripted(*answers) as endpoint,
        contextlib.closing(HubSource(endpoint, False, policy=policy)) as source,
    ):
        assert [source.read(file, 0, 10) for _ in answers] == [b"0123456789"] * 2


@pytest.mark.parametrize(
    "garbage",
    [b"", b"SSH-2.0-server\r\n", http("200 OK", ["A: b"] * 200), http("200 OK", [f"A: {'x' * 70_000}"])],
)
def test_no_http_is_retried(garbage):
    assert answered(garbage, http("206 P", WHOLE, b"0123456789")) == b"0123456789"


def test_a_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(1 << 20))
    error = refused(
        answered, http("200 OK", ("Content-Encoding: gzip", f"Content-Length: {len(bomb)}"), bomb)
    )
    assert error.kind is FailureKind.RANGE_IGNORED


def test_a_whole_answer_of_another_length():
    error = refused(answered, http("200 OK", ("Content-Length: 11",), b"0123456789a"))
    assert error.kind is FailureKind.SIZE_MISMATCH


def test_https_is_verified_against_the_trusted_certificates(certificate, monkeypatch):
    key, pem = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, key)
    answer = http("206 P", WHOLE, b"0123456789")
    error = refused(lambda: answered(answer, tls=server))
    assert (error.kind, error.retryable) == (FailureKind.HTTP_ERROR, False)
    assert "certificate" in error.message
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    assert answered(answer, tls=server) == b"0123456789"


def listed(description, revision=None):
    body = json.dumps(description).encode() if isinstance(description, dict) else description
    answer = http("200 OK", (f"Content-Length: {len(body)}", "Connection: close"), body)
    with (
        scripted(answer) as endpoint,
        contextlib.closing(HubSource(endpoint, False, policy=POLICY)) as source,
    ):
        return source.repository("acme/model", revision)


def described(**changes):
    return {"id": "acme/model", "sha": "a" * 40, "siblings": [], **changes}


@pytest.mark.parametrize(
    "description",
    [
        b"no JSON",
        b"[]",
        {"sha": "a" * 40},
        described(sha="main"),
        described(sha=None),
        described(siblings=[{"name": "x"}]),
        described(siblings=7),
        described(lastModified="yesterday"),
        described(cardData={"self": 1}),
    ],
)
def test_a_description_that_cannot_be_read_is_not_retryable(description):
    error = refused(listed, description)
    assert (error.kind, error.retryable) == (FailureKind.HTTP_ERROR, False)


def test_another_commit_than_the_one_asked_for_is_refused():
    assert refused(listed, described(), "b" * 40).kind is FailureKind.ETAG_CHANGED


def test_offline_mode_is_named(source, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(source.repository, "acme/model")
    assert (error.kind, error.retryable) == (FailureKind.OFFLINE, False)


def test_unsafe_names_are_left_out_or_fail_the_repository():
    plain = {"rfilename": "a.json", "size": 1, "blobId": "b" * 40}
    found = listed(described(siblings=[plain, {"rfilename": "../x.bin", "size": 1}, {"rfilename": "y.bin"}]))
    assert [file.path for file in found.files] == ["a.json"]
    unsafe = {"rfilename": "../x.safetensors", "size": 1}
    assert refused(listed, described(siblings=[unsafe])).kind is FailureKind.UNSAFE_PATH
    sizeless = {"rfilename": "x.safetensors"}
    assert refused(listed, described(siblings=[sizeless])).kind is FailureKind.SIZE_MISMATCH


def test_hostile_facts_are_bounded():
    card = {"license": "\x1b[31mmit", "base_model": ["x" * 9999], "deep": [[[[[[[[[]]]]]]]]]}
    facts = listed(described(cardData=card, tags="no list", downloads=-1, likes="many")).facts
    assert (facts.license, len(facts.base_model), facts.downloads, facts.likes) == (
        "\ufffd[31mmit",
        512,
        None,
        None,
    )
    assert "deep" not in facts.card


def test_the_hub_client_is_not_imported_with_the_scanner():
    modules = "scanner, scanner.sources, scanner.sources.rangereader"
    code = f"import sys, {modules}; print('huggingface_hub' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "False\n"
