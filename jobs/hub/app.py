"""The two ASGI applications of the Hub server: the hub's read interface, and the CDN behind it.

A handler takes a request and returns a response or raises `Refusal`. Paths arrive as the client wrote them
(`jobs.hub.faults.Gate`), so that `refs%2Fheads%2Fmain` is one segment. What writes is in `jobs.hub.intake`.
"""

import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jobs.hub.facts import Facts, json_object, safetensors_header
from jobs.hub.listing import ListQuery, QueryError, expanded, is_true
from jobs.hub.reply import Refusal, Signer, json_reply, send_file
from jobs.hub.tree import KINDS, Blob, Commit, HubTree, Kind, Repo, history, tags
from schemas.errors import ConfigError

_WINDOW_S = 300
_BUCKETS = {"api": 1000, "resolvers": 5000}
_TREE_PAGE, _TREE_PAGE_EXPANDED = 1000, 50
_INFO = tuple(
    "_id id modelId author sha lastModified createdAt private gated disabled downloads likes tags "
    "pipeline_tag library_name usedStorage cardData model-index config safetensors".split()
)


class Desk:
    """Who may see what: finds repositories, commits and files for a request, or refuses.

    A private repository is missing without a credential; `gated: "auto"` opens its files with one, `"manual"`
    never does. The credential is the server's token, or any token if the server has none.
    """

    def __init__(self, tree: HubTree, token: str | None) -> None:
        self.tree = tree
        self._token = token

    def has_credential(self, request: Request) -> bool:
        """Whether the request carries the token. Raises Refusal if it carries a wrong one."""
        given = request.headers.get("authorization", "").partition(" ")[2]
        if given and self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return bool(given)

    def require_writer(self, request: Request) -> None:
        """Raise Refusal unless the request may write; a page in the user's browser never may."""
        if "origin" in request.headers:
            raise Refusal(403, "writes from web pages are refused")
        if self._token and not self.has_credential(request):
            raise Refusal(401, "this server needs its token for writes", "Unauthorized")

    def repo(self, request: Request, *, files: bool = False) -> Repo:
        """Return the repository of the path; `files` says that contents are wanted, which gates guard."""
        credential = self.has_credential(request)
        params = request.path_params
        repo_id = f"{unquote(params['ns'])}/{unquote(params['name'])}"
        repo = self.tree.find(self.kind(request), repo_id)
        if repo is None or (repo.settings.get("private") and not credential):
            raise Refusal(404 if credential else 401, f"Repository not found: {repo_id}", "RepoNotFound")
        if new := repo.settings.get("renamed_to"):
            raise Refusal(307, f"renamed to {new}", None, {"Location": _renamed(request, repo_id, str(new))})
        if repo.settings.get("disabled"):
            raise Refusal(403, "Access to this resource is disabled.")
        gate = repo.settings.get("gated")
        if files and gate and (gate == "manual" or not credential):
            raise Refusal(403 if credential else 401, f"Access to {repo_id} is restricted", "GatedRepo")
        return repo

    def kind(self, request: Request) -> Kind:
        """Return models or datasets; paths outside the API name only datasets."""
        kind = request.path_params.get("kind", "models")
        if kind not in KINDS:
            raise Refusal(404, f"expected one of {', '.join(KINDS)}")
        return cast(Kind, kind)

    def commit(self, request: Request, repo: Repo) -> Commit:
        """Return the commit that the path names, `main` if it names none."""
        rev = unquote(request.path_params.get("rev", "main"))
        commit = self.tree.commit_at(repo, rev)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return commit

    def blob(self, request: Request, commit: Commit) -> Blob:
        """Return the file that the path names."""
        path = unquote(request.path_params["path"])
        blob = commit.files.get(path)
        if blob is None:
            raise Refusal(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit.id})
        return blob


