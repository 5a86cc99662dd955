"""Whole models against WeightWatcher's analyze()."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.bench import peers
from jobs.bench.options import Options
from jobs.bench.pairs import compare
from jobs.bench.result import Agreement, NotRunError, Result, farthest
from jobs.verbs.demo import installed_model
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.memory import MemorySource
from schemas.config import ScanConfig, profile_config
from schemas.errors import UsageError
from schemas.rows import LayerMetrics

MINILM = "all-MiniLM-L6-v2"
_NULL_LAYERS = 8
_DEPTHS = ("resnet20", "resnet32", "resnet44", "resnet56")


def minilm(options: Options) -> Iterator[Result]:
    """all-MiniLM-L6-v2 from memory, by process CPU time."""
    weights = _minilm()
    yield _models(MINILM, [weights], "default", 5.0, options.pairs)
    if not options.quick:
        yield _models(MINILM, [weights], "weightwatcher", None, options.pairs)


def nulls(options: Options) -> Iterator[Result]:
    """The first layers of all-MiniLM-L6-v2 with a null model: permuted entries and a Marchenko-Pastur fit."""
    count = 1 if options.quick else _NULL_LAYERS
    weights = dict([item for item in _minilm().items() if item[0].startswith("encoder")][:count])
    config = profile_config("default")
    yield compare(
        f"{MINILM}, {count} layers with null models",
        "analyze(randomize=True, mp_fit=True)",
        _scan(weights, replace(config, stages=replace(config.stages, null_model=True))),
        lambda: peers.details(weights, randomize=True, mp_fit=True),
        judge=lambda _, theirs: _same_details([weights], [theirs]),
        target=None if options.quick else 25.0,
        pairs=options.few,
        note="one permutation a layer on both sides",
    )


def resnets(options: Options) -> Iterator[Result]:
    """CIFAR-10 ResNets with the profile that repeats WeightWatcher's numbers, convolutions included.

    One of each depth, then all of them together; the target, on two cores, is of the case two-cores.
    """
    for name in _DEPTHS[:1] if options.quick else _DEPTHS:
        weights = weights_of(options.models / "akamaster" / f"{name}-cifar10")
        yield _models(f"{name}-cifar10", [weights], "weightwatcher", None, options.pairs)
    if not options.quick:
        states = [weights_of(folder) for folder in resnet_folders(options.models)]
        yield _models(f"{len(states)} CIFAR-10 ResNets", states, "weightwatcher", None, options.pairs)


def resnet_folders(models: Path) -> list[Path]:
    """The CIFAR-10 ResNets as they were published, without those that were damaged for tests.

    Raises NotRunError where there are none.
    """
    found = sorted(path for path in models.glob("*/resnet*-cifar10*") if path.parent.name != "derived")
    if not found:
        raise NotRunError(f"no CIFAR-10 ResNets in {models}; give the folder of models with --models DIR")
    return found


def _models(
    name: str, states: Sequence[peers.StateDict], profile: str, target: float | None, pairs: int
) -> Result:
    scans = [_scan(weights, profile_config(profile)) for weights in states]
    return compare(
        f"{name}, profile {profile}",
        "WeightWatcher.analyze()",
        lambda: [scan() for scan in scans],
        lambda: [peers.details(weights) for weights in states],
        judge=lambda _, theirs: _same_details(states, theirs),
        target=target,
        pairs=pairs,
    )


def _scan(weights: peers.StateDict, config: ScanConfig) -> Callable[[], list[LayerMetrics]]:
    """The scan of a model in memory, after its plan."""
    source = MemorySource(weights)
    plan = plan_repository(source, source.repository(MINILM), config)
    return lambda: [row for unit in plan.units for row in run_unit(source, unit, config).rows]


def _same_details(states: Sequence[peers.StateDict], frames: Sequence[Any]) -> Agreement:
    """Whether profile weightwatcher gives alpha, xmin and D of every row of the peer."""
    ours, expected = [], []
    for weights, theirs in zip(states, frames, strict=True):
        rows = {row.tensor: row for row in _scan(weights, profile_config("weightwatcher"))()}
        frame = theirs[theirs.status == "success"]
        for name, alpha, xmin, distance in zip(frame.name, frame.alpha, frame.xmin, frame.D, strict=True):
            row = rows[peers.tensor_name(name)]
            ours += [row.ww_alpha, row.ww_xmin, row.ww_D]
            expected += [float(alpha), float(xmin), float(distance)]
    what = f"alpha, xmin, D of {len(ours) // 3} rows in profile weightwatcher"
    return Agreement(what=what, worst=farthest(ours, expected), limit=1e-9)


def minilm_folder() -> Path:
    """Where the packaged model lies. Raises NotRunError where it is not installed."""
    try:
        return installed_model()
    except UsageError as error:
        raise NotRunError(str(error)) from error


def _minilm() -> peers.StateDict:
    peers.require_weightwatcher()
    return weights_of(minilm_folder())


def weights_of(folder: Path) -> peers.StateDict:
    """The 2-D and 4-D weights of a model's folder."""
    from safetensors.torch import load_file

    file = folder / "model.safetensors"
    if not file.is_file():
        raise NotRunError(f"no {file}; give the folder of models with --models DIR")
    found = load_file(file)
    return {name: t for name, t in found.items() if name.endswith(".weight") and t.ndim in (2, 4)}
