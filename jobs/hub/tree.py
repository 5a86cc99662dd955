"""A folder read as a Hub: repositories, their files, what these hash to and the commits they make.

A repository is `ROOT/models/NAMESPACE/NAME` or `ROOT/datasets/NAMESPACE/NAME`; where there is no
`ROOT/models`, models lie directly in `ROOT/NAMESPACE/NAME`. Three laws:

- the folder is the head commit: its id is a hash of all paths and contents, so equal folders have equal ids;
- only regular files that really lie inside ROOT exist, whatever a link or a requested path says;
- `.hub.json` (settings), `.hub/` (history), `.git` and `.cache` are never files of a repository.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal

from schemas.errors import ConfigError, TargetError

Kind = Literal["models", "datasets"]
KINDS: tuple[Kind, ...] = ("models", "datasets")
HEAD_NAMES = frozenset({"main", "refs/heads/main"})

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository of the folder; `settings` is the content of its `.hub.json`."""

    kind: Kind
    id: str
    folder: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of a commit; `oid` is the git blob id of the content, or of the pointer of an LFS file."""

    path: str
    size: int
    sha256: str
    oid: str
    lfs: bool

    @property
    def etag(self) -> str:
        """What the Hub calls the file's ETag: sha256 for LFS files, git blob id for the others."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer file."""
        return len(_pointer(self.sha256, self.size))


@dataclass(frozen=True, slots=True)
class Commit:
    """All files of a repository at one moment; `date` is ISO 8601 in UTC."""

    id: str
    date: str
    title: str
    message: str
    files: Mapping[str, Blob]

    def folder_oid(self, folder: str) -> str:
        """Return an id of a folder's content: equal contents, equal ids."""
        return _content_id({path: blob for path, blob in self.files.items() if path.startswith(f"{folder}/")})


class HubTree:
    """The folder as repositories.

    Content hashes are remembered by (path, size, mtime), so a file of many GB is hashed once; so are all
    commits that were seen, so a pinned read goes on after `main` moved, as far as the bytes still exist.

    Raises:
        TargetError: `root` is not a folder.
    """

    def __init__(self, root: Path, *, lfs_threshold: int, lfs_suffixes: tuple[str, ...]) -> None:
        if not root.is_dir():
            raise TargetError(f"{root}: expected a folder of repositories (NAMESPACE/NAME/files), found none")
        self.root = root.resolve()
        self.lfs_threshold = lfs_threshold
        self.lfs_suffixes = lfs_suffixes
        self._digests: dict[Path, tuple[int, int, str]] = {}
        self._oids: dict[str, str] = {}
        self._seen: dict[tuple[Path, str], Commit] = {}
        self._locks: dict[Path, threading.RLock] = {}

    def base(self, kind: Kind) -> Path:
        """Folder that holds the namespaces of `kind`."""
        folder = self.root / kind
        return self.root if kind == "models" and not folder.is_dir() else folder

    def find(self, kind: Kind, repo_id: str) -> Repo | None:
        """Return the repository of that name, or None. Raises ConfigError on unreadable settings."""
        namespace, _, name = repo_id.partition("/")
        folder = self.base(kind) / namespace / name
        reserved = namespace in KINDS and self.base(kind) == self.root
        if reserved or not is_repo_id(repo_id) or not folder.is_dir() or not self.inside(folder):
            return None
        return Repo(kind, repo_id, folder, read_settings(folder))

    def repos(self, kind: Kind) -> Iterator[Repo]:
        """Yield all repositories of `kind`, by name. Raises ConfigError on unreadable settings."""
        for namespace in _folders(self.base(kind)):
            for folder in _folders(namespace):
                if repo := self.find(kind, f"{namespace.name}/{folder.name}"):
                    yield repo

    def inside(self, path: Path) -> bool:
        """Whether `path`, all links followed, lies in ROOT."""
        return path.resolve().is_relative_to(self.root)

    def lock(self, repo: Repo) -> threading.RLock:
        """Return the lock under which the files of `repo` are read as a commit or changed."""
        return self._locks.setdefault(repo.folder, threading.RLock())

    def listing(self, repo: Repo) -> dict[str, os.stat_result]:
        """Return path -> stat of the files now in the folder, sorted by path; nothing is hashed."""
        found: dict[str, os.stat_result] = {}
        for folder, folders, names in os.walk(repo.folder):
            folders[:] = [name for name in folders if not is_hidden(name) and _is_text(name)]
            for name in names:
                file = Path(folder, name)
                if not is_hidden(name) and _is_text(name) and (stat := self._stat(file)):
                    found[file.relative_to(repo.folder).as_posix()] = stat
        return dict(sorted(found.items()))

    def head(self, repo: Repo) -> Commit:
        """Return the commit that the folder now is."""
        with self.lock(repo):
            stats = self.listing(repo)
            blobs = {path: self._blob(repo, path, stat) for path, stat in stats.items()}
            last = next(iter(history(repo)), None)
            commit_id = _content_id(blobs)
            if last is not None and last["id"] == commit_id:
                commit = Commit(commit_id, last["date"], last["title"], last["message"], blobs)
            else:
                commit = Commit(commit_id, last_change(repo, stats), "Files as found on disk", "", blobs)
            self.remember(repo, commit)
            return commit

    def remember(self, repo: Repo, commit: Commit) -> None:
        """Keep a commit readable by its id."""
        self._seen[repo.folder, commit.id] = commit

    def forget(self, repo: Repo, keep: Collection[str]) -> None:
        """Forget all commits of `repo` but those with an id in `keep`."""
        for key in [key for key in self._seen if key[0] == repo.folder and key[1] not in keep]:
            self._seen.pop(key, None)

    def commit_at(self, repo: Repo, rev: str) -> Commit | None:
        """Return the commit that a branch, tag or sha names; None if it is not known."""
        if rev in HEAD_NAMES:
            return self.head(repo)
        sha = tags(repo).get(rev.removeprefix("refs/tags/"), rev)
        if not _SHA.fullmatch(sha):
            return None
        if seen := self._seen.get((repo.folder, sha)):
            return seen
        head = self.head(repo)
        return head if head.id == sha else _stored_commit(repo, sha)

    def locate(self, repo: Repo, blob: Blob) -> Path | None:
        """Return a file that holds the bytes of `blob`; None once they are overwritten."""
        file = repo.folder / blob.path
        found = self._stat(file)
        if found and self.inside(file) and self._sha256(file, found) == blob.sha256:
            return file
        kept = state_folder(repo) / "objects" / blob.sha256
        return kept if self._stat(kept) and self.inside(kept) else None

    def _stat(self, file: Path) -> os.stat_result | None:
        """Return the stat of a regular file inside ROOT; None for all else and what is gone."""
        try:
            found = file.stat()
        except OSError:
            return None
        ours = S_ISREG(found.st_mode) and (not file.is_symlink() or self.inside(file))
        return found if ours else None

    def _blob(self, repo: Repo, path: str, found: os.stat_result) -> Blob:
        size, sha256 = found.st_size, self._sha256(repo.folder / path, found)
        lfs = path.endswith(self.lfs_suffixes) or size > self.lfs_threshold
        oid = _git_oid(_pointer(sha256, size)) if lfs else self._small_oid(repo.folder / path, sha256)
        return Blob(path, size, sha256, oid, lfs)

    def _small_oid(self, file: Path, sha256: str) -> str:
        if sha256 not in self._oids:
            self._oids[sha256] = _git_oid(file.read_bytes())
        return self._oids[sha256]

    def _sha256(self, file: Path, found: os.stat_result) -> str:
        known = self._digests.get(file)
        if known is None or known[:2] != (found.st_size, found.st_mtime_ns):
            with file.open("rb") as stream:
                known = (found.st_size, found.st_mtime_ns, hashlib.file_digest(stream, "sha256").hexdigest())
            self._digests[file] = known
        return known[2]


