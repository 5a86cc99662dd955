"""How much is measured, and with what."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`pairs` a comparison, fewer of long ones; `quick` is small sizes and two pairs at most."""

    pairs: int = 5
    quick: bool = False
    models: Path = Path("../shared/models")
    device: str = "cpu"

    @property
    def few(self) -> int:
        """Pairs of a comparison whose single run takes half a minute or more."""
        return min(self.pairs, 2)
