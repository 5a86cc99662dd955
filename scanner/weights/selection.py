"""Which files of a repository hold the model, and which are copies, variants, checkpoints or exports of it.

Decided from names and content ids alone. Where a group has an index, its files are provisional until
weights/index.py has read which shards the index names.

    1. an index beats a single file, a single file beats shards without an index
    2. variants: no suffix > fp32 > bf16 > fp16 > fp8 > non_ema
    3. names a library writes beat odd names and `consolidated*`; the root beats subfolders, but a diffusers
       pipeline is its component folders; `original/` comes next, checkpoints and exports come last
    4. equal bytes are read once
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from posixpath import basename, dirname, join
from typing import NoReturn

from schemas.errors import FormatError
from schemas.refs import FileRef, is_safe_path
from schemas.results import FailureKind

_WEIGHTS = ".safetensors"
_MODEL_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")
_ADAPTER_STEMS = ("adapter_model", "pytorch_lora_weights")
_VARIANTS = ("", "fp32", "bf16", "fp16", "fp8", "non_ema")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_SHARD = re.compile(r"(.+)-([0-9]{1,6})-of-([0-9]{1,6})")
_VARIANT = re.compile(r"(.+)[._-](fp32|bf16|fp16|fp8|non_ema)")
_INDEX = re.compile(r"(.+)\.safetensors\.index(\.[a-z0-9_]+)?\.json")
_ASIDE = re.compile(r"onnx|openvino.*|flax.*|tf_.*|coreml|tflite|tensorrt|runs|checkpoint[-_].*")
_CHECKPOINT = re.compile(r"(?:.*/)?checkpoint[-_]([0-9]{1,18})(?:[./].*)?")
_TRAINER_STATE = re.compile(r"optimizer|scheduler|training_args|trainer_state|rng_state|random_states|scaler")
_SENTENCE_MODULE = re.compile(r"[0-9]+_\w+")

_UNSAFE = "an unsafe file name: it could leave the repository"
_STATE = "trainer state, not weights"
_ASIDE_COPY = "a training checkpoint, log or export"
_ORIGINAL = "the original layout of weights that are there under library names"
_SINGLE_FILE = "a single-file copy of the pipeline's components"
_SUBFOLDER = "in a subfolder that is no component of the model"
_ODD_NAME = "not a file the library would load"
_INDEXED = "the index decides which shards are read"
_VARIANT_OF = "a variant of weights that are read"
_PICKLED = "a pickle; pickles are never opened"
_GGUF = "GGUF is not read yet"

LeftOut = tuple[FileRef, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGroup:
    """The files of one model, adapter or pipeline component.

    `component` is None for the model itself, otherwise the folder or name that tells it from the others.
    `index` is the shard index to consult: then `files` is provisional until `shards_of_index`. `config` and
    `adapter_config` are the config.json and adapter_config.json beside the weights, None where absent.
    """

    component: str | None
    files: tuple[FileRef, ...]
    index: FileRef | None = None
    config: FileRef | None = None
    adapter_config: FileRef | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read, and every other weight file with the reason it is left out, sorted by path."""

    groups: tuple[WeightGroup, ...]
    left_out: tuple[LeftOut, ...]


def choose_files(files: Sequence[FileRef]) -> Selection:
    """Decide from the list of a repository's files which weights to read.

    Raises FormatError: SKIPPED_PICKLE, SKIPPED_GGUF or NO_WEIGHTS where nothing can be read, UNSAFE_PATH
    where the only weights have unsafe names, INDEX_MISMATCH for an incomplete set of shards without an index.
    """
    tree = {file.path: file for file in files if is_safe_path(file.path)}
    weights = [file for file in tree.values() if file.path.endswith(_WEIGHTS) and not _is_state(file.path)]
    if not weights:
        _nothing_to_read(files)
    left_out = {file: reason for file in files if (reason := _why_never(file.path))}
    proper = _without_asides(weights)
    left_out |= dict.fromkeys(set(weights) - set(proper), _ASIDE_COPY)
    groups: list[WeightGroup] = []
    for folder in _chosen_folders(_folders(proper, tree), tree, left_out):
        groups += _groups(folder, proper, tree, left_out)
    groups = _distinct(groups, left_out)
    read = {file for group in groups for file in group.files}
    unread = sorted(left_out.keys() - read, key=lambda file: file.path)
    return Selection(tuple(groups), tuple((file, left_out[file]) for file in unread))


def _is_state(path: str) -> bool:
    return _TRAINER_STATE.match(basename(path)) is not None


def _is_aside(path: str) -> bool:
    return any(_ASIDE.fullmatch(segment) for segment in path.split("/"))


def _is_pickled_model(path: str) -> bool:
    return path.endswith(PICKLES) and not _is_state(path) and not _is_aside(path)


