"""What the scan adds to the kernels, what starting costs, whether the forecast holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.bench.children import command_seconds, this_command
from jobs.bench.options import Options
from jobs.bench.pairs import cpu_seconds, figure
from jobs.bench.result import NotRunError, Result
from jobs.bench.synthetic import Shape, write_model
from jobs.demo import installed_model
from jobs.driver import Request, run_scan
from jobs.forecast import forecast
from jobs.progress import quiet_progress
from scanner.layer import measure
from scanner.pipeline import plan_repository
from scanner.sources.local import LocalSource
from scanner.weights.matrices import StoredWeights
from schemas.config import profile_config
from schemas.errors import UsageError
from schemas.work import Target

_TINY, _TINY_SIDE = 2000, 16
_LAYERS: list[Shape] = [(1024, 4096), (4096, 1024), (2048, 2048)]


@dataclass(frozen=True, slots=True)
class _Costs:
    """CPU seconds of a scan into a new lake, and of its kernels alone."""

    scan: float
    kernels: float


def overhead(options: Options) -> Iterator[Result]:
    """A whole scan (pin, plan, read, judge, commit, views) against its kernels on bytes in memory."""
    with TemporaryDirectory() as folder:
        tiny = write_model(Path(folder) / "tiny", [[(_TINY_SIDE, _TINY_SIDE)] * _TINY])
        each = [(c.scan - c.kernels) / _TINY * 1e3 for c in _rounds(tiny, Path(folder), options.pairs)]
        yield figure(f"engine, {_TINY} matrices of {_TINY_SIDE} x {_TINY_SIDE}", each, "CPU ms a matrix", 1.0)
    with TemporaryDirectory() as folder:
        costs = _rounds(_minilm(), Path(folder), options.pairs)
        shares = [100 * (c.scan / c.kernels - 1) for c in costs]
        note = f"scan {costs[-1].scan:.2f} CPU s, kernels {costs[-1].kernels:.2f}"
        yield figure("engine, all-MiniLM-L6-v2", shares, "% over the kernels", 5.0, note=note)


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
        yield _estimate("all-MiniLM-L6-v2", _minilm(), Path(folder), options.pairs)


def _estimate(name: str, model: Path, folder: Path, pairs: int) -> Result:
    request = _request(model, folder / "never-written")
    off, note = [], ""
    for _ in range(pairs):
        promised = sum(found.core_seconds for found in forecast(request))
        taken = cpu_seconds(_kernels(model))
        off.append(max(promised / taken, taken / promised))
        note = f"promised {promised:.2f} s of one core, took {taken:.2f} CPU s"
    return figure(f"forecast of {name}", off, "x off", at_most=2.0, note=note)


def _rounds(model: Path, folder: Path, pairs: int) -> list[_Costs]:
    kernels, lakes = _kernels(model), (folder / f"lake{i}" for i in count())

    def scan() -> None:
        with quiet_progress() as display:
            run_scan(_request(model, next(lakes)), display)

    kernels()
    scan()
    return [_Costs(cpu_seconds(scan), cpu_seconds(kernels)) for _ in range(pairs)]


def _request(model: Path, lake: Path) -> Request:
    target = Target(repo_id=f"bench/{model.name}", root=str(model))
    return Request(targets=(target,), lake=lake, config=profile_config("default"), engine="local")


def _kernels(model: Path) -> Callable[[], None]:
    """The measurement of every matrix of a model whose bytes are in memory."""
    source, config = LocalSource(model), profile_config("default")
    plan = plan_repository(source, source.repository("bench/model"), config)
    rows = [row for unit in plan.units for row in unit.matrices if not row.skip]
    held = [(row, bytearray(source.read(row.tensor.file, row.start, row.stop))) for row in rows]

    def run() -> None:
        for row, buffer in held:
            measure(row, StoredWeights(row, buffer), config)

    return run


def _minilm() -> Path:
    try:
        return installed_model()
    except UsageError as error:
        raise NotRunError(str(error)) from error
