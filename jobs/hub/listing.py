"""Listing of a Hub: which repositories a query means, in which order, and how a page ends."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from jobs.hub.facts import Facts
from schemas.errors import UsageError

SortKey = tuple[float, str]
_UNITS: Mapping[str, float] = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_COUNT = re.compile(r"(min|max):(\d+(?:\.\d+)?)([KMBT]?)")
_TRUE = frozenset({"true", "True", "1"})
_SHORT = tuple(
    "_id id modelId likes trendingScore private downloads tags pipeline_tag library_name createdAt".split()
)
_FULL = ("author", "sha", "lastModified", "gated", "disabled", "siblings")


class QueryError(UsageError, ValueError):
    """A query parameter that can't be understood."""


class Params(Protocol):
    """Query parameters that may repeat."""

    def get(self, key: str) -> str | None:
        """Return the last value of `key`."""

    def getlist(self, key: str) -> list[str]:
        """Return all values of `key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What `GET /api/models` was asked for; `fields` are the names of the reply's fields."""

    fields: tuple[str, ...]
    tags: frozenset[str]
    author: str | None
    search: str
    pipeline_tag: str | None
    gated: bool | None
    parameters: tuple[float, float] | None
    sort: str
    limit: int | None
    after: SortKey | None

    @classmethod
    def parse(cls, params: Params) -> "ListQuery":
        """Read the parameters of a request. Raises QueryError."""
        gated, limit, cursor = params.get("gated"), params.get("limit"), params.get("cursor")
        if limit is not None and not re.fullmatch(r"[1-9]\d{0,8}", limit):
            raise QueryError(f"limit={limit!r}: expected a positive number")
        return cls(
            fields=_fields(params),
            tags=frozenset(tag for value in params.getlist("filter") for tag in value.split(",") if tag),
            author=params.get("author"),
            search=(params.get("search") or "").lower(),
            pipeline_tag=params.get("pipeline_tag"),
            gated=None if gated is None else gated in _TRUE,
            parameters=_parameter_range(params.get("num_parameters")),
            sort=params.get("sort") or "trendingScore",
            limit=None if limit is None else int(limit),
            after=None if cursor is None else _decode_cursor(cursor),
        )

    def page(self, candidates: Iterable[Facts], size: int) -> tuple[list[Facts], str | None]:
        """Return the page after the cursor and the cursor of the next one, None at the end.

        The cursor is a place in the order, not a count: what moves during a walk shifts no page.
        """
        ordered = sorted(
            ((self._key(facts), facts) for facts in candidates if self._matches(facts)), key=_first
        )
        rest = [pair for pair in ordered if self.after is None or pair[0] > self.after]
        shown = rest[: min(size, self.limit or size)]
        cursor = _encode_cursor(shown[-1][0]) if len(rest) > len(shown) else None
        return [facts for _, facts in shown], cursor

    def _key(self, facts: Facts) -> SortKey:
        return -_number(facts.get(self.sort)), facts.repo.id

    def _matches(self, facts: Facts) -> bool:
        owner = facts.repo.id.partition("/")[0]
        return (
            self.author in (None, owner)
            and self.search in facts.repo.id.lower()
            and self.pipeline_tag in (None, facts.get("pipeline_tag"))
            and self.gated in (None, bool(facts.get("gated")))
            and self.tags.issubset(facts.get("tags") if self.tags else ())
            and self._has_size(facts)
        )

    def _has_size(self, facts: Facts) -> bool:
        if self.parameters is None:
            return True
        counted = facts.get("safetensors")
        return counted is not None and self.parameters[0] <= counted["total"] <= self.parameters[1]


def is_true(value: str | None) -> bool:
    """Whether a query parameter is set."""
    return value in _TRUE


def expanded(params: Params) -> tuple[str, ...]:
    """Return the fields that `expand` names, in both spellings of a repeated parameter."""
    return (*params.getlist("expand"), *params.getlist("expand[]"))


def _fields(params: Params) -> tuple[str, ...]:
    if wanted := expanded(params):
        return ("_id", "id", *wanted)
    full = _FULL if is_true(params.get("full")) else ()
    extra = [name for name in ("config", "cardData") if is_true(params.get(name))]
    return (*_SHORT, *full, *extra)


def _parameter_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    bounds = {"min": 0.0, "max": float("inf")}
    for part in text.split(","):
        match = _COUNT.fullmatch(part)
        if match is None:
            raise QueryError(f"num_parameters={text!r}: expected for example min:1B,max:8B")
        bounds[match[1]] = float(match[2]) * _UNITS[match[3]]
    return bounds["min"], bounds["max"]


def _number(value: object) -> float:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return 0.0
    return 0.0


def _first(pair: Sequence[object]) -> SortKey:
    key = pair[0]
    assert isinstance(key, tuple)
    return key


def _encode_cursor(key: SortKey) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _decode_cursor(cursor: str) -> SortKey:
    try:
        value, name = json.loads(base64.urlsafe_b64decode(cursor))
        return float(value), str(name)
    except (ValueError, TypeError, binascii.Error) as error:
        raise QueryError(f"cursor={cursor!r}: not a cursor of this server") from error
