"""Model cards, which anyone may write anything into, made into a few bounded facts.

Texts lose control characters and lone surrogates and are cut at 512 characters; a card keeps only small
values of plain types. Nothing here raises on any input.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

import yaml

from schemas.refs import RepoFacts

MAX_TEXT = 512
MAX_FRONT_MATTER = 64 << 10
MAX_EVALUATIONS = 256 << 10
MAX_SCORES = 2048
_MAX_KEYS = 128
_MAX_NODES = 256
_MAX_DEPTH = 6
_MAX_TAGS = 256
_MAX_COUNT = (1 << 63) - 1
_MAX_DIGITS = 32

_TOKEN_KEYS = ("training_tokens", "num_training_tokens", "train_tokens", "tokens")
_AMOUNT = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*([KMBTkmbt]?)\s*")
_SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_EVALUATIONS = re.compile(r"^model-index:.*\n(?:(?:[ \t-].*)?\n)*", re.MULTILINE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class _TooMuch(Exception):
    """A card value beyond the bounds."""


class _NoAliases(yaml.SafeLoader):
    """YAML without `*alias`, by which a few lines unfold into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node. Raises YAMLError if it is an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def facts_from_readme(readme: bytes) -> RepoFacts:
    """The facts that the front matter of a README.md states: a YAML mapping between leading `---` lines.

    Evaluation results (`model-index`) are read apart from the rest, for they are most of a large card. What
    is above its bound (64 KiB, results 256 KiB), or uses aliases, or is no YAML, counts as not there.
    """
    card, evaluations = _parts(readme)
    results = _mapping(_yaml(evaluations, MAX_EVALUATIONS)).get("model-index")
    return facts_from_card(_mapping(_yaml(card, MAX_FRONT_MATTER)), {"model_index": results})


def facts_from_card(card: object, info: Mapping[str, object] | None = None) -> RepoFacts:
    """The facts of a card's mapping, with the hub's own statements over it.

    `info` may hold library_name, pipeline_tag, downloads, likes, last_modified, tags and model_index, as the
    hub's client names them; the tags also stand in for a missing licence or base model.
    """
    stated: Mapping[Any, Any] = card if isinstance(card, Mapping) else {}
    info = info or {}
    tags = tuple(_texts(info.get("tags") or stated.get("tags")))[:_MAX_TAGS]
    return RepoFacts(
        library_name=_text(info.get("library_name")) or _text(stated.get("library_name")),
        pipeline_tag=_text(info.get("pipeline_tag")) or _text(stated.get("pipeline_tag")),
        license=", ".join(_texts(stated.get("license")))[:MAX_TEXT] or _tagged(tags, "license"),
        base_model=next(_texts(stated.get("base_model")), None) or _tagged(tags, "base_model"),
        downloads=_count(info.get("downloads")),
        likes=_count(info.get("likes")),
        last_modified=_moment(info.get("last_modified")),
        tags=tags,
        tokens=_tokens(stated),
        scores=_scores(info.get("model_index") or stated.get("model-index")),
        card=bounded_card(stated),
    )


def bounded_card(card: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a card that are small and plain: at most 128 keys of 256 values, 6 levels deep."""
    kept: dict[str, Any] = {}
    for key, value in card.items():
        if len(kept) == _MAX_KEYS:
            break
        try:
            if isinstance(key, str) and value is not None:
                kept[_clean(key)] = _plain(value, [_MAX_NODES], _MAX_DEPTH)
        except _TooMuch:
            continue
    return kept


def _parts(readme: bytes) -> tuple[str, str]:
    """The YAML between the leading `---` lines: without its evaluation results, and these alone."""
    text = readme[: 64 * MAX_FRONT_MATTER].decode("utf-8", errors="replace")
    match = _FRONT_MATTER.match(text)
    block = match.group(1) if match else ""
    return _EVALUATIONS.sub("", block), "".join(_EVALUATIONS.findall(block))


def _yaml(text: str, limit: int) -> object:
    """What the text means; None if it is above `limit` characters, uses aliases, or is no YAML."""
    if len(text) > limit:
        return None
    try:
        return yaml.load(text, _NoAliases)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
        return None


def _scores(model_index: object) -> tuple[tuple[str, float], ...]:
    """The evaluation results of a `model-index`; a name with two values is no score of this model."""
    values: dict[str, set[float]] = {}
    for name, value in islice(_stated_scores(model_index), MAX_SCORES):
        values.setdefault(name, set()).add(value)
    return tuple((name, value) for name, (value, *more) in values.items() if not more)


def _stated_scores(model_index: object) -> Iterator[tuple[str, float]]:
    for result in (result for entry in _mappings(model_index) for result in _mappings(entry.get("results"))):
        task, dataset = _mapping(result.get("task")), _mapping(result.get("dataset"))
        for metric in _mappings(result.get("metrics")):
            value, of = _number(metric.get("value")), _label(metric)
            if value is not None and of is not None:
                yield "/".join((_label(task) or "?", _dataset(dataset), of))[:MAX_TEXT], value


def _dataset(stated: Mapping[Any, Any]) -> str:
    """Which data: the dataset's id, and its configuration where it has several."""
    part = _text(stated.get("config"))
    return (_label(stated) or "?") + (f":{part}" if part and part != "default" else "")


def _label(stated: Mapping[Any, Any]) -> str | None:
    """The id of a task, dataset or metric, which models share more often than its name."""
    return _text(stated.get("type")) or _text(stated.get("name"))


def _number(value: object) -> float | None:
    plain = _scalar(value)
    if isinstance(plain, bool) or plain is None or (isinstance(plain, str) and len(plain) > _MAX_DIGITS):
        return None
    try:
        number = float(plain)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> Iterator[dict[Any, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _plain(value: object, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth < 0:
        raise _TooMuch
    if isinstance(value, Mapping):
        named = ((key, item) for key, item in value.items() if isinstance(key, str))
        return {_clean(key): _plain(item, budget, depth - 1) for key, item in named}
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth - 1) for item in value]
    return _scalar(value)


def _scalar(value: object) -> str | int | float | bool | None:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _MAX_COUNT):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text[:MAX_TEXT])


def _text(value: object) -> str | None:
    return (_clean(value).strip() or None) if isinstance(value, str) else None


def _texts(value: object) -> Iterator[str]:
    items: Iterable[object] = value if isinstance(value, list | tuple) else (value,)
    return (text for text in map(_text, items) if text)


def _tagged(tags: Iterable[str], name: str) -> str | None:
    """The value of the first tag `name:value`."""
    return next((tag.partition(":")[2] for tag in tags if tag.startswith(f"{name}:")), None) or None


def _tokens(card: Mapping[Any, Any]) -> int | None:
    """Tokens the model was trained on, where the card gives a number under one of the usual keys."""
    stated = (card.get(key) for key in _TOKEN_KEYS)
    return next((count for count in map(_amount, stated) if count is not None), None)


def _amount(value: object) -> int | None:
    """A count written as a number, or as 300B or 1.4T."""
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match:
        return int(float(match[1]) * _SUFFIXES[match[2].upper()])
    return _count(value)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def _moment(value: object) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
