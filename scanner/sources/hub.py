"""Models on a hub: huggingface_hub lists a repository once, the range reader streams its files."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from huggingface_hub import HfApi, ModelInfo, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but not marked as exports
    build_hf_headers,
    httpx,
    parse_ratelimit_headers,
    validate_repo_id,
)

from scanner.sources.answers import PROXY_LOGIN, refusal
from scanner.sources.base import COMMIT, READ, Span
from scanner.sources.card import facts_from_card
from scanner.sources.fetch import Fetcher
from scanner.sources.proxies import Proxies
from scanner.sources.rangereader import RangeReader
from scanner.sources.transfer import DEFAULT_POLICY, Patience, TransferPolicy, UnreachableError
from schemas.errors import SourceError
from schemas.refs import Buffer, FileRef, RepoRef, Repository, is_safe_path
from schemas.results import FailureKind

_UNSTATED_LIMIT = 10.0
_WAY_THERE = "check the address (--endpoint, HF_ENDPOINT), the network and its proxy"


def stored_token() -> str | None:
    """The token of this machine (HF_TOKEN, or what `hf auth login` stored), to hand to workers elsewhere."""
    return get_token()


class HubSource:
    """Reads models of one hub, pinned to commits. Not thread-safe: one per worker thread.

    `endpoint` None is HF_ENDPOINT or the public hub. `token` None is the one stored on this machine, False
    is none at all; it is sent to the endpoint's origin only. Proxies and certificates are those that the
    environment names (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY; SSL_CERT_FILE, SSL_CERT_DIR), for the
    client and for the bytes alike. Nothing is requested before the first call.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | bool | None = None,
        *,
        policy: TransferPolicy = DEFAULT_POLICY,
    ) -> None:
        """Raises ConfigError if the endpoint is no URL, the token no header text, the proxy no HTTP proxy."""
        self._policy = policy
        self._api = HfApi(endpoint=endpoint, token=token, library_name="hubspectra")
        headers = build_hf_headers(token=token, library_name="hubspectra")
        self._fetcher = Fetcher(
            self._api.endpoint,
            authorization=headers.get("authorization"),
            user_agent=headers["user-agent"],
            limit_reset=_limit_reset,
            policy=policy,
            proxies=Proxies.of_environment(),
            trust=httpx.create_ssl_context,
        )
        self._reader = RangeReader(self._fetcher, policy)
        self._answered = False
        self._silence = (0.0, "")

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """Pin `repo_id` at `revision` (default: its main branch) to a commit and list its files.

        A renamed repository has its new name. Files with unsafe names are left out, but such a name on a
        safetensors or JSON file, which would have been read, is UNSAFE_PATH. Costs one API request.
        Raises SourceError; it is retryable for network trouble, HTTP 408, 429 and 5xx, after the policy's
        own retries. A hub that could not be reached at all is an UnreachableError, at once for a while.
        """
        where, patience = _named(repo_id, revision), Patience(self._policy)
        with self._within_reach(where):
            while True:
                try:
                    info = self._model_info(repo_id, revision, where)
                except SourceError as error:
                    patience.after(error)
                else:
                    return _repository(info, revision)

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Return exactly the bytes start..stop of `file`. Raises SourceError, see `stream`."""
        return self._reader.read(_checked(file), start, stop)

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield one fresh buffer for each span, in order; spans ascend and do not overlap.

        Costs one API-limited request a file and one storage request for spans close together. Raises
        SourceError; it is retryable for network trouble, HTTP 408, 429 and 5xx, after the policy's own
        retries, and not if the file is not the one that was pinned.
        """
        return self._reader.stream(_checked(file), spans)

    def waits(self, file: FileRef, spans: Sequence[Span]) -> bool:
        """A network always waits."""
        return True

    def close(self) -> None:
        """Close connections and forget signed URLs; the source can be used again afterwards."""
        self._fetcher.close()

    @contextmanager
    def _within_reach(self, where: str) -> Iterator[None]:
        """A hub that was given up without an answer is asked nothing for a while: each would wait as long."""
        until, reason = self._silence
        if time.monotonic() < until:
            raise UnreachableError(FailureKind.HTTP_ERROR, f"{where}: {reason}", retryable=True)
        try:
            yield
        except UnreachableError as error:
            reason = error.message.removeprefix(f"{where}: ")
            self._silence = (time.monotonic() + self._policy.silence, reason)
            raise

    def _model_info(self, repo_id: str, revision: str | None, where: str) -> ModelInfo:
        timeout = httpx.Timeout(self._policy.read_timeout, connect=self._policy.connect_timeout)
        try:
            info = self._api.model_info(
                repo_id,
                revision=revision,
                files_metadata=True,
                timeout=timeout,  # type: ignore[arg-type]  # handed on to httpx as it is
            )
            self._answered = True
            validate_repo_id(info.id)
            return info
        except HFValidationError as error:
            reason = f"{where}: no repository id: {error}"
            raise SourceError(FailureKind.REPO_MISSING_OR_PRIVATE, reason) from error
        except OfflineModeIsEnabled as error:
            raise SourceError(FailureKind.OFFLINE, f"{where}: {FailureKind.OFFLINE.sentence}") from error
        except HfHubHTTPError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            wait = _limit_reset(headers)
            raise refusal(error.response.status_code, headers, where, wait=wait) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = (
                f"{where}: {self._hub_seen()} cannot be reached ({str(error) or 'no answer'}): {_WAY_THERE}"
            )
            kind = SourceError if self._answered else UnreachableError
            raise kind(FailureKind.HTTP_ERROR, reason, retryable=True) from error
        except httpx.TimeoutException as error:
            reason = f"{where}: {self._hub_seen()} did not answer in time"
            raise SourceError(FailureKind.STALLED, reason, retryable=True) from error
        except httpx.ProxyError as error:
            final = str(error).startswith("407")
            reason = f"{where}: {self._hub_seen()}: {PROXY_LOGIN if final else error}"
            raise SourceError(FailureKind.HTTP_ERROR, reason, retryable=not final) from error
        except (httpx.HTTPError, OSError) as error:
            reason = f"{where}: {self._hub_seen()} cannot be reached ({error})"
            raise SourceError(FailureKind.HTTP_ERROR, reason, retryable=True) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{where}: the hub's description of the repository cannot be read: {error!r:.200}"
            raise SourceError(FailureKind.HTTP_ERROR, reason) from error

    def _hub_seen(self) -> str:
        proxy = self._fetcher.proxy
        return f"{self._api.endpoint} through {proxy}" if proxy else self._api.endpoint