class HubApp:
    """The hub port: lists, describes and resolves. `routes` are more endpoints, tried first."""

    def __init__(
        self, desk: Desk, signer: Signer, *, cdn_port: int, page_size: int, routes: Iterable[Route]
    ) -> None:
        self._desk = desk
        self._tree = desk.tree
        self._signer = signer
        self._cdn_port = cdn_port
        self._page_size = page_size
        repo = "/api/{kind}/{ns}/{name}"
        table = [
            *routes,
            Route("/api/{kind}", self.repos),
            Route(repo, self.info),
            Route(repo + "/revision/{rev}", self.info),
            Route(repo + "/tree/{rev}", self.tree),
            Route(repo + "/tree/{rev}/{path:path}", self.tree),
            Route(repo + "/paths-info/{rev}", self.paths_info, methods=["POST"]),
            Route(repo + "/safetensors-metadata/{path:path}", self.safetensors_metadata),
            Route(repo + "/refs", self.refs),
            Route(repo + "/commits/{rev}", self.commits),
            Route("/{kind}/{ns}/{name}/resolve/{rev}/{path:path}", self.resolve),
            Route("/{ns}/{name}/resolve/{rev}/{path:path}", self.resolve),
        ]
        self._app = Starlette(routes=table, exception_handlers=_HANDLERS)
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def repos(self, request: Request) -> Response:
        query = ListQuery.parse(request.query_params)
        credential = self._desk.has_credential(request)
        visible = (
            Facts(self._tree, repo)
            for repo in self._tree.repos(self._desk.kind(request))
            if "renamed_to" not in repo.settings and (credential or not repo.settings.get("private"))
        )
        page, cursor = query.page(visible, self._page_size)
        return json_reply([facts.pick(query.fields) for facts in page], headers=_next_page(request, cursor))

    def info(self, request: Request) -> Response:
        repo = self._desk.repo(request)
        facts = Facts(self._tree, repo, self._desk.commit(request, repo))
        if wanted := expanded(request.query_params):
            return json_reply(facts.pick(("_id", "id", *wanted)))
        siblings = facts.siblings(blobs=is_true(request.query_params.get("blobs")))
        return json_reply({**facts.pick(_INFO), "siblings": siblings})

    def tree(self, request: Request) -> Response:
        repo = self._desk.repo(request)
        commit = self._desk.commit(request, repo)
        params = request.query_params
        expand = is_true(params.get("expand"))
        top = unquote(request.path_params.get("path", ""))
        entries = _entries(commit, f"{top}/" if top else "", deep=is_true(params.get("recursive")))
        if top and not entries:
            raise Refusal(404, f"{top} is no folder", "EntryNotFound", {"X-Repo-Commit": commit.id})
        after = params.get("cursor", "")
        rest = [path for path in sorted(entries) if path > after]
        size = min(self._page_size, _TREE_PAGE_EXPANDED if expand else _TREE_PAGE)
        items = [_item(commit, path, entries[path], expand=expand) for path in rest[:size]]
        return json_reply(items, headers=_next_page(request, rest[size - 1] if len(rest) > size else None))

    async def paths_info(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        return await run_in_threadpool(self._paths_info, request, form.get("paths", []))

    def _paths_info(self, request: Request, paths: list[str]) -> Response:
        repo = self._desk.repo(request)
        commit = self._desk.commit(request, repo)
        entries = _entries(commit, "", deep=True)
        return json_reply(
            [_item(commit, path, entries[path], expand=True) for path in paths if path in entries]
        )

    def safetensors_metadata(self, request: Request) -> Response:
        repo = self._desk.repo(request, files=True)
        commit = self._desk.commit(request, repo)
        blob = self._desk.blob(request, commit)
        if blob.path.endswith(".safetensors"):
            return json_reply({"index": {}, "headers": {blob.path: self._header(repo, blob)}})
        index = json_object((repo.folder / blob.path).read_bytes())
        shards = sorted(set(map(str, _json_values(index.get("weight_map")))))
        headers = {name: self._header(repo, commit.files[name]) for name in shards if name in commit.files}
        return json_reply({"index": {"metadata": index.get("metadata", {})}, "headers": headers})

    def _header(self, repo: Repo, blob: Blob) -> dict[str, Any]:
        file = self._tree.locate(repo, blob)
        return safetensors_header(file) if file else {}

    def refs(self, request: Request) -> Response:
        repo = self._desk.repo(request)
        branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": self._tree.head(repo).id}]
        named = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": sha}
            for name, sha in tags(repo).items()
        ]
        return json_reply({"branches": branches, "tags": named, "converts": [], "pullRequests": []})

    def commits(self, request: Request) -> Response:
        repo = self._desk.repo(request)
        commit = self._desk.commit(request, repo)
        past = history(repo)
        known = [entry["id"] for entry in past]
        if commit.id in known:
            past = past[known.index(commit.id) :]
        else:
            found = {"id": commit.id, "title": commit.title, "message": commit.message, "date": commit.date}
            past = [found, *past]
        author = {"user": repo.id.partition("/")[0]}
        return json_reply([{**entry, "authors": [author]} for entry in past])

    def resolve(self, request: Request) -> Response:
        repo = self._desk.repo(request, files=True)
        commit = self._desk.commit(request, repo)
        blob = self._desk.blob(request, commit)
        if blob.lfs:
            return self._to_cdn(request, repo, commit, blob)
        file = self._tree.locate(repo, blob)
        if file is None:
            raise _overwritten(commit, blob)
        return send_file(request, file, blob.size, {"X-Repo-Commit": commit.id, "ETag": f'"{blob.etag}"'})

    def _to_cdn(self, request: Request, repo: Repo, commit: Commit, blob: Blob) -> Response:
        path = quote(f"/{repo.kind}/{repo.id}/{commit.id}/{blob.path}")
        host = request.url.hostname or "127.0.0.1"
        origin = f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{self._cdn_port}"
        headers = {
            "X-Repo-Commit": commit.id,
            "X-Linked-Size": str(blob.size),
            "X-Linked-Etag": f'"{blob.etag}"',
            "Accept-Ranges": "bytes",
            "Location": f"{origin}{path}?{self._signer.query(path, request.scope.get('ttl'))}",
        }
        return Response(None, 302, headers)


