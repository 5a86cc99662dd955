"""Whole models against WeightWatcher's analyze()."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.bench import peers
from jobs.bench.children import Child
from jobs.bench.options import Options
from jobs.bench.pairs import compare, ratios
from jobs.bench.result import Agreement, NotRunError, Result, Target, farthest
from jobs.engine.worker import WorkerSettings
from jobs.verbs.demo import installed_model
from scanner.pipeline import run_unit
from scanner.planning import plan_repository
from scanner.sources.local import LocalSource
from scanner.sources.memory import MemorySource
from schemas.config import ScanConfig, WorkLimits, profile_config
from schemas.errors import UsageError
from schemas.events import Scanned, UnitJob
from schemas.rows import LayerMetrics
from schemas.work import Target as Model

if TYPE_CHECKING:
    from jobs.engine.actors import RayActors

_NAME = "all-MiniLM-L6-v2"
_NULL_LAYERS = 8
_UNIT_SECONDS = 0.05
"""Estimated cost of the units that two workers share, so that both end at about the same time."""

_RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56")


def minilm(options: Options) -> Iterator[Result]:
    """all-MiniLM-L6-v2 from memory, by process CPU time."""
    weights = _minilm()
    yield _model(_NAME, weights, "default", 5.0, options.pairs)
    if not options.quick:
        yield _model(_NAME, weights, "weightwatcher", None, options.pairs)


def nulls(options: Options) -> Iterator[Result]:
    """The first layers of all-MiniLM-L6-v2 with a null model: permuted entries and a Marchenko-Pastur fit."""
    count = 1 if options.quick else _NULL_LAYERS
    weights = dict([item for item in _minilm().items() if item[0].startswith("encoder")][:count])
    config = profile_config("default")
    yield compare(
        f"{_NAME}, {count} layers with null models",
        "analyze(randomize=True, mp_fit=True)",
        _scan(weights, replace(config, stages=replace(config.stages, null_model=True))),
        lambda: peers.details(weights, randomize=True, mp_fit=True),
        judge=lambda _, theirs: _same_details(weights, theirs),
        target=None if options.quick else 25.0,
        pairs=options.few,
        note="one permutation a layer on both sides",
    )


def resnets(options: Options) -> Iterator[Result]:
    """CIFAR-10 ResNets with the profile that repeats WeightWatcher's numbers, convolutions included."""
    for name in _RESNETS[:1] if options.quick else _RESNETS:
        weights = _weights(options.models / "akamaster" / f"{name}-cifar10")
        yield _model(f"{name}-cifar10", weights, "weightwatcher", 20.0, options.pairs)


def two_cores(options: Options) -> Iterator[Result]:
    """all-MiniLM-L6-v2 by two warm Ray workers, against WeightWatcher's best of one and two threads."""
    if options.quick:
        raise NotRunError("not part of --quick: it starts Ray and two processes of the peer")
    from jobs.engine.actors import RayActors

    peers.require_weightwatcher()
    folder, settings = minilm_folder(), WorkerSettings(config=profile_config("default"), limits=WorkLimits())
    jobs = _unit_jobs(folder, settings.config)
    with closing(RayActors(settings, 2, None)) as actors, Child(1) as one, Child(2) as two:
        rounds = [
            (_drain(actors, jobs), one.call(analyze_seconds, folder), two.call(analyze_seconds, folder))
            for _ in range(options.pairs + 1)
        ][1:]
    best = [min(each) for each in list(zip(*rounds, strict=True))[1:]]
    yield ratios(
        [ours for ours, _, _ in rounds],
        [min(theirs) for _, *theirs in rounds],
        name=f"{_NAME}, two cores",
        peer="analyze(), its best of 1 and 2 threads",
        measured="wall s",
        target=Target(bound=9.0),
        note=f"analyze() took {best[0]:.2f} s with 1 thread, {best[1]:.2f} s with 2; case minilm compares "
        "the numbers",
    )


def _unit_jobs(folder: Path, config: ScanConfig) -> list[UnitJob]:
    """A model in small units, the costliest last."""
    source = LocalSource(folder)
    plan = plan_repository(source, source.repository(_NAME), config, WorkLimits(unit_cost=_UNIT_SECONDS))
    units = sorted(plan.units, key=lambda unit: unit.cost)
    return [UnitJob(Model(repo_id=_NAME, root=str(folder)), unit) for unit in units]


def analyze_seconds(folder: Path) -> float:
    """Wall seconds of one analyze() of a model's folder, the model being in memory."""
    module = _weights(folder)
    started = time.perf_counter()
    peers.details(module)
    return time.perf_counter() - started


def _drain(actors: "RayActors", jobs: list[UnitJob]) -> float:
    """Wall seconds in which the workers do all jobs, the last ones first. Raises NotRunError if one fails."""
    waiting, done, started = list(jobs), 0, time.perf_counter()
    while done < len(jobs):
        while waiting and actors.free:
            actors.submit(waiting.pop())
        for event in actors.wait(1.0):
            if not isinstance(event, Scanned):
                raise NotRunError(f"a unit failed: {event}")
            done += 1
    return time.perf_counter() - started


def _model(name: str, weights: peers.StateDict, profile: str, target: float | None, pairs: int) -> Result:
    return compare(
        f"{name}, profile {profile}",
        "WeightWatcher.analyze()",
        _scan(weights, profile_config(profile)),
        lambda: peers.details(weights),
        judge=lambda _, theirs: _same_details(weights, theirs),
        target=target,
        pairs=pairs,
    )


def _scan(weights: peers.StateDict, config: ScanConfig) -> Callable[[], list[LayerMetrics]]:
    """The scan of a model in memory, after its plan."""
    source = MemorySource(weights)
    plan = plan_repository(source, source.repository(_NAME), config)
    return lambda: [row for unit in plan.units for row in run_unit(source, unit, config).rows]


def _same_details(weights: peers.StateDict, theirs: Any) -> Agreement:
    """Whether profile weightwatcher gives alpha, xmin and D of every row of the peer."""
    rows = {row.tensor: row for row in _scan(weights, profile_config("weightwatcher"))()}
    frame = theirs[theirs.status == "success"]
    ours, expected = [], []
    for name, alpha, xmin, distance in zip(frame.name, frame.alpha, frame.xmin, frame.D, strict=True):
        row = rows[peers.tensor_name(name)]
        ours += [row.ww_alpha, row.ww_xmin, row.ww_D]
        expected += [float(alpha), float(xmin), float(distance)]
    what = f"alpha, xmin, D of {len(frame)} rows in profile weightwatcher"
    return Agreement(what=what, worst=farthest(ours, expected), limit=1e-9)


def minilm_folder() -> Path:
    """Where the packaged model lies. Raises NotRunError where it is not installed."""
    try:
        return installed_model()
    except UsageError as error:
        raise NotRunError(str(error)) from error


def _minilm() -> peers.StateDict:
    peers.require_weightwatcher()
    return _weights(minilm_folder())


def _weights(folder: Path) -> peers.StateDict:
    """The 2-D and 4-D weights of a model's folder."""
    from safetensors.torch import load_file

    file = folder / "model.safetensors"
    if not file.is_file():
        raise NotRunError(f"no {file}; give the folder of models with --models DIR")
    found = load_file(file)
    return {name: t for name, t in found.items() if name.endswith(".weight") and t.ndim in (2, 4)}
