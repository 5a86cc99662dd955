"""Matrices solved side by side on the host: the same numbers as alone, in order, whatever happens to one."""

import numpy as np
import pytest

from scanner import abreast as module
from scanner.abreast import abreast
from scanner.planning import plan_repository
from scanner.reading import Job
from scanner.sources.memory import MemorySource
from scanner.spectra.eigen import solve
from scanner.spectra.symmetric import LARGE_SIDE
from scanner.weights.opened import open_weights
from schemas.config import MatrixRules, ScanConfig, SpectrumRules, WorkLimits
from schemas.errors import SourceError
from schemas.results import FailureKind

CONFIG = ScanConfig()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def jobs_of(tensors, config=CONFIG):
    source = MemorySource(tensors)
    plan = plan_repository(source, source.repository("owner/name"), config, WorkLimits())
    return [
        Job(ref, [bytearray(source.read(ref.tensor.file, ref.start, ref.stop))])
        for unit in plan.units
        for ref in unit.matrices
        if ref.skip is None
    ]


def state():
    layers = {f"layers.{i}.up_proj.weight": noise(90, 60, seed=i) for i in range(11)}
    convolutions = {f"conv{i}.weight": noise(32, 16, 3, 3, seed=i) for i in range(3)}
    return layers | convolutions | {"head.weight": noise(40, 200)}


def test_numbers_and_order_are_those_of_one_at_a_time():
    jobs = jobs_of(state())
    found = list(abreast(jobs, CONFIG))
    assert [job for job, _ in found] == jobs
    for job, solved in found:
        assert solved is not None
        alone = solve(open_weights(job.ref, job.buffers), block=CONFIG.spectrum.block)
        np.testing.assert_array_equal(solved.spectrum.evals, alone.evals)
        assert solved.moments.count == np.prod(job.ref.shape)
        assert solved.secs > 0


def test_nan_costs_its_own_matrix_only():
    tensors = state()
    tensors["layers.4.up_proj.weight"][3, 3] = np.nan
    unsolved = [job.ref.tensor.name for job, solved in abreast(jobs_of(tensors), CONFIG) if solved is None]
    assert unsolved == ["layers.4.up_proj.weight"]


def test_squares_that_underflow_are_left_to_the_row():
    tensors = {"tiny.weight": np.full((60, 60), 1e-200), "layers.0.up_proj.weight": noise(60, 60)}
    found = {job.ref.tensor.name: solved for job, solved in abreast(jobs_of(tensors), CONFIG)}
    assert found["tiny.weight"] is None
    assert found["layers.0.up_proj.weight"] is not None


@pytest.mark.parametrize(
    "config",
    [
        ScanConfig(spectrum=SpectrumRules(method="svd")),
        ScanConfig(matrices=MatrixRules(conv_mode="fft")),
    ],
    ids=["svd", "fft"],
)
def test_what_does_not_gain_is_left_alone(config):
    conv = {"conv.weight": noise(60, 60, 3, 3)}
    assert [solved for _, solved in abreast(jobs_of(conv, config), config)] == [None]


def test_large_matrices_do_not_wait():
    """What is read after one is not asked for before it is handed out, with those that came before it."""
    large = {"b.weight": noise(LARGE_SIDE, LARGE_SIDE)}
    jobs = jobs_of({"a.weight": noise(60, 60)} | large | {"c.weight": noise(60, 60)})
    left = iter(jobs)
    found = abreast(left, CONFIG)
    assert [(next(found)[1] is None) for _ in range(2)] == [False, True]
    assert list(left) == jobs[2:]


def test_results_come_before_the_error_that_ends_the_stream():
    jobs = jobs_of(state())

    def breaks_off():
        yield from jobs[:5]
        raise SourceError(FailureKind.STALLED, "gone")

    found = []
    with pytest.raises(SourceError, match="gone"):
        found.extend(abreast(breaks_off(), CONFIG))
    assert [job for job, _ in found] == jobs[:5]
    assert all(solved is not None for _, solved in found)


def test_waiting_is_bounded(monkeypatch):
    """No more matrices are asked for than may wait."""
    monkeypatch.setattr(module, "MOST_WAITING", 4)
    asked = []

    def counted():
        for job in jobs_of(state()):
            asked.append(job)
            yield job

    stream = abreast(counted(), CONFIG)
    next(stream)
    assert len(asked) == 4
    assert len(list(stream)) == 14


def test_waiting_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(module, "WAITING_BYTES", 3 * 90 * 60 * 4)
    asked = []

    def counted():
        for job in jobs_of(state()):
            asked.append(job)
            yield job

    next(abreast(counted(), CONFIG))
    assert len(asked) <= 4
