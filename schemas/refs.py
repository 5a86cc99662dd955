"""Where bytes are: repositories, files, tensors, matrices, and the units of work made of them.

RepoRef -> FileRef -> TensorRef -> MatrixRef -> WorkUnit. All are facts about places, none holds weights; a
Buffer is what is read there.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from typing import Any, TypeAlias

from schemas.records import record
from schemas.results import BaseStatus, Role, Scheme, SkipReason

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that were read. They may be the source's own, so nobody writes to them."""

MAX_PATH = 1024

_UNSAFE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_safe_path(path: str) -> bool:
    """Whether a file name stays inside its repository and is plain text of bounded length.

    No empty, `.` or `..` segment, no backslash, no control character or lone surrogate.
    """
    return len(path) <= MAX_PATH and _UNSAFE.search(path) is None


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repository pinned to one commit.

    `revision` is 40 hex digits: the hub's commit, or for a local model the hash of its content.
    """

    repo_id: str
    revision: str

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision[:12]}"

    def part_key(self, fingerprint: str) -> str:
        """Name of this repository's part in a lake: readable, safe as a file name, and unique by its hash."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "_", self.repo_id.replace("/", "--"))[:80]
        place = f"{self.repo_id}\0{self.revision}\0{fingerprint}"
        return f"{slug}-{hashlib.blake2b(place.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file of a pinned repository.

    `path` is relative with forward slashes; `size` is bytes; `content_id` names the content (a sha256, or
    the hub's git blob id), `sha256` is None where the hub does not state it. `stamp` is that of the file on
    disk when it was hashed (inode, change and modification time), no part of what it is.
    """

    repo: RepoRef
    path: str
    size: int
    content_id: str
    sha256: str | None = None
    stamp: tuple[int, int, int] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.repo} {self.path}"


@record(kw_only=False)
class TensorRef:
    """One tensor of a safetensors file; `start` and `stop` are absolute byte offsets in the file."""

    file: FileRef
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes stored for the tensor."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The part of a fused tensor that a row stands for: `start`..`stop` of every `period` along `axis`.

    Axis 0 cuts rows, axis 1 columns. A period as long as the axis is one block; shorter periods are parts
    that alternate, head by head or row by row.
    """

    axis: int
    period: int
    start: int
    stop: int

    def whole(self, part: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the tensor that a part of shape `part` is cut from."""
        length = part[self.axis] // (self.stop - self.start) * self.period
        return (*part[: self.axis], length, *part[self.axis + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPair:
    """What completes the row of a LoRA's A factor: Delta = gain * B A, times the stored `alpha` if any.

    `b` and `alpha` are tensors of the same file as A; `rank` is the inner side of the product. `fault` says
    what is wrong with a scale that is stated but means nothing; then `gain` means nothing either.
    """

    b: TensorRef
    rank: int
    gain: float
    alpha: TensorRef | None = None
    fault: str = ""

    @property
    def others(self) -> tuple[TensorRef, ...]:
        """The tensors to read besides A."""
        return (self.b,) if self.alpha is None else (self.b, self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the codes of a quantised tensor become weights: scheme, bits a code, and the companion tensors.

    A companion is named by what it holds: scale, zero, index and so on; it may lie in another file. `block`:
    rows and columns under one scale. `plus_one`: stored zeros are one too small. `flip`: scales are divided,
    not multiplied, by the global one.
    """

    scheme: Scheme
    bits: int
    companions: tuple[tuple[str, TensorRef], ...]
    block: tuple[int, int] | None = None
    plus_one: bool = False
    flip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterpart:
    """What a planned row is held against: the base's commit and, where one was found, the matrix in it.

    `status` ok means that `matrix` is to be read and compared; any other says why it is not.
    """

    status: BaseStatus = BaseStatus.OFF
    repo: RepoRef | None = None
    matrix: "MatrixRef | None" = None


@record()
class MatrixRef:
    """One planned row of `layers`: a matrix (or pooled convolution) inside one tensor, or a reasoned skip.

    The values are the contiguous bytes `start`..`stop` of the tensor's file, shaped `shape`. A 2-D
    `shape` is one matrix; a longer one is a convolution (out, in, k...) cut into prod(k) slices. With a
    `cut` the bytes hold more than the row. With `lora` the row is the product of two factors: `tensor` is
    the A factor, `shape` that of the product. With a `packing` the bytes are codes. `note` is
    the `status_reason` of a row that is ok.
    """

    tensor: TensorRef
    index: int
    shape: tuple[int, ...]
    start: int
    stop: int
    role: Role = Role.OTHER
    component: str | None = None
    part: str | None = None
    expert_id: int | None = None
    slice_id: int | None = None
    layer_index: int | None = None
    is_last: bool = False
    quant_method: str | None = None
    cut: Cut | None = None
    lora: LoraPair | None = None
    note: str | None = None
    packing: Packing | None = None
    skip: SkipReason | None = None
    base: Counterpart = Counterpart()

    @property
    def kernel_size(self) -> int:
        """Positions of the kernel; 1 for a 2-D matrix."""
        return prod(self.shape[2:])

    @property
    def slices(self) -> int:
        """Number of slices pooled in the row: every position of the kernel, or the one that it stands for."""
        return 1 if self.slice_id is not None else self.kernel_size

    @property
    def others(self) -> tuple[TensorRef, ...]:
        """Tensors, or experts of a stack of them, that are read besides `tensor`."""
        companions = () if self.packing is None else tuple(held for _, held in self.packing.companions)
        return companions + (() if self.lora is None else self.lora.others)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Byte ranges of the row's own file that it is computed from, its own first."""
        others = (other for other in self.others if other.file == self.tensor.file)
        return ((self.start, self.stop), *((other.start, other.stop) for other in others))

    @property
    def nbytes(self) -> int:
        """Bytes to read for this row; 0 when it is skipped."""
        return 0 if self.skip else self.stop - self.start + sum(other.nbytes for other in self.others)

    @property
    def partner(self) -> "MatrixRef | None":
        """The base's matrix to read beside this one, None where nothing is compared."""
        return self.base.matrix if self.base.status is BaseStatus.OK and not self.skip else None

    @property
    def pair_bytes(self) -> int:
        """Bytes to read for this row and its partner."""
        return self.nbytes + (self.partner.nbytes if self.partner else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """A group of matrices of one repository, none of them skipped, that one worker reads and solves at once.

    `unit_id` is a hash of content ids, tensors and config fingerprint: equal work has an equal name.
    `nbytes` is what will be read, bases included, `cost` the estimated seconds of one core.
    """

    unit_id: str
    repo: RepoRef
    matrices: tuple[MatrixRef, ...]
    nbytes: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoFacts:
    """What the hub and the model card say about a repository; None or empty where they are silent.

    `scores` are the card's own evaluation results: ("task/dataset/metric", value), each name once.
    """

    library_name: str | None = None
    pipeline_tag: str | None = None
    license: str | None = None
    base_model: str | None = None
    downloads: int | None = None
    likes: int | None = None
    last_modified: datetime | None = None
    tokens: int | None = None
    tags: tuple[str, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A pinned repository with its files and facts, before any weight is read."""

    ref: RepoRef
    files: tuple[FileRef, ...]
    facts: RepoFacts = field(default_factory=RepoFacts)
