"""Where the reader may go."""

import contextlib
import socket

import pytest

from scanner.sources.transfer import DEFAULT_POLICY
from scanner.sources.wire import (
    Connection,
    Origin,
    RefusedHostError,
    is_public,
    redirect_target,
    request_target,
    resolves_privately,
)

HUB = "https://huggingface.co/acme/model/resolve/abc/model.safetensors"
PUBLIC = Origin.of("https://huggingface.co")
LOOPBACK = Origin.of("http://127.0.0.1:8000")


def allowed(location, base=HUB, endpoint=PUBLIC, private=False):
    try:
        return redirect_target(location, base, endpoint, endpoint_is_private=private)
    except RefusedHostError:
        return None


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://Huggingface.CO/x", "huggingface.co"),
        ("https://huggingface.co:443/x", "huggingface.co"),
        ("http://huggingface.co:443/x", "huggingface.co:443"),
        ("http://[::1]:8000/x", "[::1]:8000"),
    ],
)
def test_the_host_header_leaves_out_the_default_port(url, authority):
    assert Origin.of(url).authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "huggingface.co",
        "ftp://huggingface.co",
        "https://",
        "https://user@huggingface.co",
        "https://huggingface.co:port",
        "https://huggingface.co:99999",
        "https://huggingface.co/a b",
        "https://huggingface.co/\r\nHost: x",
        "https://größe.hf.co",
        "https://[::1",
    ],
)
def test_what_is_no_origin(url):
    with pytest.raises(RefusedHostError):
        Origin.of(url)


def test_path_and_query_are_sent_as_they_are():
    assert request_target("https://cdn.hf.co/a%2Fb//c?x=1&y=%20#part") == "/a%2Fb//c?x=1&y=%20"
    assert request_target("https://cdn.hf.co") == "/"


@pytest.mark.parametrize(
    "location",
    [
        "https://huggingface.co/new/name",
        "https://us.aws.cdn.hf.co/xet-bridge-us/abc?Signature=x",
        "https://cdn-lfs.huggingface.co/x",
        "https://cas-bridge.xethub.hf.co/x",
    ],
)
def test_the_public_hub_and_its_storage(location):
    assert allowed(location) == location


def test_relative_redirects_stay_on_their_host():
    assert allowed("/new/name") == "https://huggingface.co/new/name"
    assert allowed("//cdn.hf.co/x") == "https://cdn.hf.co/x"


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/x",
        "https://huggingface.co.evil.example/x",
        "https://evilhf.co/x",
        "https://hf.co.evil/x",
        "http://cdn.hf.co/x",
        "http://huggingface.co/x",
        "https://huggingface.co:8443/x",
        "https://cdn.hf.co@evil.example/x",
        "https://evil.example\\@cdn.hf.co/x",
        "http://169.254.169.254/latest",
        "https://127.0.0.1/x",
        "javascript:alert(1)",
    ],
)
def test_all_others_are_refused(location):
    assert allowed(location) is None


def test_a_private_endpoint_may_send_to_its_own_other_ports():
    here = "http://127.0.0.1:8000/a"
    assert allowed("http://127.0.0.1:9000/x", here, LOOPBACK, private=True)
    assert allowed("http://127.0.0.1:9000/x", here, LOOPBACK, private=False) is None
    assert allowed("http://127.0.0.2:9000/x", here, LOOPBACK, private=True) is None
    assert allowed("http://10.0.0.1:8000/x", here, LOOPBACK, private=True) is None
    assert allowed("https://cdn.hf.co/x", here, LOOPBACK, private=True)


def test_encryption_is_never_given_up():
    assert allowed("http://127.0.0.1:8000/x", "https://cdn.hf.co/x", LOOPBACK, private=True) is None


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2600::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.16.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_a_host_is_judged_by_its_addresses():
    assert resolves_privately(LOOPBACK)
    assert resolves_privately(Origin.of("http://localhost"))
    assert not resolves_privately(Origin.of("http://8.8.8.8"))
    with pytest.raises(RefusedHostError):
        resolves_privately(Origin.of(f"http://{'a' * 70}.hf.co"))


@pytest.mark.parametrize("public_only", [False, True])
def test_a_public_only_connection_never_touches_a_private_address(public_only):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        origin = Origin.of(f"http://localhost:{listener.getsockname()[1]}")
        with contextlib.closing(Connection(origin, DEFAULT_POLICY, None, public_only=public_only)) as link:
            if not public_only:
                link.connect()
                listener.accept()[0].close()
                return
            with pytest.raises(RefusedHostError, match="private network"):
                link.connect()
        with pytest.raises(TimeoutError):
            listener.accept()
