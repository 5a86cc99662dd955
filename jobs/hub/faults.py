"""The wire of the Hub server: a log of requests and faults made on purpose, both for tests only.

A fault waits in a queue until a request matches it; it then spoils that one reply. The first fault of the
queue that matches is taken, so [cut at 1000 bytes, answer 403] spoils two requests in that order.
"""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ConfigError

Port = Literal["hub", "cdn"]
CONTROL_PATHS = frozenset({"/_log", "/_fault"})
_TICK = 0.02


@dataclass(slots=True, kw_only=True)
class Fault:
    """What to do to the next `count` replies whose path contains `match`, after `skip` good ones.

    With `status` the whole reply is replaced; otherwise the real reply is sent with the changes asked for.
    """

    match: str = ""
    on: Port | None = None  # which port; None is both
    method: str | None = None
    skip: int = 0
    count: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # set on the reply
    etag: str | None = None  # short for headers["ETag"]
    location: str | None = None  # short for headers["Location"]
    link: str | None = None  # short for headers["Link"]
    delay: float = 0.0  # seconds before the status line
    stall: float = 0.0  # seconds of silence between headers and body
    rate: float | None = None  # body bytes a second
    cut_after: int | None = None  # body bytes until the connection is closed
    no_length: bool = False  # no Content-Length; with cut_after the body then ends as if it were whole
    ignore_range: bool = False  # answer 200 with the whole file
    wrong_content_range: bool = False  # claim a range that starts one byte later
    gzip: bool = False  # compress the body although the client did not ask
    reverse: bool = False  # JSON list in the opposite order
    ttl: float | None = (
        None  # life in seconds of the signed URL in this reply; below zero it is dead at birth
    )

    @classmethod
    def parse(cls, knobs: object) -> "Fault":
        """Make a fault of a JSON object. Raises ConfigError on an unknown knob."""
        names = {item.name for item in fields(cls)}
        if not isinstance(knobs, dict) or not names.issuperset(knobs):
            raise ConfigError(f"fault {knobs!r}: expected an object with knobs out of {sorted(names)}")
        return cls(**knobs)

    def all_headers(self) -> dict[bytes, bytes]:
        """Headers to set on the reply, as ASGI has them."""
        short = {"ETag": self.etag, "Location": self.location, "Link": self.link}
        stated = {**self.headers, **{name: value for name, value in short.items() if value is not None}}
        return {name.lower().encode(): value.encode() for name, value in stated.items()}


