"""Real layers on torch's CPU device against the numpy path, as stored and in the narrow types."""

import numpy as np
import pytest
import torch
from stored import TORCH

from scanner.api import read_matrices
from scanner.spectra.device import Card, Solved
from scanner.spectra.eigen import solve
from scanner.spectra.precision import refusal
from scanner.spectra.tailfit import fit_tail
from scanner.weights import decode
from scanner.weights.tensors import on_device
from schemas.config import ScanConfig

NARROW = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
PLACES = {"BF16": np.uint16, "F16": np.float16}


class Recast:
    """A matrix in another stored type."""

    def __init__(self, values, dtype):
        scale = 100 if dtype.startswith("F8") else 1  # out of the subnormals of 8-bit floats
        codes = torch.from_numpy(values * scale).to(TORCH[dtype]).view(torch.uint8).numpy()
        self._dtype, self._stored = dtype, codes.view(PLACES.get(dtype, np.uint8))
        self.shape = values.shape

    def block(self, rows, columns):
        return decode.to_float64(self._stored[rows, columns], self._dtype)

    def on_device(self, upload):
        return on_device(self._stored, self._dtype, upload)


@pytest.fixture(scope="module")
def matrices(minilm_file):
    return list(read_matrices(minilm_file))


def assert_equal_fits(answer, expected):
    assert isinstance(answer, Solved)
    top = expected.evals[-1]
    np.testing.assert_allclose(answer.spectrum.evals, expected.evals, rtol=0, atol=1e-12 * top)
    found, fit = fit_tail(answer.spectrum), fit_tail(expected)
    assert found.alpha == pytest.approx(fit.alpha, rel=1e-9)
    assert (found.n_tail, found.near_ties) == (fit.n_tail, fit.near_ties)


def test_all_matrices_have_the_spectra_of_the_numpy_path(matrices):
    assert len(matrices) == 39
    for matrix in matrices:
        [answer] = Card("cpu:0").solve([matrix.weights])
        assert_equal_fits(answer, solve(matrix.weights))


@pytest.mark.parametrize("dtype", NARROW)
def test_so_do_narrow_types(matrices, dtype):
    layers = [Recast(matrix.values, dtype) for matrix in matrices[5:9]]
    for weights in layers:
        [answer] = Card("cpu:0").solve([weights])
        assert_equal_fits(answer, solve(weights))


def test_float32_is_certified_for_most_and_is_then_as_good_as_promised(matrices):
    certified, some = 0, matrices[2::2]
    for matrix in some:
        [answer] = Card("cpu:0").solve([matrix.weights], single=True)
        if refusal(answer.spectrum, answer.moments, ScanConfig()) is None:
            certified += 1
            alpha = fit_tail(solve(matrix.weights)).alpha
            assert fit_tail(answer.spectrum).alpha == pytest.approx(alpha, rel=2e-5)
    assert certified >= 0.7 * len(some)