def _why_never(path: str) -> str | None:
    if path.endswith(_WEIGHTS):
        return _UNSAFE if not is_safe_path(path) else _STATE if _is_state(path) else None
    if path.endswith(".gguf"):
        return _GGUF
    return _PICKLED if _is_pickled_model(path) else None


def _nothing_to_read(files: Sequence[FileRef]) -> NoReturn:
    paths = [file.path for file in files]
    kind = FailureKind.NO_WEIGHTS
    if any(path.endswith(_WEIGHTS) and not is_safe_path(path) for path in paths):
        kind = FailureKind.UNSAFE_PATH
    elif any(_is_pickled_model(path) for path in paths):
        kind = FailureKind.SKIPPED_PICKLE
    elif any(path.endswith(".gguf") for path in paths):
        kind = FailureKind.SKIPPED_GGUF
    where = str(files[0].repo) if files else "an empty repository"
    raise FormatError(kind, f"{where}: {kind.sentence} ({len(paths)} file{'s' * (len(paths) != 1)})")


def _checkpoint_step(path: str) -> int:
    match = _CHECKPOINT.fullmatch(path)
    return int(match[1]) if match else -1


def _without_asides(weights: Sequence[FileRef]) -> list[FileRef]:
    """Drop checkpoints and exports; where nothing else is there, keep the last checkpoint."""
    proper = [file for file in weights if not _is_aside(file.path)]
    if proper:
        return proper
    last = max(_checkpoint_step(file.path) for file in weights)
    return [file for file in weights if _checkpoint_step(file.path) == last]


