"""The HTTP of the Hub server: refusals as the client knows them, ranges of a file, signed URLs."""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from jobs.hub.facts import plain

_BLOCK = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class Refusal(Exception):
    """A reply other than success; `code` is the X-Error-Code on which the client keys its exceptions."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = _UNPRINTABLE.sub("?", message)
        self.code = code
        self.headers = dict(headers or {})

    def response(self, more: Mapping[str, Any] | None = None) -> Response:
        """Return the refusal as HTTP; `more` joins the message in the body."""
        named = {"X-Error-Message": self.message} | ({"X-Error-Code": self.code} if self.code else {})
        return json_reply(
            {"error": self.message, **(more or {})}, status=self.status, headers={**named, **self.headers}
        )


class Signer:
    """Signs the paths of the CDN; the key lives as long as the server. `ttl` is in seconds."""

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self._key = secrets.token_bytes(32)

    def query(self, path: str, ttl: float | None = None) -> str:
        """Return the query that opens `path` for the next seconds."""
        expires = f"{time.time() + (self.ttl if ttl is None else ttl):.3f}"
        return urlencode({"expires": expires, "X-Signature": self._sign(path, expires)})

    def check(self, path: str, query: QueryParams) -> None:
        """Raise Refusal 403 unless `query` opens `path` now."""
        expires, signature = query.get("expires", ""), query.get("X-Signature", "")
        if not hmac.compare_digest(self._sign(path, expires).encode(), signature.encode()):
            raise Refusal(403, "missing or wrong signature; resolve the file on the hub again")
        if float(expires) < time.time():
            raise Refusal(403, "expired signature; resolve the file on the hub again")

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `value` as ASCII JSON, whatever text files on disk may hold."""
    return Response(json.dumps(plain(value)), status, headers, media_type="application/json")


def send_file(request: Request, file: Path, size: int, headers: Mapping[str, str]) -> Response:
    """Return the first `size` bytes of `file`, or the range asked for: 200, 206 or 416.

    The file is read in blocks while it is sent. Several ranges at once are answered with the whole file,
    as the standard allows.
    """
    found = _span(request.headers.get("range", ""), size)
    headers = {**headers, "Accept-Ranges": "bytes"}
    if found is None:
        return Refusal(
            416, "range not satisfiable", None, {**headers, "Content-Range": f"bytes */{size}"}
        ).response()
    start, stop, partial = found
    headers["Content-Length"] = str(stop - start)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(None, status, headers, media_type="application/octet-stream")
    return StreamingResponse(
        _blocks(file, start, stop), status, headers, media_type="application/octet-stream"
    )


def _span(header: str, size: int) -> tuple[int, int, bool] | None:
    """Return (start, stop, whether it is a partial reply); None if nothing of the range exists."""
    match = _RANGE.fullmatch(header.strip())
    if (
        match is None
        or match[1] == match[2] == ""
        or (match[1] and match[2] and int(match[2]) < int(match[1]))
    ):
        return 0, size, False
    if match[1] == "":
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    return (start, stop, True) if start < stop else None


def _blocks(file: Path, start: int, stop: int) -> Iterator[bytes]:
    with file.open("rb") as stream:
        stream.seek(start)
        while start < stop and (block := stream.read(min(_BLOCK, stop - start))):
            start += len(block)
            yield block
