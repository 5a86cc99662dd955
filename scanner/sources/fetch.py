"""One checked GET of a byte range of a pinned hub file: resolved once, redirects by hand, no retries.

The laws:

- the authorization goes to the endpoint's origin and nowhere else, and not back to it after a detour;
- signed URLs live in memory only and appear in no message;
- every answer proves that it is the file, the commit and the range that was asked for;
- no more bytes are taken than were asked for.
"""

import http.client
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote

from scanner.sources.answers import PROXY_LOGIN, check_link, file_error, partial_stop, refusal, whole_stop
from scanner.sources.base import Span
from scanner.sources.proxies import Proxies, Proxy
from scanner.sources.transfer import TransferPolicy
from scanner.sources.wire import (
    Connection,
    Origin,
    RefusedHostError,
    RefusedTunnelError,
    Response,
    redirect_target,
    resolves_privately,
)
from schemas.errors import ConfigError, SourceError
from schemas.refs import FileRef
from schemas.results import FailureKind

_REDIRECTS = {301, 302, 303, 307, 308}
_REDIRECT_BODY = 1 << 16
_PLACES_KEPT = 256


@dataclass(slots=True, repr=False)
class _Place:
    """Where a file is read from now; `authorised` only while no redirect has left the endpoint."""

    url: str
    authorised: bool = True
    refusals: int = 0
    etags: dict[Origin, str] = field(default_factory=dict)


