"""Models on disk: what is listed, what the revision depends on, and files that are not what they were."""

import hashlib
import os
import shutil

import pytest

from scanner.sources.local import LocalSource
from scanner.weights.selection import PICKLES, choose_files
from schemas.errors import FormatError, SourceError
from schemas.results import FailureKind

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = hashlib.sha256(bytes(range(200))).hexdigest()
UNREAD = "ab" * 32


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "owner" / "name"
    (root / "unet").mkdir(parents=True)
    (root / ".cache").mkdir()
    (root / "model.safetensors").write_bytes(bytes(range(200)))
    (root / "unet/model.safetensors").write_bytes(b"unet")
    (root / "config.json").write_text("{}")
    (root / "README.md").write_text("---\nlicense: mit\npipeline_tag: fill-mask\nbase_model: a/b\n---\n")
    (root / "notes.txt").write_text("notes")
    (root / ".cache/model.safetensors").write_bytes(b"hidden")
    return root


def pinned(root):
    return LocalSource(root).repository("owner/name")


def file_of(repository, path="model.safetensors"):
    return next(file for file in repository.files if file.path == path)


def test_a_folder_lists_weights_and_configs(folder):
    found = {file.path: file.size for file in pinned(folder).files}
    assert found == {"config.json": 2, "model.safetensors": 200, "unet/model.safetensors": 4}


@pytest.mark.parametrize("ending", [*PICKLES, ".gguf"])
def test_weights_that_no_scan_reads_are_listed_so_that_it_can_say_so(tmp_path, ending):
    """Sources may not import the rules of selection, so they have the endings again."""
    (tmp_path / f"model{ending}").write_bytes(b"never opened")
    with pytest.raises(FormatError) as caught:
        choose_files(pinned(tmp_path).files)
    assert caught.value.kind in (FailureKind.SKIPPED_PICKLE, FailureKind.SKIPPED_GGUF)


def test_the_card_gives_facts_and_no_counts(folder):
    facts = pinned(folder).facts
    assert (facts.license, facts.pipeline_tag, facts.base_model) == ("mit", "fill-mask", "a/b")
    assert (facts.downloads, facts.likes) == (None, None)


def test_one_file_is_a_repository(folder):
    repository = pinned(folder / "model.safetensors")
    (file,) = repository.files
    assert (file.path, file.size) == ("model.safetensors", 200)
    assert LocalSource(folder / "model.safetensors").read(file, 10, 13) == bytes([10, 11, 12])


def test_spans_are_fresh_writable_buffers(folder):
    source = LocalSource(folder)
    file = file_of(pinned(folder))
    first, second = source.stream(file, [(0, 3), (150, 155)])
    assert (first, second) == (bytearray([0, 1, 2]), bytearray(range(150, 155)))
    first[0] = 9
    assert source.read(file, 0, 1) == b"\0"
    assert source.read(file, 5, 5) == b""


def test_the_revision_is_the_content(folder, tmp_path):
    before = pinned(folder).ref.revision
    assert len(before) == 40
    os.utime(folder / "model.safetensors", (1, 1))
    copied = shutil.copytree(folder, tmp_path / "elsewhere")
    (copied / "notes.txt").write_text("other notes")
    assert pinned(folder).ref.revision == pinned(copied).ref.revision == before
    (copied / "model.safetensors").write_bytes(bytes(reversed(range(200))))
    assert pinned(copied).ref.revision != before


def test_a_renamed_file_is_another_revision(folder):
    before = pinned(folder).ref.revision
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert pinned(folder).ref.revision != before


def test_equal_content_has_an_equal_content_id(folder):
    (folder / "unet/model.safetensors").write_bytes(bytes(range(200)))
    repository = pinned(folder)
    first, second = file_of(repository), file_of(repository, "unet/model.safetensors")
    assert first.content_id == second.content_id


def test_a_hash_is_that_of_the_hub(folder):
    file = file_of(pinned(folder))
    assert file.sha256 == file.content_id == SHA256


def test_a_cached_snapshot_keeps_its_commit_and_its_hashes(folder, tmp_path):
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    shutil.copy(folder / "model.safetensors", repo / "blobs" / SHA256)
    shutil.copy(folder / "config.json", repo / "blobs" / "c0ffee")
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{SHA256}")
    (snapshot / "config.json").symlink_to("../../blobs/c0ffee")
    (repo / "blobs" / UNREAD).write_bytes(b"pickle")
    (snapshot / "pytorch_model.bin").symlink_to(f"../../blobs/{UNREAD}")
    repository = pinned(snapshot)
    assert repository.ref.revision == COMMIT
    assert file_of(repository).sha256 == SHA256
    assert file_of(repository, "pytorch_model.bin").sha256 == UNREAD
    assert LocalSource(snapshot).read(file_of(repository), 0, 2) == b"\0\1"


