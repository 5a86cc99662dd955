"""What the Hub server takes in: new repositories, commits, tags; and, for tests, log reads and faults."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobs.hub import writes
from jobs.hub.app import Desk
from jobs.hub.faults import Fault, Wire
from jobs.hub.reply import Refusal, json_reply
from jobs.hub.tree import HEAD_NAMES, Kind, Repo
from jobs.hub.writes import BadWriteError, Delete, Edit, NameTakenError, Put, StaleParentError
from schemas.errors import UsageError

_MAX_BODY = 64 << 20
_MAX_LINE = 1 << 30
_KINDS: Mapping[str, Kind] = {"model": "models", "dataset": "datasets"}
_STATUS: Mapping[type[UsageError], int] = {BadWriteError: 400, NameTakenError: 409, StaleParentError: 412}


class Writer:
    """The writing endpoints. On a server with a token every one of them needs it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tree = desk.tree

    def routes(self) -> list[Route]:
        """Return the endpoints."""
        repo = "/api/{kind}/{ns}/{name}"
        return [
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route("/api/validate-yaml", self.validate_yaml, methods=["POST"]),
            Route(repo + "/preupload/{rev}", self.preupload, methods=["POST"]),
            Route(repo + "/commit/{rev}", self.commit, methods=["POST"]),
            Route(repo + "/tag/{rev}", self.tag, methods=["POST"]),
            Route(repo + "/super-squash/{rev}", self.squash, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        self._desk.require_writer(request)
        body = await _json_body(request)
        kind = _KINDS.get(body.get("type") or "model")
        if kind is None:
            raise Refusal(400, f"type: expected one of {', '.join(_KINDS)}")
        repo_id = f"{body.get('organization') or 'local'}/{body.get('name')}"
        private = bool(body.get("private")) or body.get("visibility") == "private"
        made = {"url": _page(request, kind, repo_id), "name": repo_id}
        try:
            with _as_refusal():
                await run_in_threadpool(writes.create, self._tree, kind, repo_id, private=private)
        except Refusal as refusal:
            return refusal.response(made)
        return json_reply(made)

    async def validate_yaml(self, _request: Request) -> Response:
        return json_reply({"errors": [], "warnings": []})

    async def preupload(self, request: Request) -> Response:
        await self._open(request)
        files = (await _json_body(request)).get("files", [])
        paths = [file.get("path") for file in files if isinstance(file, dict)]
        plan = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
        return json_reply({"files": plan})

    async def commit(self, request: Request) -> Response:
        repo = await self._open(request)
        draft = _Draft(repo)
        try:
            async for line in _lines(request):
                await run_in_threadpool(draft.add, line)
            with _as_refusal():
                made = await run_in_threadpool(
                    writes.commit,
                    self._tree,
                    repo,
                    draft.edits,
                    title=str(draft.header.get("summary", "")),
                    message=str(draft.header.get("description", "")),
                    parent=str(draft.header.get("parentCommit") or ""),
                )
        finally:
            writes.discard(draft.edits)
        url = f"{_page(request, repo.kind, repo.id)}/commit/{made.id}"
        return json_reply({"success": True, "commitOid": made.id, "commitUrl": url})

    async def tag(self, request: Request) -> Response:
        self._desk.require_writer(request)
        name = str((await _json_body(request)).get("tag"))
        return await run_in_threadpool(self._tag, request, name)

    def _tag(self, request: Request, name: str) -> Response:
        repo = self._desk.repo(request)
        target = self._desk.commit(request, repo)
        with _as_refusal():
            writes.tag(self._tree, repo, name, target)
        return json_reply({"name": name, "target": target.id})

    async def squash(self, request: Request) -> Response:
        repo = await self._open(request)
        message = str((await _json_body(request)).get("message", ""))
        await run_in_threadpool(writes.squash, self._tree, repo, message)
        return json_reply({"success": True})

    async def _open(self, request: Request) -> Repo:
        """Return the repository that may be written to at `main`."""
        self._desk.require_writer(request)
        if "create_pr" in request.query_params:
            raise Refusal(400, "pull requests are not supported; commit to main")
        rev = unquote(request.path_params["rev"])
        if rev not in HEAD_NAMES:
            raise Refusal(404, f"Invalid rev id: {rev}; only main can be written", "RevisionNotFound")
        return await run_in_threadpool(self._desk.repo, request)


class Control:
    """The test control: reads and clears the request log, queues and clears faults."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def routes(self) -> list[Route]:
        """Return the endpoints."""
        return [
            Route("/_log", self.read_log, methods=["GET"]),
            Route("/_log", self.clear_log, methods=["DELETE"]),
            Route("/_fault", self.add_faults, methods=["POST"]),
            Route("/_fault", self.clear_faults, methods=["DELETE"]),
        ]

    async def read_log(self, _request: Request) -> Response:
        return json_reply(self._wire.log)

    async def clear_log(self, _request: Request) -> Response:
        self._wire.log.clear()
        return json_reply([])

    async def add_faults(self, request: Request) -> Response:
        try:
            wanted = json.loads(await request.body())
            faults = [Fault.parse(knobs) for knobs in (wanted if isinstance(wanted, list) else [wanted])]
        except ValueError as error:
            raise Refusal(400, str(error)) from error
        self._wire.faults.extend(faults)
        return json_reply({"queued": len(self._wire.faults)})

    async def clear_faults(self, _request: Request) -> Response:
        self._wire.faults.clear()
        return json_reply({"queued": 0})


@dataclass(slots=True)
class _Draft:
    """A commit body, line by line; contents wait in temporary files."""

    repo: Repo
    header: dict[str, Any] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)

    def add(self, line: bytes) -> None:
        """Take one NDJSON line. Raises Refusal 400."""
        try:
            record = json.loads(line)
            key, value = record["key"], record["value"]
            if key == "header":
                self.header = dict(value)
            elif key == "file":
                self.edits.append(self._put(value))
            elif key in ("deletedFile", "deletedFolder"):
                self.edits.append(Delete(value["path"].rstrip("/")))
            else:
                raise Refusal(
                    400, f"commit line {key!r}: expected header, file, deletedFile or deletedFolder"
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refusal(400, f"commit line {line[:80]!r}: {error}") from error

    def _put(self, value: Mapping[str, Any]) -> Put:
        content, is_base64 = value["content"], value.get("encoding") == "base64"
        data = base64.b64decode(content, validate=True) if is_base64 else content.encode()
        return Put(writes.clean_path(value["path"]), writes.new_content(self.repo, data))


@contextmanager
def _as_refusal() -> Iterator[None]:
    """Turn what the folder refuses into an HTTP refusal."""
    try:
        yield
    except (BadWriteError, NameTakenError, StaleParentError) as error:
        raise Refusal(_STATUS[type(error)], str(error)) from error


async def _lines(request: Request) -> AsyncIterator[bytes]:
    """Yield the lines of the body; only one is held at a time. Raises Refusal 413."""
    held = bytearray()
    async for chunk in request.stream():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            held += line
            if held.strip():
                yield bytes(held)
            held.clear()
        held += rest
        if len(held) > _MAX_LINE:
            raise Refusal(
                413, f"a file of more than {_MAX_LINE} encoded bytes; copy it into the folder instead"
            )
    if held.strip():
        yield bytes(held)


async def _json_body(request: Request) -> dict[str, Any]:
    body = await request.body()
    if len(body) > _MAX_BODY:
        raise Refusal(413, f"request of more than {_MAX_BODY} bytes")
    try:
        value = json.loads(body or b"{}")
    except ValueError as error:
        raise Refusal(400, f"expected a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "expected a JSON object")
    return value


def _page(request: Request, kind: Kind, repo_id: str) -> str:
    prefix = "datasets/" if kind == "datasets" else ""
    return f"{request.url.scheme}://{request.url.netloc}/{prefix}{repo_id}"
