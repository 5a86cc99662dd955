"""Products of our own against numpy's."""

import numpy as np
import pytest

from scanner.spectra.aligned import aligned
from scanner.spectra.gram import BlasSum, PackedSum, slice_grams
from scanner.spectra.products import symmetric_product


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("made", [BlasSum, PackedSum])
@pytest.mark.parametrize("side", [1, 7, 16, 17, 100, 384])
@pytest.mark.parametrize("depths", [(1,), (5, 256, 300), (700,)])
@pytest.mark.parametrize("wide", [True, False])
def test_a_sum_of_blocks_is_the_gram_matrix(made, side, depths, wide):
    total, expected = made(side, wide), np.zeros((side, side))
    for depth in depths:
        piece = draw(side, depth, seed=depth) if wide else draw(depth, side, seed=depth)
        total.add(piece)
        expected += piece @ piece.T if wide else piece.T @ piece
    found = total.lower()
    assert found.shape == (side, side)
    np.testing.assert_allclose(
        np.tril(found), np.tril(expected), rtol=0, atol=1e-14 * sum(depths) * abs(expected).max()
    )


@pytest.mark.parametrize(
    "shape", [(16, 16, 3, 3), (64, 32, 3), (32, 64, 1, 3), (48, 20, 2), (160, 9, 2), (3, 16, 7, 7)]
)
@pytest.mark.parametrize("tall", [True, False])
def test_the_slices_of_a_convolution_have_their_gram_matrices(shape, tall):
    piece = draw(*shape)
    found, slices = slice_grams(piece, tall), piece.reshape(*shape[:2], -1)
    for s, one in enumerate(found):
        x = slices[:, :, s]
        expected = x.T @ x if tall else x @ x.T
        np.testing.assert_allclose(np.tril(one), np.tril(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [16, 64, 192, 208, 448])
@pytest.mark.parametrize("columns", [16, 64])
def test_a_symmetric_matrix_by_its_lower_triangle_times_another(side, columns):
    stride, origin = side + 24, 5 * (side + 24) + 3
    room = np.full((side + 8) * stride, np.nan)
    matrix = draw(side, side)
    for i in range(side):
        start = origin + i * stride
        room[start : start + i + 1] = matrix[i, : i + 1]
    v, found = draw(side, columns, seed=1), np.empty((side, columns))
    symmetric_product(room, origin, stride, v, found)
    whole = np.tril(matrix) + np.tril(matrix, -1).T
    np.testing.assert_allclose(found, whole @ v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1,), (7, 3), (65, 1024)])
def test_arrays_begin_at_a_line_of_the_cache(shape):
    made = [aligned(*shape) for _ in range(3)]
    assert all(array.ctypes.data % 64 == 0 and array.shape == shape for array in made)
    assert all(array.flags.c_contiguous for array in made)
