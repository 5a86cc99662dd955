"""Who may be talked to, and how: origins, the rules of redirects, and connections that obey them."""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Self
from urllib.parse import urljoin, urlsplit

from scanner.sources.proxies import Proxy
from scanner.sources.transfer import TransferPolicy

STORAGE_SUFFIXES = (".hf.co", ".huggingface.co", ".xethub.hf.co")
"""Hosts the public hub redirects its files to."""

_PORTS = {"http": 80, "https": 443}


class RefusedHostError(ValueError):
    """A place that must not be contacted; the text names the host, never the whole URL."""


class RefusedTunnelError(OSError):
    """A proxy that does not connect to a host; `status` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a token, a connection and an ETag belong to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of an absolute http or https URL. Raises RefusedHostError on any other text."""
        if not url.isascii() or not url.isprintable() or " " in url:
            raise RefusedHostError("the address holds characters that no URL has")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise RefusedHostError("the address is no URL") from None
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise RefusedHostError("the address is no plain http(s) URL")
        return cls(parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port)

    @property
    def authority(self) -> str:
        """Value of the Host header; the default port is left out, since signatures cover the header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def request_target(url: str) -> str:
    """Path and query of `url`, as they are sent."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def redirect_target(location: str, base: str, endpoint: Origin, *, endpoint_is_private: bool) -> str:
    """The absolute URL of a redirect, if it may be followed.

    Allowed are the endpoint itself, the storage hosts of the public hub over https, and, for an endpoint
    on this machine or a private network, other ports of its own host. Raises RefusedHostError.
    """
    try:
        url = urljoin(base, location)
    except ValueError:
        raise RefusedHostError("the address is no URL") from None
    target = Origin.of(url)
    if Origin.of(base).scheme == "https" and target.scheme != "https":
        raise RefusedHostError(f"{target.host} would be read without encryption")
    if target == endpoint:
        return url
    if target.host == endpoint.host and endpoint_is_private:
        return url
    if target.scheme == "https" and target.host.endswith(STORAGE_SUFFIXES):
        return url
    raise RefusedHostError(f"{target.host} is neither the hub nor one of its storage hosts")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, loopback or link-local."""
    return ipaddress.ip_address(address).is_global


def resolves_privately(origin: Origin) -> bool:
    """Whether any address of the origin's host is not public. Raises OSError if it has none."""
    return not all(is_public(address) for address in _addresses(origin.host, origin.port))


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise RefusedHostError("the address holds no host name") from None
    return [str(entry[4][0]) for entry in found]


class Response(http.client.HTTPResponse):
    """A response whose body can be taken as it arrives."""

    def read_some(self, view: memoryview) -> int:
        """Read into `view` what one receive gives; 0 at the end of the body. Raises OSError.

        `readinto` would block until `view` is full, so a trickle could not be noticed, and a timeout
        would lose count of the bytes it had already stored.
        """
        if self.fp is None:
            return 0
        if self.chunked:
            piece = self.read1(len(view))
            view[: len(piece)] = piece
            return len(piece)
        if self.length is not None:
            view = view[: self.length]
        count = self.fp.readinto1(view)
        if self.length is not None:
            self.length -= count
        if not count or self.length == 0:
            self.close()
        return count


class Connection(http.client.HTTPConnection):
    """A connection to one origin; with `public_only`, never to a private address of it.

    Through a `proxy` the proxy alone looks the origin up: https by a tunnel, http by asking for whole URLs.
    """

    response_class = Response

    def __init__(
        self,
        origin: Origin,
        policy: TransferPolicy,
        tls: ssl.SSLContext | None,
        *,
        public_only: bool,
        proxy: Proxy | None = None,
    ) -> None:
        super().__init__(origin.host, origin.port, timeout=policy.connect_timeout)
        self.origin = origin
        self.proxy = proxy
        self._policy = policy
        self._tls = tls
        self._public_only = public_only

    def connect(self) -> None:
        """Connect to a checked address, so that a second look-up cannot change it.

        Raises RefusedHostError for a private address, OSError when nothing answers, RefusedTunnelError.
        """
        self.sock = self._proxy_socket(self.proxy) if self.proxy else self._direct_socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            if self.proxy is not None:
                self._open_tunnel(self.proxy)
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.origin.host)
        self.sock.settimeout(self._policy.read_timeout)

    def get(self, url: str, headers: Mapping[str, str]) -> None:
        """Ask for `url`, which is one of the origin's."""
        if self.proxy is None or self._tls is not None:
            self.request("GET", request_target(url), headers=headers)
        else:
            whole = f"{self.origin.scheme}://{self.origin.authority}{request_target(url)}"
            self.request("GET", whole, headers={**headers, **self.proxy.headers})

    def _direct_socket(self) -> socket.socket:
        addresses = _addresses(self.origin.host, self.origin.port)
        if self._public_only and not all(is_public(address) for address in addresses):
            raise RefusedHostError(f"{self.origin.host} has an address inside a private network")
        return self._first_answer(addresses, self.origin.port)

    def _proxy_socket(self, proxy: Proxy) -> socket.socket:
        return self._first_answer(_addresses(proxy.host, proxy.port), proxy.port)

    def _first_answer(self, addresses: list[str], port: int) -> socket.socket:
        for address in addresses[:-1]:
            try:
                return socket.create_connection((address, port), self._policy.connect_timeout)
            except OSError:
                continue
        return socket.create_connection((addresses[-1], port), self._policy.connect_timeout)

    def _open_tunnel(self, proxy: Proxy) -> None:
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        place = f"{host}:{self.origin.port}"
        headers = {"Host": place, **proxy.headers}
        lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        with closing(http.client.HTTPResponse(self.sock, method="CONNECT")) as answer:
            answer.begin()
            if not 200 <= answer.status < 300:
                raise RefusedTunnelError(answer.status)
