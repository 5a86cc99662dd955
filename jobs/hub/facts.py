"""What a Hub says about a repository: its card, configuration, tags and counts, one function a field.

Everything comes from the files (README.md front matter, config.json, safetensors headers, times) and is
then overruled by the repository's `.hub.json`, whose keys are the names of the fields.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from jobs.hub.tree import Blob, Commit, HubTree, Repo, iso, last_change

_MAX_TEXT = 4 << 20
_MAX_HEADER = 100 << 20
_CONFIG_KEYS = ("architectures", "model_type", "quantization_config", "auto_map")
_LIBRARY_MARKS = (
    ("adapter_config.json", "peft"),
    ("model_index.json", "diffusers"),
    ("config_sentence_transformers.json", "sentence-transformers"),
    ("config.json", "transformers"),
)


class Facts:
    """The fields of one repository, each computed when it is asked for.

    `commit` pins sha and files; the card is always the current one. Without it they are those of the head.
    """

    def __init__(self, tree: HubTree, repo: Repo, commit: Commit | None = None) -> None:
        self.tree = tree
        self.repo = repo
        self._commit = commit

    @cached_property
    def commit(self) -> Commit:
        """The pinned commit; hashes every file that was not hashed before."""
        return self._commit or self.tree.head(self.repo)

    @cached_property
    def listing(self) -> Mapping[str, os.stat_result]:
        """Files now in the folder."""
        return self.tree.listing(self.repo)

    @cached_property
    def card(self) -> dict[str, Any]:
        """Front matter of README.md; empty where there is none or it is no mapping."""
        return front_matter(self._text("README.md"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The part of config.json that the Hub shows."""
        full = json_object(self._text("config.json"))
        return {key: full[key] for key in _CONFIG_KEYS if key in full}

    def get(self, name: str) -> Any:
        """Return one field by the Hub's name for it; None where it is unknown or not stated."""
        if name in self.repo.settings and name != "tags":
            return plain(self.repo.settings[name])
        compute = FIELDS.get(name)
        return plain(compute(self)) if compute else None

    def pick(self, names: Iterable[str]) -> dict[str, Any]:
        """Return several fields as the reply of an API call, without those that are None."""
        found = ((name, self.get(name)) for name in names)
        return {name: value for name, value in found if value is not None}

    def siblings(self, *, blobs: bool) -> list[dict[str, Any]]:
        """Return the file list, with sizes and hashes if `blobs`."""
        if blobs:
            return [{"rfilename": path, **blob_facts(blob)} for path, blob in self.commit.files.items()]
        paths = self.commit.files if self._commit else self.listing
        return [{"rfilename": path} for path in paths]

    def base_models(self) -> list[str]:
        """Return the repositories that the card names as origin."""
        return _strings(self.card.get("base_model"))

    def relation(self) -> str:
        """Return how the weights came from the base model, in the Hub's word."""
        adapter = "adapter" if "adapter_config.json" in self.listing else "finetune"
        return str(self.card.get("base_model_relation") or adapter)

    def _text(self, path: str) -> str:
        file = self.repo.folder / path
        if path not in self.listing or self.listing[path].st_size > _MAX_TEXT:
            return ""
        return file.read_text("utf-8", errors="replace")


def _tags(facts: Facts) -> list[str]:
    card = facts.card
    found = [
        *_strings(facts.get("library_name")),
        *(["safetensors"] if any(path.endswith(".safetensors") for path in facts.listing) else []),
        *_strings(facts.config.get("model_type")),
        *_strings(card.get("tags")),
        *_strings(facts.get("pipeline_tag")),
        *_strings(card.get("language")),
        *(f"dataset:{name}" for name in _strings(card.get("datasets"))),
        *(f"base_model:{name}" for name in facts.base_models()),
        *(f"base_model:{facts.relation()}:{name}" for name in facts.base_models()),
        *(f"license:{name}" for name in _strings(card.get("license"))),
        *_strings(facts.repo.settings.get("tags")),
    ]
    return list(dict.fromkeys(found))


