"""Numbers of a pair against dense linear algebra, on tall, wide and square matrices and on convolutions."""

from dataclasses import replace

import numpy as np
import pytest

from scanner.spectra import delta
from scanner.spectra.delta import Difference, change, cka, overlap, side
from scanner.spectra.eigen import DenseWeights, solve
from schemas.config import TailRules

SHAPES = [(60, 40), (40, 60), (50, 50), (700, 600), (600, 800), (24, 16, 3, 3), (16, 24, 5)]


def pair(shape, change=0.7, seed=0):
    random = np.random.default_rng(seed)
    base = random.standard_t(3, shape)
    return base + change * random.standard_normal(shape), base


def sides(own, base, block=17):
    made = []
    for array in (own, base):
        grams = []
        spectrum = solve(DenseWeights(array), keep=grams.append)
        made.append(side(DenseWeights(array), spectrum, grams[0] if grams else None, block))
    return made


def tall(array):
    flat = array.reshape(len(array), -1)
    return flat if flat.shape[0] >= flat.shape[1] else flat.T


def left(array, count):
    return np.linalg.svd(tall(array), full_matrices=False)[0][:, :count]


def spectra(own, base):
    difference = Difference(DenseWeights(own), DenseWeights(base))
    return solve(DenseWeights(own)), solve(DenseWeights(base)), solve(difference, block=7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_overlap_is_that_of_the_dense_svd(shape):
    own, base = pair(shape)
    expected = np.linalg.norm(left(own, 10).T @ left(base, 10)) ** 2 / 10
    assert overlap(*sides(own, base), block=17) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cka_is_that_of_the_dense_definition(shape):
    own, base = (tall(array) for array in pair(shape))
    a, b = own - own.mean(axis=0), base - base.mean(axis=0)
    norms = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    found = cka(*sides(*pair(shape)), block=17)
    assert found == pytest.approx(np.linalg.norm(a.T @ b) ** 2 / norms, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_change_is_that_of_the_dense_difference(shape):
    own, base = pair(shape)
    found = change(*spectra(own, base), TailRules())
    assert found.rel_delta == pytest.approx(np.linalg.norm(own - base) / np.linalg.norm(base), rel=1e-12)
    norms = 2 * np.log10(np.linalg.norm(own) / np.linalg.norm(base))
    assert found.d_log_norm == pytest.approx(norms, abs=1e-12)
    slices = [a.reshape(*shape[:2], -1).transpose(2, 0, 1) for a in (own, base, own - base)]
    top = [np.linalg.svd(s, compute_uv=False).max() for s in slices]
    assert found.d_log_spectral_norm == pytest.approx(2 * np.log10(top[0] / top[1]), abs=1e-12)
    assert found.delta_log_spectral_norm == pytest.approx(2 * np.log10(top[2]), abs=1e-12)
    assert found.delta_stable_rank == pytest.approx(np.sum((own - base) ** 2) / top[2] ** 2, rel=1e-12)


def test_the_hill_exponent_is_of_the_upper_half_of_the_change():
    own, base = pair((60, 40))
    evals = np.sort(np.linalg.svd(own - base, compute_uv=False) ** 2)[20:]
    expected = 1 + 20 / np.log(evals / evals[0]).sum()
    assert change(*spectra(own, base), TailRules()).delta_alpha_hill == pytest.approx(expected, rel=1e-10)


def test_few_eigenvalues_of_the_change_have_no_exponent():
    own, base = pair((60, 19))
    assert change(*spectra(own, base), TailRules()).delta_alpha_hill is None


def test_no_change_is_zero_and_has_no_logarithm():
    _, base = pair((60, 40))
    found = change(*spectra(base, base), TailRules())
    assert (found.rel_delta, found.d_log_norm, found.d_log_spectral_norm) == (0, 0, 0)
    assert found.delta_log_spectral_norm is found.delta_stable_rank is found.delta_alpha_hill is None
    assert overlap(*sides(base, base)) == pytest.approx(1, abs=1e-12)
    assert cka(*sides(base, base)) == pytest.approx(1, abs=1e-12)


def test_a_base_of_zeros_has_nothing_to_be_relative_to():
    own, base = pair((60, 40))
    found = change(*spectra(own, np.zeros_like(base)), TailRules())
    assert found.rel_delta is found.d_log_norm is found.d_log_spectral_norm is None
    assert found.delta_stable_rank is not None
    assert overlap(*sides(own, np.zeros_like(base))) is None
    assert cka(*sides(own, np.zeros_like(base))) is None


@pytest.mark.parametrize("scales", [(1e100, 1.0), (1e100, 1e-100), (1e-130, 1e-130), (1e140, 1e140)])
def test_the_similarity_does_not_see_scales_whose_fourth_power_leaves_float64(scales):
    own, base = pair((60, 40))
    scaled = sides(own * scales[0], base * scales[1])
    assert cka(*scaled) == pytest.approx(cka(*sides(own, base)), rel=1e-12)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (600, 520)], ids=str)
