"""The transformed convolution against the matrix of the linear map itself."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scanner.api import scan
from scanner.spectra import fourier
from scanner.spectra.eigen import DenseWeights
from schemas.config import MatrixRules, ScanConfig, profile_config
from schemas.errors import NumericsError

Floats = NDArray[np.float64]


def linear_map(kernel: Floats, grid: int) -> Floats:
    """The matrix of a periodic 2-D convolution (o, i, a, b), entry by entry."""
    o, i, a, b = kernel.shape
    found = np.zeros((o, grid, grid, i, grid, grid))
    for y in range(grid):
        for x in range(grid):
            for p in range(a):
                for q in range(b):
                    found[:, y, x, :, (y + p) % grid, (x + q) % grid] += kernel[:, :, p, q]
    return found.reshape(o * grid * grid, i * grid * grid)


def solved(weights: Floats, method: str = "gram"):
    return fourier.fourier_spectrum(DenseWeights(weights), method=method, observe=lambda _: None)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (2, 5, 2, 3), (3, 3, 1, 1), (3, 2, 5, 1)])
@pytest.mark.parametrize("grid", [5, 6])
def test_is_the_spectrum_of_the_linear_map(
    shape: tuple[int, ...], grid: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fourier, "GRID", grid)
    kernel = np.random.default_rng(0).standard_normal(shape)
    spectrum = solved(kernel, method)
    direct = np.linalg.svd(linear_map(kernel, grid), compute_uv=False)[: spectrum.evals.size]
    np.testing.assert_allclose(spectrum.evals, np.sort(direct) ** 2, rtol=1e-9, atol=1e-12)
    assert (spectrum.slices.shape, spectrum.N, spectrum.M) == (
        (grid * grid, min(shape[:2])),
        max(shape[:2]),
        min(shape[:2]),
    )


def test_the_sum_is_that_of_the_grid() -> None:
    kernel = np.random.default_rng(1).standard_normal((6, 5, 3, 3))
    assert solved(kernel).evals.sum() == pytest.approx(32**2 * (kernel**2).sum(), rel=1e-12)
    line = kernel[:, :, 0]
    assert solved(line).evals.sum() == pytest.approx(32 * (line**2).sum(), rel=1e-12)
    assert solved(line).evals.size == 32 * 5


def test_a_pointwise_convolution_is_its_matrix_at_every_frequency() -> None:
    W = np.random.default_rng(2).standard_normal((8, 6))
    expected = np.repeat(np.sort(np.linalg.svd(W, compute_uv=False) ** 2), 1024)
    np.testing.assert_allclose(solved(W[:, :, None, None]).evals, expected, rtol=1e-10)


def test_nan_is_refused() -> None:
    with pytest.raises(NumericsError):
        solved(np.full((3, 3, 3, 3), np.nan))


def test_a_row_says_how_it_was_seen() -> None:
    rng = np.random.default_rng(3)
    state = {"conv.weight": rng.standard_normal((24, 20, 3, 3)), "fc.weight": rng.standard_normal((40, 30))}
    config = ScanConfig(matrices=MatrixRules(conv_mode="fft"))
    conv, dense = scan(state, config=config)
    assert (conv.conv_mode, conv.kernel_size, conv.num_evals) == ("fft", 9, 1024 * 20)
    assert (conv.fit_status, conv.bulk_status) == ("ok", "ok")
    assert (dense.conv_mode, dense.num_evals) == (None, 30)
    [pooled, _] = scan(state)
    assert conv.norm == pytest.approx(1024 * pooled.norm, rel=1e-12)


def test_weightwatcher_has_no_such_row_and_volumes_are_pooled() -> None:
    rng = np.random.default_rng(4)
    config = profile_config("weightwatcher")
    config = replace(config, matrices=replace(config.matrices, conv_mode="fft"))
    [row] = scan({"conv.weight": rng.standard_normal((10, 9, 3, 3))}, config=config)
    assert (row.conv_mode, row.ww_status) == ("fft", None)
    rules = ScanConfig(matrices=MatrixRules(conv_mode="fft"))
    [volume] = scan({"conv.weight": rng.standard_normal((10, 9, 2, 2, 2))}, config=rules)
    assert (volume.conv_mode, volume.num_evals) == ("pool", 72)
