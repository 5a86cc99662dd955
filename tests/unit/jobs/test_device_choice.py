"""Which device a scan gets, and what is said where it can't have it."""

import pytest

from jobs.verbs.scanning import choose_device, limits_of
from schemas.config import ScanConfig, SpectrumRules, WorkLimits
from schemas.errors import UsageError

PLAIN, SINGULAR = ScanConfig(), ScanConfig(spectrum=SpectrumRules(method="svd"))


def test_the_cpu_is_always_to_be_had():
    assert choose_device("cpu", PLAIN) == choose_device("cpu", SINGULAR, "auto") == "cpu"


def test_singular_values_are_no_work_for_a_gpu():
    assert choose_device("auto", SINGULAR) == "cpu"
    with pytest.raises(UsageError, match=r"singular values .* leave out --device"):
        choose_device("cuda", SINGULAR)


def test_the_gpus_of_a_cluster_need_not_be_here():
    assert choose_device("cuda", PLAIN, "ray://head:10001") == "cuda"


def test_a_gpu_that_is_not_here_is_said():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert choose_device("auto", PLAIN) == "cpu"
    with pytest.raises(UsageError, match="torch sees no CUDA device here; take --device cpu or auto"):
        choose_device("cuda", PLAIN)


def test_a_gpu_gets_larger_units_and_the_same_attempts():
    large, small = limits_of("cuda"), limits_of("cpu")
    assert small == WorkLimits()
    assert large.unit_cost > small.unit_cost
    assert large.unit_bytes > small.unit_bytes
    assert (large.attempts, large.backoff) == (small.attempts, small.backoff)
