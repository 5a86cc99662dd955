"""Which proxy stands before a host, as the environment says and the hub's client understands it.

HTTPS_PROXY, HTTP_PROXY and ALL_PROXY name proxies, NO_PROXY the hosts without: `*`, addresses, networks,
`name` with all below it, `.name` for what is below alone, `scheme://name` for that name alone; each with a
port if it is only for that. Small letters come before capitals.
"""

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from schemas.errors import ConfigError

_PORT = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `headers` are for itself alone and hold the user's password."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, url: str, variable: str) -> Self:
        """The proxy that `variable` names. Raises ConfigError, without the password that may be in `url`."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise ConfigError(
                f"{variable} is no URL; expected for example http://proxy.example:3128"
            ) from None
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(
                f"{variable} names a proxy of scheme {parts.scheme!r}, by which files cannot be read; "
                "expected for example http://proxy.example:3128, or the hub's host in NO_PROXY"
            )
        return cls(
            parts.hostname, _PORT if port is None else port, _authorization(parts.username, parts.password)
        )

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"


class Proxies:
    """The proxies of an environment, as `urllib.request.getproxies` gives them."""

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named = named
        self._without = [entry.strip() for entry in named.get("no", "").lower().split(",")]

    @classmethod
    def of_environment(cls) -> Self:
        """Those of this process, as of now."""
        return cls(getproxies())

    def before(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy to ask for a host, None where it is asked itself. Raises ConfigError if unusable."""
        kind = scheme if self._named.get(scheme) else "all"
        url = self._named.get(kind)
        if not url or any(_covers(entry, scheme, host, port) for entry in self._without):
            return None
        return Proxy.of(url, f"{kind.upper()}_PROXY")


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


def _covers(entry: str, scheme: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY is about a host."""
    stated, _, entry = entry.rpartition("://")
    if not entry or stated not in ("", "all", scheme):
        return False
    if entry == "*" or _in_network(entry, host):
        return True
    name, _, only = entry.partition(":")
    if only and only != str(port):
        return False
    if name.startswith((".", "*.")):
        return host.endswith(f".{name.lstrip('*.')}")
    alone = stated or name == "localhost"
    return host == name or (not alone and host.endswith(f".{name}"))


def _in_network(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
