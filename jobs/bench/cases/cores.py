"""Whole models on both cores of a machine, by the clock, against WeightWatcher's best there."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.bench import peers
from jobs.bench.cases.models import MINILM, minilm_folder, resnet_folders, weights_of
from jobs.bench.children import Child
from jobs.bench.options import Options
from jobs.bench.pairs import ratios
from jobs.bench.result import NotRunError, Result, Target
from jobs.engine.worker import WorkerSettings
from scanner.planning import plan_repository
from scanner.sources.local import LocalSource
from schemas.config import ScanConfig, WorkLimits, profile_config
from schemas.events import Scanned, UnitJob
from schemas.work import Target as Model

if TYPE_CHECKING:
    from jobs.engine.actors import RayActors

_UNIT_SECONDS = 0.05
"""Estimated cost of the units that two workers share, so that both end at about the same time."""


def two_cores(options: Options) -> Iterator[Result]:
    """Models on disk by two warm Ray workers, against WeightWatcher's best of one and two threads."""
    if options.quick:
        raise NotRunError("not part of --quick: it starts Ray and two processes of the peer")
    peers.require_weightwatcher()
    with Child(1) as one, Child(2) as two:
        threads = (one, two)
        yield _against(threads, f"{MINILM}, two cores", [minilm_folder()], "default", 9.0, options.pairs)
        resnets = resnet_folders(options.models)
        name = f"{len(resnets)} CIFAR-10 ResNets, two cores"
        yield _against(threads, name, resnets, "weightwatcher", 20.0, options.pairs)


def _against(
    threads: Sequence[Child], name: str, folders: Sequence[Path], profile: str, target: float, pairs: int
) -> Result:
    """In turn: the workers, then the peer with each number of threads."""
    from jobs.engine.actors import RayActors

    settings = WorkerSettings(config=profile_config(profile), limits=WorkLimits())
    jobs = _unit_jobs(folders, settings.config)
    with closing(RayActors(settings, 2, None)) as actors:
        rounds = [
            (_drained_twice(actors, jobs), [child.call(analyze_seconds, folders) for child in threads])
            for _ in range(pairs + 1)
        ][1:]
    best = [min(each) for each in zip(*(theirs for _, theirs in rounds), strict=True)]
    return ratios(
        [ours for ours, _ in rounds],
        [min(theirs) for _, theirs in rounds],
        name=name,
        peer="analyze(), its best of 1 and 2 threads",
        measured="wall s",
        target=Target(bound=target),
        note=f"analyze() took {best[0]:.2f} s with 1 thread, {best[1]:.2f} s with 2; cases minilm and resnet "
        "compare the numbers",
    )


def _unit_jobs(folders: Sequence[Path], config: ScanConfig) -> list[UnitJob]:
    """Models in small units, the costliest last."""
    jobs: list[UnitJob] = []
    for folder in folders:
        source, target = LocalSource(folder), Model(repo_id=folder.name, root=str(folder))
        repository = source.repository(target.repo_id)
        plan = plan_repository(source, repository, config, WorkLimits(unit_cost=_UNIT_SECONDS))
        jobs += (UnitJob(target, unit) for unit in plan.units)
    return sorted(jobs, key=lambda job: job.unit.cost)


def analyze_seconds(folders: Sequence[Path]) -> float:
    """Wall seconds of one analyze() of each model's folder, the models being in memory."""
    modules = [weights_of(folder) for folder in folders]
    started = time.perf_counter()
    for module in modules:
        peers.details(module)
    return time.perf_counter() - started


def _drained_twice(actors: "RayActors", jobs: list[UnitJob]) -> float:
    """Wall seconds of the second time: the workers and the files have been idle while the peer ran."""
    _drain(actors, jobs)
    return _drain(actors, jobs)


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