def test_scale_and_transposition_turn_nothing(shape):
    own, base = pair(shape)
    expected = overlap(*sides(own, base))
    assert overlap(*sides(-0.1 * own, base)) == pytest.approx(expected, abs=1e-12)
    assert overlap(*sides(own.T, base.T)) == pytest.approx(expected, abs=1e-12)
    assert overlap(*sides(3 * base, base)) == pytest.approx(1, abs=1e-12)


def test_a_rank_below_ten_has_no_ten_leading_directions():
    random = np.random.default_rng(0)
    low = random.standard_normal((60, 9)) @ random.standard_normal((9, 40))
    assert overlap(*sides(low, pair((60, 40))[1])) is None
    assert overlap(*sides(*pair((60, 9)))) is None


def test_unrelated_matrices_share_what_random_subspaces_share():
    random = np.random.default_rng(0)
    found = overlap(*sides(random.standard_normal((800, 600)), random.standard_normal((800, 600))))
    assert found == pytest.approx(10 / 800, abs=0.01)


@pytest.mark.parametrize("kind", ["noise", "decay"])
def test_lanczos_finds_what_lapack_finds_and_proves_it(kind):
    array = np.random.default_rng(1).standard_normal((700, 600))
    one = sides(array * np.arange(1, 601) ** -0.5 if kind == "decay" else array, array)[0]
    values, vectors = delta._lanczos(one, 10)
    expected_values, expected = delta._lapack(one.gram, 10)
    assert values == pytest.approx(expected_values, rel=1e-12)
    assert np.sum((vectors.T @ expected) ** 2) == pytest.approx(10, abs=1e-9)


def test_lanczos_is_not_believed_when_the_spectrum_says_that_it_missed_one():
    one = sides(*pair((700, 600)))[0]
    known = one.evals.copy()
    known[-3] *= 1 + 1e-9
    assert delta._lanczos(one, 10) is not None
    assert delta._lanczos(replace(one, evals=known), 10) is None


class Guarded(DenseWeights):
    """Weights that never hand out more than a block of rows."""

    def block(self, rows, columns):
        piece = super().block(rows, columns)
        assert len(piece) <= 16
        return piece


def test_a_difference_is_never_whole_in_memory():
    own, base = pair((200, 40))
    spectrum = solve(Difference(Guarded(own), Guarded(base)), block=16)
    assert spectrum.evals == pytest.approx(np.linalg.eigvalsh((own - base).T @ (own - base)), abs=1e-9)


def test_subtracting_leaves_the_weights_as_they_were():
    own, base = pair((60, 40))
    kept = own.copy()
    solve(Difference(DenseWeights(own), DenseWeights(base)))
    assert (own == kept).all()


def test_different_shapes_have_no_difference():
    with pytest.raises(ValueError, match=r"\(60, 40\) has no difference to \(40, 60\)"):
        Difference(DenseWeights(np.ones((60, 40))), DenseWeights(np.ones((40, 60))))


def test_solve_keeps_the_gram_matrix_of_a_plain_matrix_only():
    kept = []
    array = pair((60, 40))[0]
    solve(DenseWeights(array), keep=kept.append)
    assert np.tril(kept[0]) == pytest.approx(np.tril(array.T @ array))
    solve(DenseWeights(array), method="svd", keep=kept.append)
    solve(DenseWeights(pair((8, 8, 3, 3))[0]), keep=kept.append)
    assert len(kept) == 1


def test_what_is_kept_of_a_large_matrix_is_not_what_the_eigenvalues_are_made_of():
    """Side 2112 is a multiple of 64 beyond the smaller ones: its Gram matrix is overwritten."""
    array, kept = np.random.default_rng(0).standard_normal((2112, 2200)), []
    solve(DenseWeights(array), keep=kept.append)
    np.testing.assert_allclose(np.tril(kept[0]), np.tril(array @ array.T), rtol=0, atol=1e-9)
    assert kept[0].flags.c_contiguous
