"""Models on disk: a folder, one safetensors file, or a snapshot in the huggingface cache."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import NamedTuple, TypeAlias

from scanner.sources.base import COMMIT, READ, Span
from scanner.sources.card import MAX_FRONT_MATTER, facts_from_readme
from scanner.sources.room import room_for
from schemas.errors import SourceError
from schemas.refs import Buffer, FileRef, RepoFacts, RepoRef, Repository
from schemas.results import FailureKind

_ASKED = 16
"""Places of a file at which the kernel is asked whether it is in memory."""
_MAX_CARD = 64 * MAX_FRONT_MATTER
_LISTED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".gguf")

Stamp: TypeAlias = tuple[int, int, int]
"""Inode, time of change, time of modification (ns)."""


class _Found(NamedTuple):
    """A file on disk: its size in bytes, what names its content, its sha256 if known, its stamp if hashed."""

    size: int
    content: str
    sha256: str | None = None
    stamp: Stamp | None = None


class LocalSource:
    """Reads one local model. Its revision is the cache's commit, or the hash of its content."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """Pin the folder to its content and list its files. Raises SourceError if it can't be read."""
        try:
            contents = {path: self._found(path) for path in self._paths(READ)}
            unread = {path: self._unread(path) for path in self._paths(_LISTED)}
            facts = self._facts()
        except OSError as error:
            raise _unreadable(Path(error.filename or self._root), error) from error
        name = self._root.name
        pinned = name if COMMIT.fullmatch(name) else _combined(contents)
        ref = RepoRef(repo_id=repo_id, revision=pinned)
        files = tuple(
            FileRef(ref, path, found.size, found.content, found.sha256, found.stamp)
            for path, found in sorted((contents | unread).items())
        )
        return Repository(ref=ref, files=files, facts=facts)

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Return exactly the bytes start..stop of `file`. Raises SourceError."""
        return bytes(next(self.stream(file, [(start, stop)])))

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield a fresh buffer for each span. Raises SourceError when the file ends early or changed.

        A file with another stamp than was pinned is hashed again, once a process for each stamp.
        """
        path, stamp = self._path(file.path), file.stamp
        try:
            with _opened(path) as handle:
                number = handle.fileno()
                for start, stop in spans:
                    buffer = room_for(file, start, stop)
                    _fill(number, buffer, file, start)
                    stamp = _still(file, path, stamp, os.fstat(number))
                    yield buffer
        except OSError as error:
            raise _unreadable(path, error, file.path) from error

    def waits(self, file: FileRef, spans: Sequence[Span]) -> bool:
        """Whether some of it is not in memory; what was just hashed is. An error is for `stream` to tell."""
        try:
            with _opened(self._path(file.path)) as handle:
                number = handle.fileno()
                some = spans[:: max(len(spans) // _ASKED, 1)]
                return not all(_at_hand(number, stop - 1) for start, stop in some if stop > start)
        except OSError:
            return False

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _path(self, path: str) -> Path:
        return self._root if self._root.is_file() else self._root / path

    def _paths(self, suffixes: tuple[str, ...]) -> list[str]:
        if self._root.is_file():
            return [self._root.name] if self._root.suffix in suffixes else []
        found = (p for p in self._root.rglob("*") if p.suffix in suffixes)
        relative = (p.relative_to(self._root) for p in found)
        return sorted(p.as_posix() for p in relative if not any(part.startswith(".") for part in p.parts))

    def _found(self, path: str) -> _Found:
        """The file, hashed; what only has the name of one is listed too, so that reading it can say so."""
        place = self._path(path)
        return _hashed(place) if place.is_file() else _Found(0, f"no file {path}")

    def _unread(self, path: str) -> _Found:
        place = self._path(path)
        size = place.stat().st_size if place.is_file() else 0
        return _Found(size, f"unread {path}", self._cached_sha256(path))

    def _cached_sha256(self, path: str) -> str | None:
        """The cache stores a file under its sha256 and links to it."""
        link = self._path(path)
        target = os.path.basename(os.path.realpath(link)) if link.is_symlink() else ""
        return target if re.fullmatch(r"[0-9a-f]{64}", target) else None

    def _facts(self) -> RepoFacts:
        readme = self._root / "README.md"
        if self._root.is_file() or not readme.is_file():
            return RepoFacts()
        with readme.open("rb") as handle:
            return facts_from_readme(handle.read(_MAX_CARD))


def _opened(path: Path) -> FileIO:
    """A regular file, opened to be read; a pipe is not waited for. Raises OSError for anything else."""
    handle = FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        return handle
    handle.close()
    raise OSError(errno.EINVAL, "a pipe or a device, no file", str(path))


def _at_hand(number: int, place: int) -> bool:
    """Whether the kernel has the byte in memory, as far as it can be asked."""
    try:
        return os.preadv(number, [bytearray(1)], place, os.RWF_NOWAIT) == 1
    except (OSError, AttributeError):
        return False


def _fill(number: int, buffer: memoryview, file: FileRef, start: int) -> None:
    filled = 0
    while filled < len(buffer):
        count = os.preadv(number, [buffer[filled:]], start + filled)
        if not count:
            raise SourceError(
                FailureKind.SIZE_MISMATCH,
                f"{file}: ends at byte {start + filled}, expected {file.size}: truncated",
                file=file.path,
            )
        filled += count


def _still(file: FileRef, path: Path, known: Stamp | None, found: os.stat_result) -> Stamp:
    """The stamp of what is read now. Raises SourceError where it is no longer the file that was pinned.

    Every write changes the time of change, which nobody can set; so do a new link, another mode and a copy
    on another machine, so that the content has the last word.
    """
    stamp = _stamp(found)
    if found.st_size == file.size and (stamp == known or _content(path, stamp) == file.content_id):
        return stamp
    kind = FailureKind.ETAG_CHANGED
    message = f"{file}: {kind.sentence}: pinned with {file.size} bytes, now {found.st_size}"
    if found.st_size == file.size:
        message = f"{file}: {kind.sentence}: as many bytes, but others than were pinned"
    raise SourceError(kind, message, file=file.path)


@lru_cache(maxsize=1024)
def _content(path: Path, stamp: Stamp) -> str:
    """Hash of the file that has `stamp` at `path`."""
    return _hashed(path).content


def _hashed(path: Path) -> _Found:
    """As the hub names what it stores, in half of the time of BLAKE2 where the processor has SHA extensions.

    The stamp is that of before, so that what is written meanwhile changes it.
    """
    with _opened(path) as handle:
        stamp = _stamp(os.fstat(handle.fileno()))
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        return _Found(handle.tell(), sha256, sha256, stamp)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_ctime_ns, found.st_mtime_ns


def _combined(contents: dict[str, _Found]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for path, found in sorted(contents.items()):
        digest.update(f"{path}\0{found.size}\0{found.content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError, file: str | None = None) -> SourceError:
    return SourceError(FailureKind.READ_ERROR, f"cannot read {path}: {error.strerror}", file=file)
