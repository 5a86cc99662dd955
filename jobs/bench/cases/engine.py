"""What the scan adds to the kernels, what starting costs, whether the forecast holds."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.cases.models import minilm_folder
from jobs.bench.children import command_seconds, this_command
from jobs.bench.options import Options
from jobs.bench.pairs import cpu_seconds, figure
from jobs.bench.result import Result
from jobs.bench.synthetic import Shape, write_model
from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.verbs.forecast import forecast
from scanner.abreast import abreast
from scanner.layer import measure
from scanner.planning import plan_repository
from scanner.reading import Job
from scanner.sources.local import LocalSource
from scanner.weights.matrices import StoredWeights
from schemas.config import profile_config
from schemas.refs import MatrixRef
from schemas.work import Target

_TINY, _TINY_SIDE = 2000, 16
_MODELS = 4
_ROUNDS = 6
_LAYERS: list[Shape] = [(1024, 4096), (4096, 1024), (2048, 2048)]


def overhead(options: Options) -> Iterator[Result]:
    """Scans of several models into a new lake, against pinning, reading and measuring their matrices alone.

    A model's own share is the difference between a scan of four and a scan of one; what is left of the scan
    of one, its start and the snapshot of the models view, is paid once however many models there are.
    A few hundredths of a model are the difference of long times, which takes more rounds than a ratio.
    """
    with TemporaryDirectory() as folder:
        tiny = write_model(Path(folder) / "tiny", [[(_TINY_SIDE, _TINY_SIDE)] * _TINY])
        costs = [_costs(tiny, Path(folder) / str(i)) for i in range(options.pairs + 1)][1:]
        each = [(c.model - c.work) / _TINY * 1e3 for c in costs]
        yield figure(f"engine, {_TINY} matrices of {_TINY_SIDE} x {_TINY_SIDE}", each, "CPU ms a matrix", 1.0)
    with TemporaryDirectory() as folder:
        rounds = range(_ROUNDS * options.pairs + 1)
        costs = [_costs(minilm_folder(), Path(folder) / str(i)) for i in rounds][1:]
    shares = [100 * (c.model / c.work - 1) for c in costs]
    note = f"{costs[-1].model:.2f} CPU s a model, {costs[-1].work:.2f} of them to pin, read and measure"
    yield figure("engine, all-MiniLM-L6-v2", shares, "% over the kernels", 5.0, note=note)
    yield figure("engine, once a scan", [c.once for c in costs], "CPU s")


@dataclass(frozen=True, slots=True)
class _Costs:
    """CPU seconds: of one model more in a scan, of the work in it, and of a scan whatever it holds."""

    model: float
    work: float
    once: float


def _costs(model: Path, folder: Path) -> _Costs:
    rows = _matrices(model)
    alone = cpu_seconds(lambda: _scan(model, folder / "alone", 1))
    together = cpu_seconds(lambda: _scan(model, folder / "together", _MODELS))
    each = (together - alone) / (_MODELS - 1)
    work = cpu_seconds(lambda: _works(model, rows, _MODELS - 1)) / (_MODELS - 1)
    return _Costs(model=each, work=work, once=alone - each)


def _scan(model: Path, lake: Path, copies: int) -> None:
    """Scan a folder under `copies` names into a lake of its own."""
    shutil.rmtree(lake, ignore_errors=True)
    with quiet_progress() as display:
        run_scan(_request(model, lake, copies), display)


def _matrices(model: Path) -> list[MatrixRef]:
    source = LocalSource(model)
    plan = plan_repository(source, source.repository("bench/model"), profile_config("default"))
    return list(plan.live)


def _works(model: Path, rows: list[MatrixRef], times: int) -> None:
    for _ in range(times):
        _work(model, rows)


def _work(model: Path, rows: list[MatrixRef]) -> None:
    """Pin a folder, read its matrices and measure each: a scan without plan, driver and lake."""
    source, config = LocalSource(model), profile_config("default")
    source.repository("bench/model")
    for file, of_file in groupby(rows, key=lambda row: row.tensor.file):
        refs = list(of_file)
        buffers = source.stream(file, [(row.start, row.stop) for row in refs])
        jobs = (Job(row, [buffer]) for row, buffer in zip(refs, buffers, strict=True))
        for job, solved in abreast(jobs, config):
            measure(job.ref, StoredWeights(job.ref, job.buffers[0]), config, solved)


def startup(options: Options) -> Iterator[Result]:
    """The command line until its help is printed."""
    command = this_command("--help")
    command_seconds(command)
    seconds = [command_seconds(command) for _ in range(options.pairs)]
    yield figure("hubspectra --help", seconds, "CPU s", at_most=0.4)


def estimates(options: Options) -> Iterator[Result]:
    """What --dry-run promises against what the scan takes: the larger over the smaller."""
    with TemporaryDirectory() as folder:
        shapes = _LAYERS[:1] if options.quick else _LAYERS
        layers = write_model(Path(folder) / "layers", [shapes])
        yield _estimate("a few large layers", layers, Path(folder), options.pairs)
        yield _estimate("all-MiniLM-L6-v2", minilm_folder(), Path(folder), options.pairs)


def _estimate(name: str, model: Path, folder: Path, pairs: int) -> Result:
    request, rows = _request(model, folder / "never-written"), _matrices(model)
    _work(model, rows)
    off, note = [], ""
    for _ in range(pairs):
        promised = sum(found.core_seconds for found in forecast(request))
        taken = cpu_seconds(lambda: _work(model, rows))
        off.append(max(promised / taken, taken / promised))
        note = f"promised {promised:.2f} s of one core, took {taken:.2f} CPU s"
    return figure(f"forecast of {name}", off, "x off", at_most=2.0, note=note)


def _request(model: Path, lake: Path, copies: int = 1) -> Request:
    targets = tuple(Target(repo_id=f"bench/{model.name}{i}", root=str(model)) for i in range(copies))
    return Request(targets=targets, lake=lake, config=profile_config("default"), engine="local")
