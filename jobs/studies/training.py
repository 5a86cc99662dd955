"""How training shows in the spectrum of one layer: the batch size swept, labels permuted, steps too large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jobs.studies.figures import BLUE, GREEN, GREY, RED
from jobs.studies.matrices import WITH_NULL, measured
from jobs.studies.nets import MIDDLE, State, Training, accuracy, sized, trained, untrained
from jobs.studies.study import Check, Figure, Outcome, Study, Table, number, same
from schemas.results import Phase
from schemas.rows import LayerMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_BATCHES = (512, 128, 32, 8, 4, 2)
_SEEDS = (0, 1, 2)
_START, _TOO_FAST, _PERMUTED = "untrained", "batch 2, lr .02", "batch 8, permuted labels"
_MORE = {_TOO_FAST: Training(batch=2, lr=0.02, epochs=10), _PERMUTED: Training(batch=8, shuffled=True)}
# one seed: alpha, mp_softrank
_EXPECTED = {
    _START: "14.7, 1.00",
    "batch 512": "12.9, 1.00",
    "batch 128": "3.84, .39",
    "batch 32": "2.91, .25",
    "batch 8": "2.47, .17",
    "batch 4": "2.40, .14",
    "batch 2": "2.22, .085",
    _TOO_FAST: "1.88, .02",
    _PERMUTED: "3.78",
}


@dataclass(frozen=True, slots=True)
class _Net:
    """The middle layer of a trained net, and what the net is worth."""

    row: LayerMetrics
    accuracy: float


def sweep(quick: bool) -> Outcome:
    """Train the same net with six batch sizes, and twice badly, from three seeds."""
    del quick
    found = {seed: _trained(seed) for seed in _SEEDS}
    checks = [check for seed, nets in found.items() for check in _judged(seed, nets)]
    first = found[_SEEDS[0]]
    path = ", ".join(f"{first[f'batch {batch}'].row.alpha:.2f}" for batch in _BATCHES)
    return Outcome(
        got=f"alpha {path} from batch 512 to 2, falling for each of {len(_SEEDS)} seeds",
        checks=tuple(checks),
        figures=(
            Figure(
                name="batch-size",
                caption="The middle layer (384 x 256) after training with smaller and smaller batches; a "
                "line a seed. Right: the test accuracy, which follows at first only.",
                draw=partial(_draw, found),
            ),
        ),
        tables=(_table(first),),
    )


TRAINING = Study(
    id="V11",
    name="batch-size",
    question="A small net (64-256-384-10 on scikit-learn's digits) is trained with smaller and smaller "
    "batches. Does the tail of its middle layer get heavier, as the theory of implicit regularisation says?",
    expected="alpha and mp_softrank fall from batch 512 to 2; with lr .02 beyond: HEAVY-TAILED with a trap",
    meaning="Smaller batches (and larger steps) train longer on the same data and push alpha down from "
    "that of noise; alpha thus measures how far training went, not how good the model is. Below 2 the "
    "accuracy drops, and labels without sense give a tail too: hold alpha against a sibling model, not "
    "against a constant.",
    run=sweep,
    quick=False,
)


def _trained(seed: int) -> dict[str, _Net]:
    start = untrained(seed)
    ways = {f"batch {batch}": sized(batch) for batch in _BATCHES} | _MORE
    return {_START: _judge(start)} | {name: _judge(trained(start, how, seed)) for name, how in ways.items()}


def _judge(state: State) -> _Net:
    return _Net(measured(state[MIDDLE].numpy(), WITH_NULL), accuracy(state))


def _judged(seed: int, nets: Mapping[str, _Net]) -> list[Check]:
    swept = [nets[f"batch {batch}"].row for batch in _BATCHES]
    fast, permuted = nets[_TOO_FAST], nets[_PERMUTED]
    alphas = [row.alpha or np.inf for row in swept]
    return [
        same(f"seed {seed}: alpha falls at every step", _falls(alphas), True),
        same(
            f"seed {seed}: mp_softrank never rises",
            _falls([row.mp_softrank or 0.0 for row in swept], True),
            True,
        ),
        same(f"seed {seed}: untrained", nets[_START].row.phase, Phase.RANDOM_LIKE),
        same(f"seed {seed}: {_TOO_FAST}", fast.row.phase, Phase.HEAVY_TAILED),
        same(f"seed {seed}: {_TOO_FAST}, traps", fast.row.num_traps, 1),
        same(f"seed {seed}: {_TOO_FAST}, alpha below 2", (fast.row.alpha or 9) < 2, True),
        same(f"seed {seed}: {_TOO_FAST}, worse than batch 2", fast.accuracy < nets["batch 2"].accuracy, True),
        same(f"seed {seed}: permuted labels, lighter tail", (permuted.row.alpha or 0) > alphas[3], True),
    ]


def _falls(values: Sequence[float], or_stays: bool = False) -> bool:
    return all(b < a or (or_stays and b == a) for a, b in pairwise(values))


def _table(nets: Mapping[str, _Net]) -> Table:
    head = (
        "net",
        "alpha",
        "mp_softrank",
        "phase",
        "traps",
        "accuracy",
        "expected alpha, mp_softrank (one seed)",
    )
    rows = tuple(
        (
            name,
            number(net.row.alpha),
            number(net.row.mp_softrank),
            str(net.row.phase),
            str(net.row.num_traps),
            f"{net.accuracy:.3f}",
            _EXPECTED[name],
        )
        for name, net in nets.items()
    )
    return Table(caption="Seed 0:", head=head, rows=rows)


def _draw(found: Mapping[int, Mapping[str, _Net]], canvas: Canvas) -> None:
    left, middle, right = canvas.subplots(1, 3)
    for nets in found.values():
        swept = [nets[f"batch {batch}"] for batch in _BATCHES]
        left.plot(_BATCHES, [net.row.alpha for net in swept], "o-", color=BLUE, linewidth=1)
        left.plot([2], [nets[_TOO_FAST].row.alpha], "v", color=RED)
        left.plot([8], [nets[_PERMUTED].row.alpha], "x", color=GREY, markersize=6)
        middle.plot(_BATCHES, [net.row.mp_softrank for net in swept], "o-", color=GREEN, linewidth=1)
        right.plot(_BATCHES, [net.accuracy for net in swept], "o-", color=BLUE, linewidth=1)
        right.plot([2], [nets[_TOO_FAST].accuracy], "v", color=RED)
    for axes, label in ((left, "alpha"), (middle, "mp_softrank"), (right, "test accuracy")):
        axes.set(xscale="log", xticks=_BATCHES, xlabel="batch size", ylabel=label)
        axes.set_xticks((), minor=True)
        axes.set_xticklabels([str(batch) for batch in _BATCHES], fontsize=7)
        axes.invert_xaxis()
    left.set_yscale("log")
    left.set_yticks((2, 3, 5, 10), ("2", "3", "5", "10"))
    left.set_yticks((), minor=True)
    left.plot([], [], "v", color=RED, label="lr .02")
    left.plot([], [], "x", color=GREY, label="permuted labels")
    left.legend()