def is_hidden(name: str) -> bool:
    """Whether a path with this segment is the server's or git's own and never a file of a repository."""
    return name in (".git", ".cache") or name.startswith(".hub")


def is_repo_id(text: str) -> bool:
    """Whether `text` is NAMESPACE/NAME by the Hub's rules."""
    parts = text.split("/")
    return len(parts) == 2 and all(
        _NAME.fullmatch(part) and "--" not in part and ".." not in part and not part.endswith(".git")
        for part in parts
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what `.hub.json` says, or nothing. Raises ConfigError unless it is a JSON object."""
    file = folder / ".hub.json"
    if not file.is_file():
        return {}
    where = "/".join(file.parts[-3:])
    try:
        settings = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{where}: expected a JSON object ({error}); correct or remove the file") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected a JSON object, got {type(settings).__name__}")
    return settings


def state_folder(repo: Repo) -> Path:
    """Where the server keeps the history of `repo`."""
    return repo.folder / ".hub"


def history(repo: Repo) -> list[dict[str, str]]:
    """Return the commits written through the server, newest first: id, title, message, date."""
    commits: list[dict[str, str]] = read_state(repo)["commits"]
    return commits


def tags(repo: Repo) -> dict[str, str]:
    """Return tag -> commit id."""
    found: dict[str, str] = read_state(repo)["tags"]
    return found


def read_state(repo: Repo) -> dict[str, Any]:
    """Return the recorded commits and tags."""
    file = state_folder(repo) / "history.json"
    if not file.is_file():
        return {"commits": [], "tags": {}}
    state: dict[str, Any] = json.loads(file.read_bytes())
    return state


def last_change(repo: Repo, stats: Mapping[str, os.stat_result]) -> str:
    """Return when a file last changed or, where later, when the last commit was written."""
    empty = repo.folder.stat().st_mtime
    changed = iso(max((found.st_mtime for found in stats.values()), default=empty))
    return max([changed, *(entry["date"] for entry in history(repo)[:1])])


def iso(timestamp: float) -> str:
    """Return seconds since 1970 as the Hub writes dates."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stored_commit(repo: Repo, sha: str) -> Commit | None:
    file = state_folder(repo) / "commits" / f"{sha}.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_bytes())
    record["files"] = {path: Blob(**blob) for path, blob in record["files"].items()}
    return Commit(**record)


def _folders(base: Path) -> list[Path]:
    if not base.is_dir():
        return []
    return sorted(entry for entry in base.iterdir() if not entry.name.startswith(".") and entry.is_dir())


def _is_text(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _content_id(blobs: Mapping[str, Blob]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for path, blob in blobs.items():
        digest.update(f"{path}\0{blob.sha256}\n".encode())
    return digest.hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
