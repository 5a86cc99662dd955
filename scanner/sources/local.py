"""Models on disk: a folder, one safetensors file, or a snapshot in the huggingface cache."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from io import FileIO
from pathlib import Path

from scanner.sources.base import COMMIT, READ, Span
from scanner.sources.card import facts_from_readme
from scanner.sources.room import room_for
from schemas.errors import SourceError
from schemas.refs import Buffer, FileRef, RepoFacts, RepoRef, Repository
from schemas.results import FailureKind

_LISTED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".gguf")


class LocalSource:
    """Reads one local model. Its revision is the cache's commit, or the hash of its content."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def repository(self, repo_id: str, revision: str | None = None) -> Repository:
        """Pin the folder to its content and list its files. Raises SourceError if it can't be read."""
        try:
            contents = {path: self._fingerprint(path) for path in self._paths(READ)}
            unread = {
                path: (self._path(path).stat().st_size, f"unread {path}") for path in self._paths(_LISTED)
            }
        except OSError as error:
            raise _unreadable(self._root, error) from error
        name = self._root.name
        pinned = name if COMMIT.fullmatch(name) else _combined(contents)
        ref = RepoRef(repo_id=repo_id, revision=pinned)
        files = tuple(
            FileRef(ref, path, size, content, self._cached_sha256(path))
            for path, (size, content) in sorted((contents | unread).items())
        )
        return Repository(ref=ref, files=files, facts=self._facts())

    def read(self, file: FileRef, start: int, stop: int) -> bytes:
        """Return exactly the bytes start..stop of `file`. Raises SourceError."""
        return bytes(next(self.stream(file, [(start, stop)])))

    def stream(self, file: FileRef, spans: Sequence[Span]) -> Iterator[Buffer]:
        """Yield a fresh buffer for each span. Raises SourceError when the file ends early or changed."""
        try:
            with self._path(file.path).open("rb", buffering=0) as handle:
                opened = os.fstat(handle.fileno())
                for start, stop in spans:
                    handle.seek(start)
                    buffer = room_for(file, start, stop)
                    _fill(handle, buffer, file, start)
                    _check_unchanged(file, opened, os.fstat(handle.fileno()))
                    yield buffer
        except OSError as error:
            raise _unreadable(self._path(file.path), error, file.path) from error

    def close(self) -> None:
        """Nothing stays open between calls."""

    def _path(self, path: str) -> Path:
        return self._root if self._root.is_file() else self._root / path

    def _paths(self, suffixes: tuple[str, ...]) -> list[str]:
        if self._root.is_file():
            return [self._root.name] if self._root.suffix in suffixes else []
        found = (p for p in self._root.rglob("*") if p.suffix in suffixes and p.is_file())
        relative = (p.relative_to(self._root) for p in found)
        return sorted(p.as_posix() for p in relative if not any(part.startswith(".") for part in p.parts))

    def _fingerprint(self, path: str) -> tuple[int, str]:
        with self._path(path).open("rb", buffering=0) as handle:
            digest = hashlib.file_digest(handle, partial(hashlib.blake2b, digest_size=20))
            return handle.tell(), digest.hexdigest()

    def _cached_sha256(self, path: str) -> str | None:
        """The cache stores a file under its sha256 and links to it."""
        link = self._path(path)
        target = link.resolve().name if link.is_symlink() else ""
        return target if re.fullmatch(r"[0-9a-f]{64}", target) else None

    def _facts(self) -> RepoFacts:
        readme = self._root / "README.md"
        if self._root.is_file() or not readme.is_file():
            return RepoFacts()
        return facts_from_readme(readme.read_bytes())


def _fill(handle: FileIO, buffer: memoryview, file: FileRef, start: int) -> None:
    filled = 0
    while filled < len(buffer):
        count = handle.readinto(buffer[filled:])
        if not count:
            raise SourceError(
                FailureKind.SIZE_MISMATCH,
                f"{file}: ends at byte {start + filled}, expected {file.size}: truncated",
                file=file.path,
            )
        filled += count


def _check_unchanged(file: FileRef, before: os.stat_result, after: os.stat_result) -> None:
    """A file of another size than was pinned, or one written to since it was opened, is another file."""
    if after.st_size == file.size and after.st_mtime_ns == before.st_mtime_ns:
        return
    kind = FailureKind.ETAG_CHANGED
    message = f"{file}: {kind.sentence}: pinned with {file.size} bytes, now {after.st_size}"
    raise SourceError(kind, message, file=file.path)


def _combined(contents: dict[str, tuple[int, str]]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for path, (size, content) in sorted(contents.items()):
        digest.update(f"{path}\0{size}\0{content}\n".encode())
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError, file: str | None = None) -> SourceError:
    return SourceError(FailureKind.READ_ERROR, f"cannot read {path}: {error.strerror}", file=file)