class Body:
    """The open answer to one GET, of which `remaining` bytes are wanted."""

    def __init__(
        self, file: FileRef, response: Response, remaining: int, release: Callable[[bool], None]
    ) -> None:
        self._file = file
        self._response = response
        self._remaining = remaining
        self._release = release

    def read_some(self, view: memoryview) -> int:
        """Store the bytes that arrive next, at least one. Raises SourceError (retryable) when none do."""
        try:
            count = self._response.read_some(view[: self._remaining])
        except TimeoutError as error:
            raise stalled(self._file, "no byte arrived in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise stalled(self._file, f"the connection broke ({type(error).__name__})") from error
        if count == 0:
            raise stalled(self._file, f"the body ended with {self._remaining} bytes missing")
        self._remaining -= count
        return count

    def close(self) -> None:
        """Hand the connection back; it is kept only if the answer was read to its end."""
        self._release(self._remaining == 0 and self._response.isclosed())


class Fetcher:
    """Opens ranges of files of one hub and remembers connections and signed URLs between them.

    `authorization` is the whole header value or None. `limit_reset` tells from the lower-case headers of
    a 429 how many seconds its window still lasts. `proxies` are asked where they stand before a host, and
    `trust` makes the context that judges certificates. Not thread-safe; several bodies may be open at once.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        authorization: str | None,
        user_agent: str,
        limit_reset: Callable[[Mapping[str, str]], float],
        policy: TransferPolicy,
        proxies: Proxies,
        trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """Raises ConfigError for an endpoint that is no URL, a token no header text, a proxy not of HTTP."""
        self._endpoint = endpoint.rstrip("/")
        try:
            self._origin = Origin.of(self._endpoint)
        except RefusedHostError as error:
            raise ConfigError(
                f"the hub's endpoint: {error}; expected for example https://huggingface.co"
            ) from None
        if authorization is not None and not (authorization.isascii() and authorization.isprintable()):
            raise ConfigError("the hub token holds characters that no token has, perhaps a line break")
        self._authorization = authorization
        self._user_agent = user_agent
        self._limit_reset = limit_reset
        self._policy = policy
        self._proxies = proxies
        self._trust = trust
        self.proxy = self._proxy_of(self._origin)
        self._places: dict[FileRef, _Place] = {}
        self._idle: dict[Origin, Connection] = {}
        self._tls: ssl.SSLContext | None = None
        self._private: bool | None = None

    def open(self, file: FileRef, start: int, stop: int) -> Body:
        """GET the bytes start..stop. Raises SourceError, retryable if the same call may succeed later.

        A storage host that rejects its signed URL is asked again with a new one, once.
        """
        place = self._place(file)
        try:
            return self._follow(file, place, start, stop)
        except SourceError as error:
            if not error.retryable:
                self._places.pop(file, None)
            raise

    def close(self) -> None:
        """Close idle connections and forget signed URLs."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()
        self._places.clear()

    def _follow(self, file: FileRef, place: _Place, start: int, stop: int) -> Body:
        for _ in range(self._policy.max_hops + 1):
            connection, response = self._get(file, place, start, stop)
            if response.status in _REDIRECTS:
                self._drain(connection, response)
                self._move(file, place, response)
            elif response.status == 403 and Origin.of(place.url) != self._origin:
                self._release(connection, response, False)
                self._resolve_again(file, place)
            else:
                return self._body(file, place, (connection, response), (start, stop))
        reason = f"more than {self._policy.max_hops} redirects"
        raise file_error(file, FailureKind.REDIRECT_REFUSED, reason)

    def _place(self, file: FileRef) -> _Place:
        place = self._places.pop(file, None)
        if place is None:
            place = _Place(self._resolve_url(file))
            while len(self._places) >= _PLACES_KEPT:
                del self._places[next(iter(self._places))]
        self._places[file] = place
        return place

    def _resolve_url(self, file: FileRef) -> str:
        revision = quote(file.repo.revision, safe="")
        return f"{self._endpoint}/{quote(file.repo.repo_id)}/resolve/{revision}/{quote(file.path)}"

    def _get(self, file: FileRef, place: _Place, start: int, stop: int) -> tuple[Connection, Response]:
        origin = Origin.of(place.url)
        headers = {
            "Host": origin.authority,
            "User-Agent": self._user_agent,
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{stop - 1}",
        }
        if place.authorised and self._authorization is not None:
            headers["Authorization"] = self._authorization
        with _network(file, origin, self._proxy_of(origin)):
            kept = self._idle.pop(origin, None)
            if kept is not None:
                try:
                    return kept, _exchange(kept, place.url, headers)
                except (ConnectionError, ssl.SSLError, http.client.HTTPException):
                    pass  # the server closed it while it was idle: no failure of this request
            fresh = self._connection(origin)
            return fresh, _exchange(fresh, place.url, headers)

    def _connection(self, origin: Origin) -> Connection:
        if origin.scheme == "https" and self._tls is None:
            self._tls = self._trust()
        tls, proxy = self._tls if origin.scheme == "https" else None, self._proxy_of(origin)
        public_only = origin.host != self._origin.host and not self._endpoint_is_private()
        return Connection(origin, self._policy, tls, public_only=public_only, proxy=proxy)

    def _proxy_of(self, origin: Origin) -> Proxy | None:
        return self._proxies.before(origin.scheme, origin.host, origin.port)

    def _endpoint_is_private(self) -> bool:
        """Behind a proxy, names of the open internet may have no address here."""
        if self._private is None:
            try:
                self._private = resolves_privately(self._origin)
            except OSError:
                if self.proxy is None:
                    raise
                self._private = False
        return self._private

    def _drain(self, connection: Connection, response: Response) -> None:
        """Take the short body of a redirect, so that its connection can serve the next request."""
        try:
            response.read(_REDIRECT_BODY)
        except (OSError, http.client.HTTPException):
            self._release(connection, response, False)
        else:
            self._release(connection, response, response.isclosed())

    def _release(self, connection: Connection, response: Response, reusable: bool) -> None:
        response.close()
        if not reusable or connection.sock is None or connection.origin in self._idle:
            connection.close()
        else:
            self._idle[connection.origin] = connection

    def _move(self, file: FileRef, place: _Place, response: Response) -> None:
        """Follow a redirect: the hub's own keep the authorization, all others lose it for good."""
        with _network(file, self._origin, None):
            url = redirect_target(
                response.getheader("Location", ""),
                place.url,
                self._origin,
                endpoint_is_private=self._endpoint_is_private(),
            )
        leaves = Origin.of(url) != self._origin
        if place.authorised and leaves:
            check_link(file, _headers(response))
        place.url = url
        place.authorised = place.authorised and not leaves

    def _resolve_again(self, file: FileRef, place: _Place) -> None:
        place.refusals += 1
        if place.refusals > 1:
            kind = FailureKind.CDN_FORBIDDEN
            raise file_error(file, kind, kind.sentence, 403)
        place.url = self._resolve_url(file)
        place.authorised = True

    def _body(self, file: FileRef, place: _Place, answer: tuple[Connection, Response], span: Span) -> Body:
        release = partial(self._release, *answer)
        try:
            stop = self._judge(file, place, answer[1], span)
        except SourceError:
            release(False)
            raise
        place.refusals = 0
        return Body(file, answer[1], stop - span[0], release)

    def _judge(self, file: FileRef, place: _Place, response: Response, span: Span) -> int:
        """Where the body ends, once status, commit, size and ETag are what they must be."""
        status, headers = response.status, _headers(response)
        if status == 416:
            reason = f"the server has no bytes {span[0]}-{span[1] - 1}, the listing has {file.size}"
            raise file_error(file, FailureKind.SIZE_MISMATCH, reason, status)
        if status not in (200, 206):
            wait = self._limit_reset(headers) if status == 429 else 0.0
            raise refusal(status, headers, str(file), file=file.path, wait=wait)
        if place.authorised:
            check_link(file, headers)
        origin = Origin.of(place.url)
        etag = headers.get("etag")
        if etag is not None and place.etags.setdefault(origin, etag) != etag:
            reason = f"{origin.host} serves other content than a moment ago"
            raise file_error(file, FailureKind.ETAG_CHANGED, reason, status)
        if status == 206:
            return partial_stop(file, headers, span)
        return whole_stop(file, headers, response.length, span)


def stalled(file: FileRef, reason: str) -> SourceError:
    """A transfer that stopped on its way; trying again may help."""
    return file_error(file, FailureKind.STALLED, reason, retryable=True)


def _headers(response: Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _exchange(connection: Connection, url: str, headers: dict[str, str]) -> Response:
    with ExitStack() as unless_answered:
        unless_answered.callback(connection.close)
        connection.get(url, headers)
        response = connection.getresponse()
        unless_answered.pop_all()
    assert isinstance(response, Response)
    return response


@contextmanager
def _network(file: FileRef, origin: Origin, proxy: Proxy | None) -> Iterator[None]:
    """Turn what goes wrong before an answer into a SourceError that names host and proxy only."""
    where = origin.host if proxy is None else f"{origin.host} through {proxy}"
    try:
        yield
    except RefusedHostError as error:
        raise file_error(file, FailureKind.REDIRECT_REFUSED, str(error)) from None
    except RefusedTunnelError as error:
        raise _no_tunnel(file, where, error.status) from None
    except ssl.SSLCertVerificationError as error:
        reason = f"the certificate of {where} is not valid: {error.verify_message}"
        raise file_error(file, FailureKind.HTTP_ERROR, reason) from None
    except TimeoutError as error:
        raise stalled(file, f"{where} did not answer in time") from error
    except OSError as error:
        raise file_error(file, FailureKind.HTTP_ERROR, f"{where}: {error}", retryable=True) from error
    except http.client.HTTPException as error:
        reason = f"{where} gave no HTTP answer ({type(error).__name__})"
        raise file_error(file, FailureKind.HTTP_ERROR, reason, retryable=True) from None


def _no_tunnel(file: FileRef, where: str, status: int) -> SourceError:
    reason = PROXY_LOGIN if status == 407 else f"the proxy refuses to connect (HTTP {status})"
    return file_error(file, FailureKind.HTTP_ERROR, f"{where}: {reason}", status, retryable=status >= 500)