def _named(repo_id: str, revision: str | None) -> str:
    return f"{repo_id}@{revision}" if revision else repo_id


def _repository(info: ModelInfo, revision: str | None) -> Repository:
    commit = info.sha
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise SourceError(FailureKind.HTTP_ERROR, f"{info.id}: the hub names no commit, but {commit!r:.60}")
    if revision is not None and COMMIT.fullmatch(revision) and commit != revision:
        reason = f"{info.id}: asked for commit {revision}, the hub gave {commit}"
        raise SourceError(FailureKind.ETAG_CHANGED, reason)
    ref = RepoRef(info.id, commit)
    found = (_file(ref, sibling) for sibling in info.siblings or ())
    files = {file.path: file for file in found if file is not None}
    card = getattr(info.card_data, "__dict__", {})
    return Repository(ref=ref, files=tuple(files.values()), facts=facts_from_card(card, vars(info)))


def _file(ref: RepoRef, sibling: RepoSibling) -> FileRef | None:
    """The listed file, or None for one that cannot be named or sized and that no scan reads."""
    path, size = sibling.rfilename, sibling.size
    if not is_safe_path(path):
        if path.endswith(READ):
            raise _unsafe(ref, path)
        return None
    if type(size) is not int or size < 0:
        if path.endswith(READ):
            reason = f"{ref} {path}: the hub states no size"
            raise SourceError(FailureKind.SIZE_MISMATCH, reason, file=path)
        return None
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    content_id = sha256 or sibling.blob_id or f"{ref.revision}:{path}"
    return FileRef(ref, path, size, content_id, sha256)


def _checked(file: FileRef) -> FileRef:
    if not is_safe_path(file.path):
        raise _unsafe(file.repo, file.path)
    return file


def _unsafe(ref: RepoRef, path: str) -> SourceError:
    reason = f"{ref}: {FailureKind.UNSAFE_PATH.sentence}: {path!a:.200}"
    return SourceError(FailureKind.UNSAFE_PATH, reason, file=ascii(path)[1:-1][:200])


def _limit_reset(headers: Mapping[str, str]) -> float:
    """Seconds until a rate limit's window resets, from the headers of an HTTP 429."""
    try:
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
        return float(int(headers.get("retry-after", "")))
    except (ValueError, OverflowError):
        return _UNSTATED_LIMIT