class CdnApp:
    """The CDN port: serves bytes to whoever shows an unexpired signature, and knows nothing else."""

    def __init__(self, tree: HubTree, signer: Signer) -> None:
        self._tree = tree
        self._signer = signer
        route = Route("/{kind}/{ns}/{name}/{sha}/{path:path}", self.get)
        self._app = Starlette(routes=[route], exception_handlers=_HANDLERS)
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def get(self, request: Request) -> Response:
        self._signer.check(request.scope["path"], request.query_params)
        params = request.path_params
        known = params["kind"] in KINDS
        repo = self._tree.find(params["kind"], f"{params['ns']}/{params['name']}") if known else None
        commit = self._tree.commit_at(repo, params["sha"]) if repo else None
        blob = commit.files.get(unquote(params["path"])) if commit else None
        file = self._tree.locate(repo, blob) if repo and blob else None
        if blob is None or file is None:
            raise Refusal(404, "the content is gone")
        return send_file(request, file, blob.size, {"ETag": f'"{blob.sha256[:32]}"'})


def rate_limit(path: str) -> Mapping[str, str]:
    """Return the rate limit headers of a reply; the server states them but never limits by itself."""
    bucket = "resolvers" if "/resolve/" in path else "api"
    left, quota = _WINDOW_S - int(time.time()) % _WINDOW_S, _BUCKETS[bucket]
    return {
        "RateLimit": f'"{bucket}";r={quota - 1};t={left}',
        "RateLimit-Policy": f'"fixed window";"{bucket}";q={quota};w={_WINDOW_S}',
    }


def _json_values(value: object) -> Iterable[object]:
    """Return the values of a JSON object; nothing for anything else."""
    return value.values() if isinstance(value, dict) else ()


def _entries(commit: Commit, prefix: str, *, deep: bool) -> dict[str, Blob | None]:
    """Return what lies below `prefix`: path -> file, or None for a folder."""
    entries: dict[str, Blob | None] = {}
    for path, blob in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if deep else min(len(parts), 2)):
            entries[prefix + "/".join(parts[:depth])] = None
        if deep or len(parts) == 1:
            entries[path] = blob
    return entries


def _item(commit: Commit, path: str, blob: Blob | None, *, expand: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "directory", "path": path, "size": 0}
    if blob is None:
        item["oid"] = commit.folder_oid(path)
    else:
        item |= {"type": "file", "oid": blob.oid, "size": blob.size}
    if blob and blob.lfs:
        item["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    if expand:
        item["lastCommit"] = {"id": commit.id, "title": commit.title, "date": commit.date}
    if expand and blob:
        item["securityFileStatus"] = {"status": "unscanned", "avScan": None, "pickleImportScan": None}
    return item


def _next_page(request: Request, cursor: str | None) -> dict[str, str]:
    if cursor is None:
        return {}
    query = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    origin = f"{request.url.scheme}://{request.url.netloc}"
    url = f"{origin}{request.scope['path']}?{urlencode([*query, ('cursor', cursor)])}"
    return {"Link": f'<{url}>; rel="next"'}


def _renamed(request: Request, old: str, new: str) -> str:
    path = request.scope["path"].replace(f"/{quote(old)}", f"/{quote(new)}", 1)
    return f"{path}?{request.url.query}" if request.url.query else path


def _overwritten(commit: Commit, blob: Blob) -> Refusal:
    message = f"{blob.path} was overwritten on disk after commit {commit.id}"
    return Refusal(404, message, "EntryNotFound", {"X-Repo-Commit": commit.id})


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


def _bad_request(_request: Request, error: Exception) -> Response:
    return Refusal(400, str(error)).response()


def _misconfigured(_request: Request, error: Exception) -> Response:
    return Refusal(500, str(error)).response()


_HANDLERS: Mapping[Any, Any] = {Refusal: _refuse, QueryError: _bad_request, ConfigError: _misconfigured}
