"""What an HTTP answer about a file proves or means, judged from its status and headers alone.

Header names are in lower case throughout.
"""

import re
from collections.abc import Mapping

from scanner.sources.base import Span
from scanner.sources.transfer import RateLimited
from schemas.errors import SourceError
from schemas.refs import FileRef
from schemas.results import FailureKind

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_REFUSALS = {
    "RepoNotFound": FailureKind.REPO_MISSING_OR_PRIVATE,
    "GatedRepo": FailureKind.GATED,
    "RevisionNotFound": FailureKind.REVISION_GONE,
    "EntryNotFound": FailureKind.ENTRY_MISSING,
}
_DISABLED = "Access to this resource is disabled."
_BAD_TOKEN = "Invalid credentials in Authorization header"

PROXY_LOGIN = (
    "the proxy wants a login: give it as http://user:password@host:port in HTTPS_PROXY or HTTP_PROXY"
)
"""What HTTP 407 means."""


def file_error(
    file: FileRef, kind: FailureKind, reason: str, status: int | None = None, *, retryable: bool = False
) -> SourceError:
    """A SourceError that names repository, commit and file before `reason`."""
    return SourceError(kind, f"{file}: {reason}", file=file.path, http_status=status, retryable=retryable)


def refusal(
    status: int, headers: Mapping[str, str], where: str, *, file: str | None = None, wait: float = 0.0
) -> SourceError:
    """The error that an unwanted HTTP status means.

    The hub says why in X-Error-Code and X-Error-Message; the status alone is ambiguous (a private and a
    missing repository are both 401). Only 408, 429 and 5xx are retryable. `wait` belongs to a 429.
    """
    kind = _refusal_kind(status, headers)
    message = f"{where}: HTTP {status}: {PROXY_LOGIN if status == 407 else kind.sentence}"
    if status == 429:
        limited = RateLimited(kind, message, file=file, http_status=status, retryable=True)
        limited.wait = wait
        return limited
    return SourceError(kind, message, file=file, http_status=status, retryable=status == 408 or status >= 500)


def _refusal_kind(status: int, headers: Mapping[str, str]) -> FailureKind:
    stated = _REFUSALS.get(headers.get("x-error-code", ""))
    if stated is not None:
        return stated
    reason = headers.get("x-error-message", "")
    if reason == _DISABLED:
        return FailureKind.DISABLED
    if status == 401 and reason != _BAD_TOKEN:
        return FailureKind.REPO_MISSING_OR_PRIVATE
    return FailureKind.HTTP_ERROR


def check_link(file: FileRef, headers: Mapping[str, str]) -> None:
    """What the hub itself says about a file must agree with the pinned listing. Raises SourceError."""
    commit = headers.get("x-repo-commit", file.repo.revision)
    if commit != file.repo.revision:
        reason = f"expected commit {file.repo.revision}, got {commit[:40]!r}"
        raise file_error(file, FailureKind.ETAG_CHANGED, reason)
    size = headers.get("x-linked-size", str(file.size))
    if size != str(file.size):
        reason = f"listed with {file.size} bytes, the hub links {size[:20]!r}"
        raise file_error(file, FailureKind.SIZE_MISMATCH, reason)
    etag = headers.get("x-linked-etag")
    if etag is not None and file.sha256 is not None and _unquoted(etag) != file.sha256:
        reason = f"expected sha256 {file.sha256}, the hub links {etag[:70]!r}"
        raise file_error(file, FailureKind.ETAG_CHANGED, reason)


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def partial_stop(file: FileRef, headers: Mapping[str, str], span: Span) -> int:
    """Where the body of a 206 for `span` ends. Raises SourceError.

    A server may send less than was asked, but not from another byte and not of another file.
    """
    _check_encoding(file, headers, 206)
    start, stop = span
    stated = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(stated)
    if match is None:
        reason = f"a partial answer that does not say of what: {stated[:60]!r}"
        raise file_error(file, FailureKind.RANGE_IGNORED, reason, 206)
    first, last, total = map(int, match.groups())
    if total != file.size:
        reason = f"listed with {file.size} bytes, the server has {total}"
        raise file_error(file, FailureKind.SIZE_MISMATCH, reason, 206)
    if first != start or not start <= last < stop:
        reason = f"asked for bytes {start}-{stop - 1}, got {stated[:60]!r}"
        raise file_error(file, FailureKind.RANGE_IGNORED, reason, 206)
    return last + 1


def whole_stop(file: FileRef, headers: Mapping[str, str], length: int | None, span: Span) -> int:
    """Where the wanted part of the body of a 200 ends: it will do if `span` starts at 0.

    `length` is the stated length of the body. Raises SourceError.
    """
    _check_encoding(file, headers, 200)
    start, stop = span
    if start != 0:
        reason = f"asked from byte {start}, got the whole file"
        raise file_error(file, FailureKind.RANGE_IGNORED, reason, 200)
    if length is not None and length != file.size:
        reason = f"listed with {file.size} bytes, the server has {length}"
        raise file_error(file, FailureKind.SIZE_MISMATCH, reason, 200)
    return stop


def _check_encoding(file: FileRef, headers: Mapping[str, str], status: int) -> None:
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        reason = f"asked for plain bytes, got the encoding {encoding[:20]!r}"
        raise file_error(file, FailureKind.RANGE_IGNORED, reason, status)
