"""Through a proxy: what is listed and what is read, its login, its refusals, and what they are called."""

import contextlib
import socket
import ssl
import traceback
from urllib.parse import quote

import pytest
from huggingface_hub import close_session
from proxying import forward_proxy
from running import finish, rows, start_cli
from scripting import http, scripted

from jobs.hub.server import HubServer
from scanner.sources.hub import HubSource
from scanner.sources.transfer import TransferPolicy
from schemas.errors import SourceError
from schemas.refs import FileRef, RepoRef
from schemas.results import FailureKind

POLICY = TransferPolicy(connect_timeout=2.0, read_timeout=0.25, attempts=2, backoff=0.005)
FILE = FileRef(RepoRef("acme/model", "0" * 40), "a.json", 10, "x")
BYTES = http("206 P", ("Content-Length: 10", "Content-Range: bytes 0-9/10"), b"0123456789")
LOGIN = "user:pa ss@1"


def read(endpoint):
    with contextlib.closing(HubSource(endpoint, False, policy=POLICY)) as source:
        return source.read(FILE, 0, 10)


def refused(endpoint):
    with pytest.raises(SourceError) as caught:
        read(endpoint)
    assert "pa ss" not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_a_scan_lists_and_reads_through_the_proxy_that_the_environment_names(hub_root, tmp_path):
    with forward_proxy(LOGIN) as proxy, HubServer(hub_root, test_control=True) as hub:
        url = proxy.url.replace(LOGIN, quote(LOGIN, safe=":"))
        ran = finish(
            start_cli(
                "scan", "acme/base", "--endpoint", hub.endpoint, "--lake", tmp_path / "lake", HTTP_PROXY=url
            )
        )
        assert ran.code == 0, ran.err
        asked = [target for _, target in proxy.asked]
        assert len(asked) == len(hub.log) >= 3
    assert all(target.startswith("http://127.0.0.1:") for target in asked)
    assert {"api" in target for target in asked} == {True, False}
    counted = rows(tmp_path / "lake", "SELECT count(*) n FROM layers WHERE status = 'ok'")
    assert counted == [{"n": 2}]


def test_hosts_of_no_proxy_are_asked_themselves(hub_root, tmp_path):
    with forward_proxy() as proxy, HubServer(hub_root) as hub:
        settings = {"ALL_PROXY": proxy.url, "NO_PROXY": "127.0.0.0/8"}
        ran = finish(
            start_cli(
                "scan", "acme/base", "--endpoint", hub.endpoint, "--lake", tmp_path / "lake", **settings
            )
        )
    assert (ran.code, proxy.asked) == (0, [])


@pytest.fixture
def tls(certificate, monkeypatch):
    key, pem = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    return server


def test_https_goes_through_a_tunnel_that_sees_neither_the_request_nor_the_answer(tls, monkeypatch):
    with forward_proxy("user:secret") as proxy, scripted(BYTES, tls=tls) as endpoint:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert read(endpoint) == b"0123456789"
    place = endpoint.removeprefix("https://")
    assert proxy.asked == [("CONNECT", place)]
    assert proxy.headers == [{"host": place, "proxy-authorization": "Basic dXNlcjpzZWNyZXQ="}]


def test_a_certificate_is_judged_through_the_tunnel_too(tls, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with forward_proxy() as proxy, scripted(BYTES, tls=tls) as endpoint:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = refused(endpoint)
    assert "certificate of 127.0.0.1 through the proxy 127.0.0.1:" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login_says_so_and_is_not_asked_again(scheme, monkeypatch):
    with forward_proxy(LOGIN) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://user:wrong@127.0.0.1:{proxy.port}")
        error = refused(f"{scheme}://127.0.0.1:9")
    assert (error.http_status, error.retryable, len(proxy.asked)) == (407, False, 1)
    assert "the proxy wants a login: give it as http://user:password@host:port" in error.message


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (502, POLICY.attempts)])
def test_a_tunnel_refused_is_named_and_tried_again_where_that_may_help(status, tries, monkeypatch):
    with forward_proxy(refuses=status) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        error = refused("https://127.0.0.1:9")
    assert len(proxy.asked) == tries
    assert (error.kind, error.http_status) == (FailureKind.HTTP_ERROR, status)
    assert f"127.0.0.1:{proxy.port}: the proxy refuses to connect (HTTP {status})" in error.message


@pytest.fixture
def listed(monkeypatch):
    """What a listing says; the client looks at the environment when it is made."""

    def listing(endpoint, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        close_session()
        with (
            contextlib.closing(HubSource(endpoint, False, policy=POLICY)) as source,
            pytest.raises(SourceError) as caught,
        ):
            source.repository("acme/model")
        assert "secret" not in caught.value.message
        return caught.value

    yield listing
    monkeypatch.undo()
    close_session()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named_by_listing_and_reading(scheme, listed):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"{scheme}://127.0.0.1:9"
    for error in (listed(endpoint, ALL_PROXY=f"http://me:secret@127.0.0.1:{port}"), refused(endpoint)):
        assert f"through the proxy 127.0.0.1:{port}" in error.message
        assert (error.kind, error.retryable) == (FailureKind.HTTP_ERROR, True)


def test_a_listing_that_lacks_the_proxys_login_says_so_at_once(listed):
    with forward_proxy(LOGIN) as proxy:
        error = listed("https://127.0.0.1:9", ALL_PROXY=f"http://127.0.0.1:{proxy.port}")
        assert len(proxy.asked) == 1
    assert not error.retryable
    assert "the proxy wants a login" in error.message


def test_a_proxy_of_another_kind_ends_the_command_before_anything_is_asked(tmp_path):
    ran = finish(start_cli("scan", "acme/base", "--lake", tmp_path / "lake", ALL_PROXY="socks5://x:1080"))
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("error: ALL_PROXY names a proxy of scheme 'socks5'")
    assert not (tmp_path / "lake").exists()
