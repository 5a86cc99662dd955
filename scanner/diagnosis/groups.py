"""A plan -> parameter groups of a torch optimizer. Torch itself is not needed: parameters pass through."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from scanner.diagnosis.plans import PUBLISHED, Plan
from schemas.errors import ConfigError


def parameter_groups(plan: Plan, named_parameters: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups for a torch optimizer, from `model.named_parameters()`.

    One group a tensor of the plan, named after it, with its own `lr` or `weight_decay`; a last group `base`
    of all the rest with the base value. Biases and norms follow their layer: `x.bias` follows `x.weight`; a
    norm follows the layer it is called after (`bn1`, `norm1` -> `conv1`), the one before it in a sequence
    (`features.4` -> `features.3`), or the only one beside it (`output.LayerNorm` -> `output.dense`). Other
    vectors, and parameters the plan does not name, keep the base value. A parameter needs only `ndim`.

    Raises ConfigError for a plan that is no optimizer's business, and when no name is the model's.
    """
    key = PUBLISHED[plan.kind].group_key
    if key is None:
        raise ConfigError(f"a {plan.kind} plan has no parameter groups: take learning-rate or weight-decay")
    named = dict(named_parameters)
    entries = () if plan.reason else plan.entries
    values = {entry.name: entry.value for entry in entries if entry.note is None}
    _same_model(values, named)
    members: dict[str | None, list[Any]] = defaultdict(list)
    leaders = _Leaders(values, named)
    for name, parameter in named.items():
        members[leaders.of(name)].append(parameter)
    rest = members.pop(None, [])
    groups = [{"params": members[n], key: values[n], "name": n} for n in values if n in members]
    return [*groups, {"params": rest, key: plan.base, "name": "base"}] if rest else groups


def _same_model(values: Mapping[str, float], named: Mapping[str, Any]) -> None:
    if values and not values.keys() & named.keys():
        raise ConfigError(
            f"no tensor of the plan is a parameter of this model: the plan has {next(iter(values))}, the "
            f"model {next(iter(named), 'nothing')}; give the names of the checkpoint, for example "
            "((name.removeprefix('module.'), p) for name, p in model.named_parameters())"
        )


class _Leaders:
    """Which tensor of the plan a parameter follows."""

    def __init__(self, planned: Iterable[str], named: Mapping[str, Any]) -> None:
        self._named = named
        self._planned = frozenset(planned) & named.keys()
        matrices = [name for name, parameter in named.items() if parameter.ndim > 1]
        self._layers = frozenset(_split(name)[0] for name in matrices)
        self._beside: dict[str, list[str]] = defaultdict(list)
        for name in matrices:
            self._beside[_split(_split(name)[0])[0]].append(name)

    def of(self, name: str) -> str | None:
        """The planned tensor whose value `name` takes, or None for the base value."""
        if name in self._planned:
            return name
        if self._named[name].ndim > 1:
            return None
        module, last = _split(name)
        if module in self._layers:
            return self._if_planned(f"{module}.{last}".removeprefix(".").replace("bias", "weight"))
        return self._of_norm(module)

    def _of_norm(self, module: str) -> str | None:
        parent, own = _split(module)
        called = [own.replace(mark, "conv") for mark in ("bn", "norm") if mark in own]
        before = [str(int(own) - 1)] if own.isdigit() else []
        for sibling in called + before:
            if leader := self._if_planned(f"{parent}.{sibling}.weight".removeprefix(".")):
                return leader
        beside = self._beside[parent]
        return self._if_planned(beside[0]) if len(beside) == 1 and own else None

    def _if_planned(self, name: str) -> str | None:
        return name if name in self._planned else None


def _split(name: str) -> tuple[str, str]:
    """('a.b', 'c') of 'a.b.c'."""
    head, _, last = name.rpartition(".")
    return head, last
