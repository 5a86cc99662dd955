"""A forward proxy on loopback, of real sockets: it tunnels, fetches whole URLs, and may want a login."""

import http.client
import selectors
import socket
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

_OWN = {"proxy-authorization", "proxy-connection", "connection", "keep-alive"}


@dataclass(slots=True)
class Seen:
    """What a proxy was asked for, and how it was told to be."""

    port: int
    login: str | None = None
    refuses: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.login + '@' if self.login else ''}127.0.0.1:{self.port}"


@contextmanager
def forward_proxy(login: str | None = None, refuses: int | None = None) -> Iterator[Seen]:
    """Serve until the block ends; with `refuses` every tunnel has that status for an answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        seen = Seen(server.server_port, login, refuses)
        server.seen = seen
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_GET(self) -> None:
        if not self._admitted():
            return
        place = urlsplit(self.path)
        upstream = http.client.HTTPConnection(place.hostname, place.port, timeout=5)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        upstream.request("GET", f"{place.path}?{place.query}" if place.query else place.path, headers=kept)
        answer = upstream.getresponse()
        body = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_OWN, "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        upstream.close()

    def do_CONNECT(self) -> None:
        if not self._admitted():
            return
        self.close_connection = True
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as upstream:
            self.send_response_only(200)
            self.end_headers()
            _relay(self.connection, upstream)

    def _admitted(self) -> bool:
        seen = self.server.seen
        seen.asked.append((self.command, self.path))
        seen.headers.append({name.lower(): value for name, value in self.headers.items()})
        given = b64decode(self.headers.get("Proxy-Authorization", "").removeprefix("Basic ")).decode()
        if (seen.login or "") == given and seen.refuses is None:
            return True
        self.send_response_only(seen.refuses or 407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def log_message(self, *_: object) -> None:
        pass


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes both ways until one side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in ready.select():
                if not (piece := key.fileobj.recv(65536)):
                    return
                key.data.sendall(piece)
