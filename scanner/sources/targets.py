"""What the user typed -> the repositories meant, and the source that reads each."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from scanner.sources.base import Source
from schemas.errors import TargetError
from schemas.work import Target

_REPO_ID = re.compile(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?", re.ASCII)
_CACHED = re.compile(r"models--(.+)")
_WEIGHTS = "*.safetensors"


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Expand what was typed into repositories, in order, each once. Raises TargetError.

    A text that names an existing path is local: a model's folder, a `.safetensors` file, a folder of
    models laid out owner/name, or a huggingface cache. Any other is `owner/name` or `owner/name@revision`.
    """
    return tuple(dict.fromkeys(target for text in texts for target in _parse(text)))


def open_source(target: Target, endpoint: str | None = None, token: str | bool | None = None) -> Source:
    """Open the source that holds `target`. Nothing is read yet."""
    if target.root is not None:
        from scanner.sources.local import LocalSource

        return LocalSource(Path(target.root))
    from scanner.sources.hub import HubSource

    return HubSource(endpoint, token)


def sibling(target: Target, repo_id: str) -> Target | None:
    """The local model `repo_id` beside `target`: in the same folder of owner/name, or the same cache.

    None where there is none, where a cache holds several commits of it, and for what is no repository id.
    """
    assert target.root is not None, "only a local model has siblings on disk"
    root = Path(target.root)
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or len(root.parents) < 3:
        return None
    if root.parent.name == "snapshots":
        cached = root.parents[2] / f"models--{repo_id.replace('/', '--')}" / "snapshots"
        found = [path for path in cached.glob("*") if path.is_dir()]
    else:
        found = [path for path in [root.parents[1] / repo_id] if path.is_dir() and _is_model(path)]
    return Target(repo_id=repo_id, root=str(found[0])) if len(found) == 1 else None


def _parse(text: str) -> Iterator[Target]:
    try:
        path = Path(text).expanduser()
        if path.exists():
            return iter([*_local(path.resolve(), text)])
    except (OSError, RuntimeError) as error:
        raise TargetError(f"cannot look at {text!r}: {error}") from error
    if "://" in text:
        raise TargetError(
            f"{text} is a URL: give owner/name, and --endpoint for another hub than the public one"
        )
    if _looks_like_path(text):
        raise TargetError(f"no such file or folder: {text}; a model of a hub is owner/name")
    repo_id, _, revision = text.partition("@")
    if not _REPO_ID.fullmatch(repo_id) or "--" in repo_id or ".." in repo_id:
        raise TargetError(
            f"{text!r} is neither a path nor a repository id: give owner/name or owner/name@revision"
        )
    return iter([Target(repo_id=repo_id, revision=revision or None)])


def _looks_like_path(text: str) -> bool:
    name = text.partition("@")[0]
    return text.startswith(("/", "./", "../", "~")) or text.endswith(".safetensors") or name.count("/") > 1


def _local(path: Path, text: str) -> Iterator[Target]:
    if path.is_file():
        if path.suffix != ".safetensors":
            raise TargetError(
                f"{text} is no .safetensors file; give the model's folder or a safetensors file"
            )
        return iter([_model(path)])
    if not path.is_dir():
        raise TargetError(f"{text} is neither a file nor a folder, but a pipe, a socket or a device")
    if _is_model(path):
        return iter([_model(path)])
    found = list(_cached(path)) or list(_folders(path))
    if not found:
        raise TargetError(
            f"no model in {text}: expected safetensors files, folders owner/name, or a huggingface cache"
        )
    return iter(found)


def _is_model(path: Path) -> bool:
    return (
        any(path.glob(_WEIGHTS)) or (path / "model_index.json").is_file() or (path / "config.json").is_file()
    )


def _model(path: Path) -> Target:
    """A local model, named by the last two parts of its path, or by the cache it lies in."""
    for parent in path.parents:
        if path.parent.name == "snapshots" and (match := _CACHED.fullmatch(parent.name)):
            return Target(repo_id=match.group(1).replace("--", "/"), root=str(path))
    return Target(repo_id=_as_text("/".join(path.parts[-2:]).lstrip("/")), root=str(path))


def _as_text(name: str) -> str:
    """A name on disk as text that can be stored: bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _cached(path: Path) -> Iterator[Target]:
    """Snapshots of a huggingface cache (the folder, its `hub` folder, or one repository of it)."""
    repos = (
        [path]
        if _CACHED.fullmatch(path.name)
        else sorted([*path.glob("models--*"), *path.glob("hub/models--*")])
    )
    for repo in repos:
        yield from (_model(snapshot) for snapshot in sorted(repo.glob("snapshots/*")) if snapshot.is_dir())


def _folders(path: Path) -> Iterator[Target]:
    """Models one or two levels down; a folder owner/name without weights is one too, and fails by name."""
    for child in _subfolders(path):
        if _is_model(child):
            yield _model(child)
        else:
            yield from (_model(grandchild) for grandchild in _subfolders(child) if any(grandchild.iterdir()))


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