class Wire:
    """Log and fault queue shared by both ports. Thread-safe. `keep_log` is False outside tests."""

    def __init__(self, *, keep_log: bool) -> None:
        self.log: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.stopping = threading.Event()
        self._keep_log = keep_log
        self._lock = threading.Lock()

    def note(self, scope: Scope, on: Port, path: str) -> dict[str, Any]:
        """Log the start of a request without its query, which may be a signature; `status` comes later."""
        headers = dict(scope["headers"])
        entry: dict[str, Any] = {
            "method": scope["method"],
            "path": path,
            "range": headers.get(b"range", b"").decode("latin-1") or None,
            "had_auth": b"authorization" in headers,
            "port": scope["server"][1],
            "on": on,
            "status": None,
        }
        if self._keep_log:
            self.log.append(entry)
        return entry

    def take(self, on: Port, method: str, path: str) -> Fault | None:
        """Return the fault that this request meets, and count it down."""
        with self._lock:
            for fault in self.faults:
                if fault.on in (None, on) and fault.method in (None, method) and fault.match in path:
                    return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault | None:
        if fault.skip > 0:
            fault.skip -= 1
            return None
        fault.count -= 1
        if fault.count <= 0:
            self.faults.remove(fault)
        return fault

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than the server lives."""
        until = asyncio.get_running_loop().time() + seconds
        while not self.stopping.is_set() and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(_TICK, left))


class Gate:
    """ASGI wrapper of one port: keeps `%2F` apart from `/`, logs, stamps headers, spoils replies."""

    def __init__(self, app: ASGIApp, wire: Wire, on: Port, stamp: Callable[[str], Mapping[str, str]]) -> None:
        self._app = app
        self._wire = wire
        self._on = on
        self._stamp = stamp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1")
        scope = {**scope, "path": path}
        if path in CONTROL_PATHS:
            await self._app(scope, receive, send)
            return
        entry = self._wire.note(scope, self._on, path)
        fault = self._wire.take(self._on, scope["method"], path) or Fault()
        if fault.ignore_range:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        scope["ttl"] = fault.ttl
        await self._wire.pause(fault.delay)
        reply = _Reply(send, self._wire, fault, entry, self._stamp(path))
        try:
            await (_replace(fault, reply) if fault.status else self._app(scope, receive, reply))
        except _Cut:
            return


class _Cut(Exception):
    """Leaves the application in the middle of a body: the end of a reply that is cut on purpose."""


class _Reply:
    """The `send` of one request, with its fault applied."""

    def __init__(
        self, send: Send, wire: Wire, fault: Fault, entry: dict[str, Any], stamps: Mapping[str, str]
    ) -> None:
        self._send = send
        self._wire = wire
        self._fault = fault
        self._entry = entry
        self._stamps = stamps
        self._start: Message = {}
        self._held = bytearray()
        self._sent = 0

    async def __call__(self, message: Message) -> None:
        whole_body = self._fault.gzip or self._fault.reverse
        if message["type"] == "http.response.start":
            self._start = {**message, "headers": self._headers(message)}
            self._entry["status"] = message["status"]
            if not whole_body:
                await self._open()
        elif whole_body:
            self._held += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole()
        else:
            await self._body(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers: dict[bytes, bytes] = {
            name.lower().encode(): value.encode() for name, value in self._stamps.items()
        }
        headers |= dict(message["headers"])
        if self._fault.wrong_content_range and b"content-range" in headers:
            headers[b"content-range"] = _shifted(headers[b"content-range"])
        if self._fault.no_length:
            headers.pop(b"content-length", None)
        return list((headers | self._fault.all_headers()).items())

    async def _open(self) -> None:
        await self._send(self._start)
        if self._fault.stall:
            await self._wire.pause(self._fault.stall)

    async def _send_whole(self) -> None:
        body = bytes(self._held)
        headers = dict(self._start["headers"])
        if self._fault.reverse:
            body = json.dumps(json.loads(body)[::-1]).encode()
        if self._fault.gzip:
            body = gzip.compress(body)
            headers[b"content-encoding"] = b"gzip"
        headers[b"content-length"] = str(len(body)).encode()
        self._start["headers"] = list(headers.items())
        await self._open()
        await self._body({"type": "http.response.body", "body": body, "more_body": False})

    async def _body(self, message: Message) -> None:
        body, cut = message.get("body", b""), self._fault.cut_after
        if cut is not None and self._sent + len(body) > cut:
            await self._trickle(body[: cut - self._sent])
            if self._fault.no_length:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _Cut
        if self._fault.rate:
            await self._trickle(body)
            message = {**message, "body": b""}
        self._sent += len(body)
        await self._send(message)

    async def _trickle(self, body: bytes) -> None:
        size = max(1, int(self._fault.rate * _TICK)) if self._fault.rate else max(1, len(body))
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._fault.rate:
                await self._wire.pause(len(piece) / self._fault.rate)


async def _replace(fault: Fault, send: Send) -> None:
    body = json.dumps({"error": f"fault {fault.status} asked for by a test"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _shifted(content_range: bytes) -> bytes:
    unit, _, rest = content_range.partition(b" ")
    span, _, total = rest.partition(b"/")
    start, _, last = span.partition(b"-")
    return b"%s %d-%d/%s" % (unit, int(start) + 1, int(last) + 1, total)