def _library(facts: Facts) -> str | None:
    stated = facts.card.get("library_name")
    return (
        str(stated)
        if stated
        else next((name for mark, name in _LIBRARY_MARKS if mark in facts.listing), None)
    )


def _parameters(facts: Facts) -> dict[str, Any] | None:
    counts: dict[str, int] = {}
    for path, stat in facts.listing.items():
        if path.endswith(".safetensors"):
            for dtype, count in _counts(facts.repo.folder / path, stat.st_size, stat.st_mtime_ns):
                counts[dtype] = counts.get(dtype, 0) + count
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _base_model_facts(facts: Facts) -> dict[str, Any] | None:
    models = [{"_id": object_id(name), "id": name} for name in facts.base_models()]
    return {"relation": facts.relation(), "models": models} if models else None


def _created(facts: Facts) -> str:
    empty = facts.repo.folder.stat().st_mtime
    return iso(min((stat.st_mtime for stat in facts.listing.values()), default=empty))


FIELDS: dict[str, Callable[[Facts], Any]] = {
    "_id": lambda facts: object_id(facts.repo.id),
    "id": lambda facts: facts.repo.id,
    "modelId": lambda facts: facts.repo.id if facts.repo.kind == "models" else None,
    "author": lambda facts: facts.repo.id.partition("/")[0],
    "sha": lambda facts: facts.commit.id,
    "lastModified": lambda facts: last_change(facts.repo, facts.listing),
    "createdAt": _created,
    "private": lambda _: False,
    "gated": lambda _: False,
    "disabled": lambda _: False,
    "downloads": lambda _: 0,
    "downloadsAllTime": lambda facts: facts.get("downloads"),
    "likes": lambda _: 0,
    "trendingScore": lambda _: 0,
    "tags": _tags,
    "pipeline_tag": lambda facts: facts.card.get("pipeline_tag"),
    "library_name": _library,
    "usedStorage": lambda facts: sum(stat.st_size for stat in facts.listing.values()),
    "cardData": lambda facts: facts.card or None,
    "model-index": lambda facts: facts.card.get("model-index"),
    "config": lambda facts: facts.config or None,
    "safetensors": _parameters,
    "baseModels": _base_model_facts,
    "siblings": lambda facts: facts.siblings(blobs=False),
}


class _NoAliases(yaml.SafeLoader):
    """YAML without `*alias`, with which a small card unfolds into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node. Raises yaml.YAMLError if it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted in a model card")
        return super().compose_node(parent, index)


def blob_facts(blob: Blob) -> dict[str, Any]:
    """Return size and hashes of a file as `model_info(files_metadata=True)` shows them."""
    facts: dict[str, Any] = {"size": blob.size, "blobId": blob.oid}
    if blob.lfs:
        facts["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return facts


def object_id(name: str) -> str:
    """Return a database id as the Hub has one: 24 hex digits, here a hash of the name."""
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML mapping between the first two `---` lines; empty if there is none."""
    head, _, rest = text.partition("\n")
    block, found, _ = rest.partition("\n---")
    if head.strip() != "---" or not found:
        return {}
    try:
        card = yaml.load(block, _NoAliases)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def safetensors_header(file: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file as it stands; empty if there is none to be read."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return json_object(stream.read(length)) if length <= _MAX_HEADER else {}


def plain(value: Any) -> Any:
    """Return `value` with only what JSON has: text keys, no NaN, dates as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


@lru_cache(maxsize=4096)
def _counts(file: Path, size: int, mtime_ns: int) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for name, entry in safetensors_header(file).items():
        if name != "__metadata__" and isinstance(entry, dict) and _is_shape(entry.get("shape")):
            dtype = str(entry.get("dtype"))
            counts[dtype] = counts.get(dtype, 0) + math.prod(entry["shape"])
    return tuple(sorted(counts.items()))


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that `text` is; empty if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [str(item) for item in items if isinstance(item, str | int | float) and item != ""]
