"""Writes into a folder served as a Hub: new repositories, commits, tags, squashed history.

Every file appears by a rename. What a commit overwrites or deletes is kept in `.hub/objects` under its
sha256, and each commit's file list in `.hub/commits`, so older commits and tags stay readable until the
history is squashed.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.hub.tree import (
    Commit,
    HubTree,
    Kind,
    Repo,
    history,
    is_hidden,
    is_repo_id,
    iso,
    read_state,
    state_folder,
)
from schemas.errors import UsageError


class NameTakenError(UsageError):
    """A repository or tag of that name exists; choose another name."""


class StaleParentError(UsageError):
    """`main` is no longer at the parent commit; read it again and repeat the commit."""


class BadWriteError(UsageError, ValueError):
    """A path or name that can't be written."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write a file: `content` is a temporary file beside the repository that is renamed to `path`."""

    path: str
    content: Path


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a file or a folder; nothing happens where there is none."""

    path: str


Edit = Put | Delete


def create(tree: HubTree, kind: Kind, repo_id: str, *, private: bool) -> Repo:
    """Make an empty repository. Raises NameTakenError, BadWriteError."""
    if not is_repo_id(repo_id):
        raise BadWriteError(f"{repo_id!r}: expected NAMESPACE/NAME of letters, digits, '-', '_' and '.'")
    if tree.find(kind, repo_id) is not None:
        raise NameTakenError(f"{repo_id}: a repository of this name exists")
    folder = tree.base(kind) / repo_id
    if not tree.inside(folder):
        raise BadWriteError(f"{repo_id}: the namespace is a link that leaves the served folder")
    folder.mkdir(parents=True, exist_ok=True)
    if private:
        _write_json(folder / ".hub.json", {"private": True})
    made = tree.find(kind, repo_id)
    if made is None:
        raise BadWriteError(f"{repo_id}: the namespace is reserved; choose another")
    return made


def clean_path(path: str) -> str:
    """Return `path` if it names a file inside a repository. Raises BadWriteError otherwise."""
    parts = path.split("/")
    odd = "\\" in path or not path.isprintable() or not {"", ".", ".."}.isdisjoint(parts)
    if odd or any(map(is_hidden, parts)):
        raise BadWriteError(
            f"{path!r}: expected a relative path of plain segments, none .hub*, .git or .cache"
        )
    return path


def new_content(repo: Repo, content: bytes) -> Path:
    """Write `content` to a temporary file that a `Put` can rename into place."""
    folder = state_folder(repo) / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    Path(name).chmod(0o644)
    return Path(name)


def discard(edits: Iterable[Edit]) -> None:
    """Delete the temporary files of edits that were not applied."""
    for edit in edits:
        if isinstance(edit, Put):
            edit.content.unlink(missing_ok=True)


def commit(
    tree: HubTree, repo: Repo, edits: Sequence[Edit], *, title: str, message: str, parent: str
) -> Commit:
    """Apply `edits` in order and record the commit; all paths are checked before any file is touched.

    Raises:
        StaleParentError: `parent` is not empty and is not the head; a retry on the new head can succeed.
        BadWriteError: a path leaves the repository, or a file and a folder would share a name.
    """
    with tree.lock(repo):
        head = tree.head(repo)
        if parent and not head.id.startswith(parent):
            raise StaleParentError(f"{repo.id}: main is at {head.id}, the commit expects its parent {parent}")
        plan = _plan(tree, repo, head, edits)
        _store_commit(repo, head)
        _keep(repo, head, [path for path in head.files if path not in plan or plan[path] is not None])
        for path, content in plan.items():
            if content is not None:
                target = repo.folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                content.replace(target)
        return _record(tree, repo, head, title, message)


def tag(tree: HubTree, repo: Repo, name: str, target: Commit) -> None:
    """Name a commit. Raises NameTakenError, BadWriteError."""
    clean_path(name)
    with tree.lock(repo):
        state = read_state(repo)
        if name in state["tags"]:
            raise NameTakenError(f"{repo.id}: tag {name} exists and names {state['tags'][name]}")
        _store_commit(repo, target)
        state["tags"][name] = target.id
        _write_json(state_folder(repo) / "history.json", state)


def squash(tree: HubTree, repo: Repo, message: str) -> Commit:
    """Forget all commits but the head and those with a tag, and the contents that only they had."""
    with tree.lock(repo):
        head, state = tree.head(repo), read_state(repo)
        squashed = Commit(head.id, _now(), message, "", head.files)
        state["commits"] = [_entry(squashed)]
        _write_json(state_folder(repo) / "history.json", state)
        _forget(tree, repo, keep={head.id, *state["tags"].values()})
        return squashed


def _plan(tree: HubTree, repo: Repo, head: Commit, edits: Sequence[Edit]) -> dict[str, Path | None]:
    """Return all files of the new commit: path -> new content, or None where it stays as it is."""
    plan: dict[str, Path | None] = dict.fromkeys(head.files)
    for edit in edits:
        match edit:
            case Put(path=path, content=content):
                plan[_checked(tree, repo, path)] = content
            case Delete(path=path):
                for doomed in [name for name in plan if name == path or name.startswith(f"{path}/")]:
                    del plan[doomed]
    for path in plan:
        for folder in PurePosixPath(path).parents:
            if folder.as_posix() in plan:
                raise BadWriteError(f"{repo.id}: {folder} would be a file and a folder")
    return plan


def _checked(tree: HubTree, repo: Repo, path: str) -> str:
    if not tree.inside((repo.folder / clean_path(path)).parent):
        raise BadWriteError(f"{path!r}: a link on the way leaves the served folder")
    return path


def _keep(repo: Repo, head: Commit, paths: Iterable[str]) -> None:
    objects = state_folder(repo) / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    for path in paths:
        file, kept = repo.folder / path, objects / head.files[path].sha256
        file.replace(kept)
        _remove_empty(file.parent, repo.folder)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _record(tree: HubTree, repo: Repo, before: Commit, title: str, message: str) -> Commit:
    found = tree.head(repo)
    made = Commit(found.id, _now(), title, message, found.files)
    past = history(repo)
    if not past or past[0]["id"] != before.id:
        past.insert(0, _entry(before))
    state = {**read_state(repo), "commits": [_entry(made), *past]}
    _write_json(state_folder(repo) / "history.json", state)
    tree.remember(repo, made)
    return made


def _store_commit(repo: Repo, stored: Commit) -> None:
    _write_json(state_folder(repo) / "commits" / f"{stored.id}.json", asdict(stored))


def _forget(tree: HubTree, repo: Repo, keep: set[str]) -> None:
    needed: set[str] = set()
    for sha in keep:
        if known := tree.commit_at(repo, sha):
            needed.update(blob.sha256 for blob in known.files.values())
    tree.forget(repo, keep)
    _remove_others(state_folder(repo) / "commits", {f"{sha}.json" for sha in keep})
    _remove_others(state_folder(repo) / "objects", needed)


def _remove_others(folder: Path, names: set[str]) -> None:
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in names:
            file.unlink()


def _entry(made: Commit) -> dict[str, str]:
    return {"id": made.id, "title": made.title, "message": made.message, "date": made.date}


def _now() -> str:
    return iso(datetime.now(UTC).timestamp())


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".hub-")
    with os.fdopen(handle, "w") as stream:
        json.dump(value, stream)
    os.replace(name, file)
