"""Spectra by torch against spectra by numpy; torch's CPU tensors run the code that a GPU runs."""

from dataclasses import astuple, dataclass

import numpy as np
import pytest
from stored import TORCH, stored

from scanner.spectra.device import Card, Solved, device_bytes
from scanner.spectra.eigen import DenseWeights, solve
from scanner.spectra.moments import MomentsAccumulator
from scanner.weights.matrices import StoredWeights
from schemas.errors import NumericsError
from schemas.results import FailureKind

SHAPES = [(300, 24), (24, 300), (65, 65), (1, 9), (9, 1), (12, 20, 5), (20, 12, 3, 3), (6, 1, 3, 3)]


def draw(shape, seed=0):
    return np.random.default_rng(seed).standard_t(5, shape)


def one(weights, card=None, **options):
    [answer] = (card or Card("cpu:0")).solve([weights], **options)
    return answer


def assert_as_on_the_host(answer, weights):
    entries = MomentsAccumulator()
    expected = solve(weights, observe=entries.add)
    assert isinstance(answer, Solved), answer
    found = answer.spectrum
    assert (found.N, found.M, found.method, found.device) == (expected.N, expected.M, "gram_f64", "cpu")
    np.testing.assert_allclose(found.evals, expected.evals, rtol=0, atol=1e-12 * expected.evals[-1])
    assert (found.slices is None) == (expected.slices is None)
    if found.slices is not None:
        np.testing.assert_allclose(found.slices, expected.slices, rtol=0, atol=1e-12 * expected.evals[-1])
    scale = entries.result().abs_max
    pairs = zip(astuple(answer.moments), astuple(entries.result()), strict=True)
    assert all(a == pytest.approx(b, rel=1e-9, abs=1e-11 * scale, nan_ok=False) for a, b in pairs)


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("shape", SHAPES)
def test_eigenvalues_and_moments_are_those_of_the_host(shape, dtype):
    weights = stored(draw(shape), dtype)
    assert_as_on_the_host(one(weights), weights)


@pytest.mark.parametrize("shape", [(90, 31), (31, 90), (31, 90, 3), (90, 31, 2, 2)])
@pytest.mark.parametrize("rows", [1, 7, 31, 1000])
def test_any_piece_gives_the_same(shape, rows):
    weights = stored(draw(shape))
    piece_bytes = rows * 8 * int(np.prod(shape)) // max(shape[:2])
    assert_as_on_the_host(one(weights, Card("cpu:0", piece_bytes)), weights)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (8, 9, 3)])
def test_weights_that_cannot_move_as_stored_go_in_blocks(shape):
    weights = DenseWeights(draw(shape))
    assert_as_on_the_host(one(weights, Card("cpu:0", 4096)), weights)


def test_one_slice_of_a_convolution_is_a_matrix():
    weights = stored(draw((12, 9, 3, 3)), slice_id=4)
    assert_as_on_the_host(one(weights), weights)


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_stack_is_solved_as_its_members_are(kernel):
    group = [
        stored(draw((rows, columns, *kernel), rows), "F32")
        for rows, columns in ((40, 16), (16, 99), (16, 16))
    ]
    for answer, weights in zip(Card("cpu:0").solve(group), group, strict=True):
        assert_as_on_the_host(answer, weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_member_costs_no_other(bad):
    arrays = [draw((30, 20), seed) for seed in range(3)]
    arrays[1][2, 3] = bad
    group = [stored(array) for array in arrays]
    first, second, third = Card("cpu:0").solve(group)
    assert second.kind is FailureKind.NONFINITE
    assert_as_on_the_host(first, group[0])
    assert_as_on_the_host(third, group[2])


def test_a_group_without_a_finite_member_has_no_eigenvalues():
    answers = Card("cpu:0").solve([stored(np.full((9, 9), np.nan))] * 2)
    assert [answer.kind for answer in answers] == [FailureKind.NONFINITE] * 2


@pytest.mark.parametrize("scale", [1e200, 1e150, 1e-170])
def test_squares_beyond_the_range_are_no_spectrum(scale):
    assert isinstance(one(stored(draw((20, 20)) * scale)), NumericsError)


def test_a_zero_matrix_is_solved():
    answer = one(stored(np.zeros((12, 10))))
    assert not answer.spectrum.evals.any()
    assert (answer.moments.std, answer.moments.zero_frac, answer.moments.kurtosis) == (0.0, 1.0, None)


def test_single_precision_says_so_and_errs_as_it_must():
    weights = stored(draw((200, 50)), "BF16")
    answer, exact = one(weights, single=True), solve(weights).evals
    error = np.abs(answer.spectrum.evals - exact).max() / exact[-1]
    assert answer.spectrum.method == "gram_f32"
    assert 1e-9 < error < 1e-6
    assert answer.moments == one(weights).moments


@dataclass
class Vast:
    """A matrix that no machine can hold."""

    shape: tuple[int, int] = (8_000_000, 8_000_000)

    def block(self, rows, columns):
        raise AssertionError("nothing of it is ever read")


def test_what_does_not_fit_is_an_error_of_its_own_kind():
    with pytest.raises(NumericsError, match=r"8000000\) do not fit on cpu") as caught:
        one(Vast())
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY
    assert (caught.value.__cause__, caught.value.__context__) == (None, None), "torch's error holds tensors"


def test_memory_is_estimated_from_the_shape():
    side = device_bytes((4096, 4096), 2 * 4096**2)
    assert 0.4e9 < side < 1.2e9
    assert device_bytes((4096, 4096, 9), 0) > 9 * 8 * 4096**2
    assert device_bytes((32000, 4096), 0) < 2 * device_bytes((4096, 4096), 0)


class Unreachable(StoredWeights):
    """Weights that a device fails on, in any way but by running out of memory."""

    def on_device(self, upload):
        raise RuntimeError("CUDA error: unspecified launch failure\nmore for developers")


def test_any_error_of_the_device_is_an_answer_that_the_host_can_take_over():
    weights = stored(draw((40, 30)))
    weights.__class__ = Unreachable
    answer = one(weights)
    assert isinstance(answer, NumericsError)
    assert (answer.kind, answer.message) == (
        FailureKind.EIGENSOLVER_ERROR,
        "cpu: CUDA error: unspecified launch failure",
    )
