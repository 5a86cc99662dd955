"""The matrices of a file on a GPU: which go there, in what precision, and which the host keeps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeAlias

from scanner.abreast import abreast, solvable
from scanner.lanes import Limits, Task, solved
from scanner.reading import Job
from scanner.spectra.device import Answer, Card, Solved, card, device_bytes
from scanner.spectra.eigen import Weights
from scanner.spectra.precision import refusal, tries_single
from scanner.weights.plan import ROW_SECONDS, cost
from schemas.config import ScanConfig
from schemas.errors import NumericsError
from schemas.refs import Buffer, MatrixRef
from schemas.results import FailureKind

LANES = 8
"""Problems at once on a device: below side 4096 each is latency, not work (estimate, not measured)."""

STACK_TO_SIDE = 1024
"""Short side up to which equal problems share one batched eigenvalue call."""

STACK = 8
WINDOW_BYTES = 1 << 30
"""Stored bytes that wait on the host for their results."""

HOST_SECONDS = 2e-3
"""Matrices of less work than this stay on the host: moving them costs as much (estimate)."""

_LAUNCH_SECONDS = 1.6e-5
"""Four kernel launches for each column of a tridiagonalisation (estimate)."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The device has no answer, so the host has to find one; `why` is None where that was the plan."""

    why: str | None = None


Ready: TypeAlias = Solved | Elsewhere


@dataclass(frozen=True, slots=True)
class _Problem:
    """A job and what a device solves of it, None where only the host can."""

    job: Job
    weights: Weights | None


def ahead(
    jobs: Iterable[Job], config: ScanConfig, device: str, host_seconds: float = HOST_SECONDS
) -> Iterator[tuple[Job, Ready]]:
    """Yield each matrix with its spectrum from `device`, in order, while the next ones are solved there.

    `device` is a torch device; what does not fit or fails there comes back as Elsewhere, and so does all that
    is to be solved alone for "cpu", or where singular values are asked for. What is small is solved on the
    host meanwhile, in company. Raises SourceError as `jobs` does, after the matrices before it.
    """
    if device == "cpu" or config.spectrum.method == "svd":
        yield from ((job, ready or Elsewhere()) for job, ready in abreast(jobs, config))
        return
    on = card(device)
    limits = Limits(lanes=LANES, stack=STACK, budget=on.free_bytes(), window=WINDOW_BYTES)
    small = partial(_is_small, host_seconds=host_seconds)
    tasks = (_task(job, config, here, small) for job, here in abreast(jobs, config, small))
    for problem, answer in solved(tasks, _solver(on, config), limits):
        yield problem.job, _ready(problem.job.ref, answer)


def device_seconds(ref: MatrixRef, multiprocessors: int) -> float:
    """Estimated seconds of a float64 solve on a card weak in float64: two units a multiprocessor, 1.5 GHz."""
    m, n = sorted(ref.shape[:2])
    flops = ref.slices * (2 * n * m**2 + 4 / 3 * m**3)
    return flops / (multiprocessors * 4 * 1.5e9) + m * _LAUNCH_SECONDS


def _is_small(ref: MatrixRef, host_seconds: float) -> bool:
    return cost(ref, "gram") - ROW_SECONDS < host_seconds


def _task(
    job: Job, config: ScanConfig, here: Solved | None, small: Callable[[MatrixRef], bool]
) -> Task[_Problem, Ready]:
    """What is left to the device of a matrix that the host may have solved."""
    own = sum(map(len, job.buffers))
    held = own + (len(job.partner) if isinstance(job.partner, Buffer) else 0)
    weights = None if here or small(job.ref) else solvable(job, config)
    problem = _Problem(job, weights)
    if weights is None:
        return Task(item=problem, need=0, held=held, known=here or Elsewhere())
    side, slices = min(weights.shape[:2]), prod(weights.shape[2:])
    stack = (slices, side) if side <= STACK_TO_SIDE else None
    return Task(item=problem, need=device_bytes(weights.shape, own), held=held, stack=stack)


def _solver(on: Card, config: ScanConfig) -> Callable[[Sequence[_Problem]], list[Ready | NumericsError]]:
    if not (on.whole_float32 and tries_single(config, on.strong_float64)):
        return lambda problems: [*on.solve(_all_weights(problems))]

    def certified(problems: Sequence[_Problem]) -> list[Ready | NumericsError]:
        answers = on.solve(_all_weights(problems), single=True)
        return [
            answer if _holds(answer, config) else _in_double(problem, on)
            for problem, answer in zip(problems, answers, strict=True)
        ]

    return certified


def _all_weights(problems: Sequence[_Problem]) -> list[Weights]:
    return [problem.weights for problem in problems if problem.weights is not None]


def _holds(answer: Answer, config: ScanConfig) -> bool:
    return isinstance(answer, Solved) and refusal(answer.spectrum, answer.moments, config) is None


def _in_double(problem: _Problem, on: Card) -> Ready | NumericsError:
    """Float64 where it is estimated to be faster."""
    ref = problem.job.ref
    if not on.strong_float64 and cost(ref, "gram") < device_seconds(ref, on.multiprocessors()):
        return Elsewhere()
    return on.solve(_all_weights([problem]))[0]


def _ready(ref: MatrixRef, answer: Ready | NumericsError) -> Ready:
    """NaN in the weights is no surprise: the host finds and counts it."""
    if not isinstance(answer, NumericsError):
        return answer
    if answer.kind is FailureKind.NONFINITE:
        return Elsewhere()
    tensor = ref.tensor
    return Elsewhere(f"{tensor.file.repo.repo_id} {tensor.name}: {answer.message}; left to the CPU")
