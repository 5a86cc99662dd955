"""How a stored column is declared: on a dataclass field, with its type, its unit and what NULL means."""

from dataclasses import field, fields
from typing import Any

NEVER = "never"


def column(arrow: str, unit: str, null: str = NEVER, **default: Any) -> Any:
    """Declare a stored column: Arrow type, unit and range, meaning of NULL; nullable ones default to None."""
    if null != NEVER:
        default.setdefault("default", None)
    return field(metadata={"arrow": arrow, "unit": unit, "null": null}, **default)


def columns(row: type) -> dict[str, dict[str, str]]:
    """Name -> {arrow, unit, null} of every column of a row class, in order."""
    return {f.name: dict(f.metadata) for f in fields(row)}