@dataclass(slots=True, eq=False)
class _Layout:
    """The files of one folder that share stem and variant: a whole file, sets of shards, an index."""

    stem: str
    variant: str
    whole: FileRef | None = None
    shards: dict[int, dict[int, FileRef]] = field(default_factory=dict)
    index: FileRef | None = None

    @property
    def is_consolidated(self) -> bool:
        return self.stem.startswith("consolidated")

    @property
    def is_adapter(self) -> bool:
        return self.stem in _ADAPTER_STEMS

    @property
    def is_named(self) -> bool:
        """Whether a library would find these files without being told their names."""
        known = self.index is not None or self.is_adapter or self.stem in _MODEL_STEMS
        return known and not self.is_consolidated

    @property
    def order(self) -> tuple[int, str]:
        known = _MODEL_STEMS.index(self.stem) if self.stem in _MODEL_STEMS else len(_MODEL_STEMS)
        return known, self.stem

    def members(self) -> list[FileRef]:
        shards = [parts[number] for parts in self.shards.values() for number in sorted(parts)]
        return shards if self.whole is None else [self.whole, *shards]

    def add(self, file: FileRef, shard: tuple[int, int] | None) -> bool:
        """Take `file` in; False when its place is taken by a file of an equivalent name."""
        if shard is None:
            self.whole = self.whole or file
            return self.whole is file
        number, total = shard
        return self.shards.setdefault(total, {}).setdefault(number, file) is file

    def to_read(self) -> list[FileRef]:
        """The files to read; empty when only the index can tell."""
        if self.index and self.shards:
            return [file for file in self.members() if file is not self.whole]
        if self.index or self.whole:
            return self.members()[:1]
        complete = [total for total, parts in self.shards.items() if len(parts) == total]
        if not complete:
            self._fail_incomplete()
        parts = self.shards[max(complete)]
        return [parts[number] for number in sorted(parts)]

    def _fail_incomplete(self) -> NoReturn:
        total, parts = max(self.shards.items())
        some = parts[min(parts)]
        raise FormatError(
            FailureKind.INDEX_MISMATCH,
            f"{some}: expected {total} shards, found {len(parts)} and no index: upload the rest",
            file=some.path,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Folder:
    path: str
    layouts: tuple[_Layout, ...]

    @property
    def is_named(self) -> bool:
        return any(layout.is_named for layout in self.layouts)

    @property
    def is_original(self) -> bool:
        return "original" in self.path.split("/")

    def members(self) -> list[FileRef]:
        return [file for layout in self.layouts for file in layout.members()]


def _split(stem: str) -> tuple[str, str, tuple[int, int] | None]:
    """Split the stem of a file name into bare stem, variant and (number, total) of a shard."""
    variants: list[str] = []
    shard = None
    while match := _SHARD.fullmatch(stem) or _VARIANT.fullmatch(stem):
        stem = match[1]
        if match.re is _VARIANT:
            variants.append(match[2])
        else:
            shard = int(match[2]), int(match[3])
    return stem, max(variants, key=_VARIANTS.index, default=""), shard


def _folders(weights: Iterable[FileRef], tree: Mapping[str, FileRef]) -> list[_Folder]:
    found: dict[str, dict[tuple[str, str], _Layout]] = {}
    for file in sorted(weights, key=lambda file: file.path):
        name = basename(file.path).removesuffix(_WEIGHTS)
        stem, variant, shard = _split(name)
        layouts = found.setdefault(dirname(file.path), {})
        if not layouts.setdefault((stem, variant), _Layout(stem, variant)).add(file, shard):
            layouts[name, ""] = _Layout(name, "", whole=file)
    within = _ancestors(found)
    for path, file in tree.items():
        match = _INDEX.fullmatch(basename(path))
        if match and dirname(path) in within:
            stem, variant, _ = _split(match[1] + (match[2] or ""))
            layouts = found.setdefault(dirname(path), {})
            layouts.setdefault((stem, variant), _Layout(stem, variant)).index = file
    return [_Folder(path, tuple(layouts.values())) for path, layouts in sorted(found.items())]


def _ancestors(folders: Iterable[str]) -> set[str]:
    """The folders themselves, the folders they lie in, and the root."""
    within = {""}
    for folder in folders:
        path = folder
        while path not in within:
            within.add(path)
            path = dirname(path)
    return within


def _chosen_folders(
    folders: Sequence[_Folder], tree: Mapping[str, FileRef], left_out: dict[FileRef, str]
) -> list[_Folder]:
    has_library_names = any(folder.is_named and not folder.is_original for folder in folders)
    proper = [folder for folder in folders if not (folder.is_original and has_library_names)]
    chosen = _model_folders(proper, tree)
    for folder in set(folders) - set(chosen):
        reason = _SUBFOLDER if folder.path else _SINGLE_FILE
        is_copy = folder.is_original and has_library_names
        left_out |= dict.fromkeys(folder.members(), _ORIGINAL if is_copy else reason)
    return chosen


def _model_folders(folders: Sequence[_Folder], tree: Mapping[str, FileRef]) -> list[_Folder]:
    named = [folder for folder in folders if folder.is_named]
    components = [folder for folder in named if folder.path and "/" not in folder.path]
    root = [folder for folder in named if not folder.path]
    if "model_index.json" in tree and components:
        return components
    if root and "modules.json" in tree:
        return root + [folder for folder in components if _SENTENCE_MODULE.fullmatch(folder.path)]
    return root or list(folders)


def _groups(
    folder: _Folder, weights: Sequence[FileRef], tree: Mapping[str, FileRef], left_out: dict[FileRef, str]
) -> list[WeightGroup]:
    best = _best_variants(folder.layouts)
    named = sorted((layout for layout in best if layout.is_named), key=lambda layout: layout.order)
    models = [layout for layout in named if not layout.is_adapter]
    indexed = [layout for layout in models if layout.index]
    for layout in folder.layouts:
        reason = _INDEXED if indexed else _ODD_NAME
        reason = _VARIANT_OF if layout not in best else _ORIGINAL if layout.is_consolidated else reason
        left_out |= dict.fromkeys(layout.members(), reason)
    adapters = [layout for layout in named if layout.is_adapter]
    main = (indexed or models[:1]) if named else sorted(best, key=lambda layout: layout.order)
    return [
        _group(folder, layout, rank == 0 and bool(named or len(main) == 1), weights, tree)
        for layouts in (main, adapters)
        for rank, layout in enumerate(layouts)
    ]


def _best_variants(layouts: Iterable[_Layout]) -> set[_Layout]:
    best: dict[str, _Layout] = {}
    for layout in sorted(layouts, key=lambda layout: _VARIANTS.index(layout.variant)):
        best.setdefault(layout.stem, layout)
    return set(best.values())


def _group(
    folder: _Folder,
    layout: _Layout,
    is_main: bool,
    weights: Sequence[FileRef],
    tree: Mapping[str, FileRef],
) -> WeightGroup:
    inside = join(folder.path, "")
    files = layout.to_read() or [file for file in weights if file.path.startswith(inside)]
    is_model = layout.is_named and not layout.is_adapter
    return WeightGroup(
        component=(folder.path or None) if is_main else join(folder.path, layout.stem),
        files=tuple(files),
        index=layout.index,
        config=tree.get(join(folder.path, "config.json")),
        adapter_config=None if is_model else tree.get(join(folder.path, "adapter_config.json")),
    )


def _distinct(groups: Sequence[WeightGroup], left_out: dict[FileRef, str]) -> list[WeightGroup]:
    """Read equal bytes once; a group with an index goes as a whole or not, for the index names all shards."""
    first: dict[str, FileRef] = {}
    kept: list[WeightGroup] = []
    for group in groups:
        copies = {file: first[_content(file)] for file in group.files if _content(file) in first}
        if group.index and len(copies) < len(group.files):
            copies = {}
        left_out |= {file: f"the same bytes as {copy.path}" for file, copy in copies.items()}
        files = tuple(file for file in group.files if file not in copies)
        for file in files:
            first.setdefault(_content(file), file)
        if files:
            kept.append(replace(group, files=files))
    return kept


def _content(file: FileRef) -> str:
    return file.sha256 or file.content_id