def test_a_cached_file_is_what_it_holds_whatever_its_name(folder, tmp_path):
    (tmp_path / UNREAD).write_bytes(bytes(range(200)))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / UNREAD)
    assert file_of(pinned(folder)).sha256 == SHA256


def test_a_truncated_file_ends_the_stream_after_what_is_there(folder):
    file = file_of(pinned(folder))
    (folder / "model.safetensors").write_bytes(bytes(50))
    with pytest.raises(SourceError) as caught:
        LocalSource(folder).read(file, 40, 60)
    assert caught.value.kind is FailureKind.SIZE_MISMATCH
    assert "ends at byte 50, expected 200: truncated" in caught.value.message
    assert caught.value.file == "model.safetensors"
    assert not caught.value.retryable


def test_a_file_that_grew_is_another_file(folder):
    file = file_of(pinned(folder))
    (folder / "model.safetensors").write_bytes(bytes(300))
    with pytest.raises(SourceError) as caught:
        LocalSource(folder).read(file, 0, 10)
    assert caught.value.kind is FailureKind.ETAG_CHANGED


def others_at_the_same_time(path, content):
    """`path` written anew, with the size and the time of modification that it had."""
    before = path.stat()
    assert len(content) == before.st_size
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_other_bytes_of_the_same_size_and_time_are_another_file(folder):
    file = file_of(pinned(folder))
    others_at_the_same_time(folder / "model.safetensors", bytes(200))
    with pytest.raises(SourceError, match="as many bytes, but others than were pinned") as caught:
        LocalSource(folder).read(file, 0, 10)
    assert (caught.value.kind, caught.value.retryable) == (FailureKind.ETAG_CHANGED, False)


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_changes_under_an_open_stream_is_noticed(folder, replace):
    file = file_of(pinned(folder))
    stream = LocalSource(folder).stream(file, [(0, 10), (10, 20)])
    assert next(stream) == bytes(range(10))
    if replace:
        (folder / "new").write_bytes(bytes(200))
        (folder / "new").rename(folder / "model.safetensors")
    else:
        others_at_the_same_time(folder / "model.safetensors", bytes(200))
    with pytest.raises(SourceError) as caught:
        next(stream)
    assert caught.value.kind is FailureKind.ETAG_CHANGED


def test_equal_bytes_in_another_file_or_under_another_mode_are_the_same(folder, tmp_path):
    """As on a machine that has a copy of its own at the same place, or after chmod, or with a new link."""
    repository = pinned(folder)
    file, model = file_of(repository), folder / "model.safetensors"
    (folder / "new").write_bytes(model.read_bytes())
    (folder / "new").rename(model)
    stream = LocalSource(folder).stream(file, [(0, 10), (10, 20), (20, 30)])
    assert next(stream) == bytes(range(10))
    model.chmod(0o600)
    assert next(stream) == bytes(range(10, 20))
    (tmp_path / "link").hardlink_to(model)
    assert next(stream) == bytes(range(20, 30))
    assert pinned(folder) == repository


def test_a_card_without_end_is_read_to_its_bound(folder):
    with (folder / "README.md").open("r+b") as handle:
        handle.truncate(1 << 40)
    assert pinned(folder).facts.license == "mit"


def test_a_missing_file_is_a_read_error(folder):
    file = file_of(pinned(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"cannot read .*No such file") as caught:
        LocalSource(folder).read(file, 0, 1)
    assert (caught.value.kind, caught.value.retryable) == (FailureKind.READ_ERROR, False)


def test_an_empty_folder_has_no_files(tmp_path):
    repository = pinned(tmp_path)
    assert (repository.files, len(repository.ref.revision)) == ((), 40)


# Whether reading waits


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="this system can't be asked")
@pytest.mark.parametrize(
    ("asked", "waits"), [([1], False), ([1, BlockingIOError()], True), ([OSError()], True)]
)
def test_reading_waits_for_what_is_not_in_memory(folder, monkeypatch, asked, waits):
    file = file_of(pinned(folder))
    answers = iter([*asked, *[1] * 40])

    def preadv(_, buffers, place, flags):
        assert (len(buffers), flags, 0 <= place < 200) == (1, os.RWF_NOWAIT, True)
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "preadv", preadv)
    assert LocalSource(folder).waits(file, [(k, k + 4) for k in range(0, 160, 4)]) == waits
    assert len(list(answers)) >= 40 - 20


def test_where_the_kernel_cannot_be_asked_reading_waits(folder, monkeypatch):
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    file = file_of(pinned(folder))
    assert LocalSource(folder).waits(file, [(0, 10)])
    assert not LocalSource(folder).waits(file, [(5, 5)])


def test_a_file_that_is_gone_is_not_waited_for(folder):
    file = file_of(pinned(folder))
    (folder / "model.safetensors").unlink()
    assert not LocalSource(folder).waits(file, [(0, 10)])
