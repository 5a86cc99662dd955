"""Which proxy stands before which host; the hub's client is the oracle."""

import itertools

import pytest
from huggingface_hub.utils import httpx

from scanner.sources.proxies import Proxies, Proxy
from schemas.errors import ConfigError

NAMED = {"http": "http://one:1", "https": "http://two:2", "all": "http://three:3"}


def before(url, **named):
    parts = httpx.URL(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    found = Proxies(named).before(parts.scheme, parts.host, port)
    return found and f"http://{found.host}:{found.port}"


@pytest.mark.parametrize(
    ("url", "names", "proxy"),
    [
        ("https://huggingface.co/x", "http https all", "http://two:2"),
        ("http://huggingface.co/x", "http https all", "http://one:1"),
        ("https://huggingface.co/x", "http all", "http://three:3"),
        ("https://huggingface.co/x", "http", None),
        ("http://huggingface.co/x", "", None),
    ],
)
def test_the_scheme_chooses(url, names, proxy):
    assert before(url, **{name: NAMED[name] for name in names.split()}) == proxy


ENTRIES = [
    "*",
    "hf.co",
    ".hf.co",
    "*.hf.co",
    "cdn.hf.co:8443",
    "f.co",
    "localhost",
    "127.0.0.1",
    "127.0.0.0/8",
    "10.0.0.0/8",
    "::1",
    "https://hf.co",
    "http://hf.co",
    " x , HF.co ",
    "x,,y",
]
URLS = [
    "https://hf.co/x",
    "https://cdn.hf.co/x",
    "https://cdn.hf.co:8443/x",
    "https://evilhf.co/x",
    "http://hf.co/x",
    "http://localhost:8000/x",
    "http://my.localhost/x",
    "http://127.0.0.1:8000/x",
    "https://10.2.3.4/x",
    "http://[::1]:8000/x",
]


@pytest.mark.parametrize(("entry", "url"), [*itertools.product(ENTRIES, URLS)])
def test_no_proxy_means_what_it_means_to_the_hubs_client(entry, url, monkeypatch):
    """Otherwise a listing would come by another way than its bytes."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", NAMED["all"])
    monkeypatch.setenv("no_proxy", entry)
    with httpx.Client() as client:
        proxied = client._transport_for_url(httpx.URL(url)) is not client._transport
    assert (before(url, all=NAMED["all"], no=entry) is not None) is proxied


def test_a_login_is_a_header_and_never_shown():
    proxy = Proxy.of("http://us%40er:p%3Aw%C3%B6@proxy.example", "HTTPS_PROXY")
    assert proxy.headers == {"Proxy-Authorization": "Basic dXNAZXI6cDp3w7Y="}
    assert (str(proxy), repr(proxy)) == ("the proxy proxy.example:80", "Proxy(host='proxy.example', port=80)")
    assert Proxy.of("proxy.example:3128", "HTTPS_PROXY") == Proxy("proxy.example", 3128)


@pytest.mark.parametrize("url", ["socks5://me:secret@x:1080", "https://me:secret@x", "http://me:secret@x:y"])
def test_a_proxy_of_another_kind_is_refused_by_its_variable_unless_it_is_not_asked(url):
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
        Proxies({"all": url}).before("https", "huggingface.co", 443)
    assert "secret" not in str(caught.value)
    assert Proxies({"all": url, "no": "huggingface.co"}).before("https", "huggingface.co", 443) is None
