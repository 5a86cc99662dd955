"""Eigenvalues by the compiled kernels, against LAPACK, exact spectra and each other."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from scanner.spectra import symmetric
from scanner.spectra.symmetric import LARGE_SIDE, Tridiagonal, eigenvalues, finished, halfway
from schemas.errors import NumericsError
from schemas.results import FailureKind

EPS = np.finfo(float).eps


def grams(*, side, count=1, seed=0, decay=0.0):
    values = np.random.default_rng(seed).standard_normal((count, side + 3, side))
    values = values * np.arange(1, side + 1) ** -decay
    return values.transpose(0, 2, 1) @ values


def known(side, values, seed=0):
    """A matrix with these eigenvalues, up to the rounding of two reflections."""
    normal = np.random.default_rng(seed).standard_normal(side)
    mirror = np.eye(side) - 2 * np.outer(normal, normal) / (normal @ normal)
    return mirror @ np.diag(values) @ mirror


def contrived(side):
    rank_one = np.outer(np.arange(1.0, side + 1), np.arange(1.0, side + 1))
    block = np.kron(np.eye(-(-side // 2)), np.array([[2.0, 1.0], [1.0, 2.0]]))[:side, :side]
    return {
        "zero": np.zeros((side, side)),
        "identity": np.eye(side),
        "ones": np.ones((side, side)),
        "rank one": rank_one,
        "diagonal": np.diag(np.arange(side, dtype=float)),
        "pairs": block,
        "three values": known(side, np.resize([1.0, 2.0, 5.0], side)),
        "one outlier": known(side, np.append(np.ones(side - 1), 1e9)),
        "graded": known(side, np.logspace(-12, 0, side)),
        "deficient": grams(side=side, decay=0)[0]
        * (np.arange(side) < side // 2)
        * (np.arange(side) < side // 2)[:, None],
        "tridiagonal": np.diag(np.full(side, 2.0))
        + np.diag(np.ones(side - 1), 1)
        + np.diag(np.ones(side - 1), -1),
    }


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 9, 16, 17, 31, 64, 100, 257])
@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize("count", [3, 9])
def test_eigenvalues_are_lapacks(side, decay, count):
    matrices = grams(side=side, count=count, decay=decay)
    expected = np.linalg.eigvalsh(matrices)
    np.testing.assert_allclose(eigenvalues(matrices), expected, rtol=0, atol=40 * EPS * expected.max())


@pytest.mark.parametrize("side", [2, 5, 8, 24, 65])
@pytest.mark.parametrize("name", contrived(2))
def test_matrices_with_structure(side, name):
    matrix = contrived(side)[name]
    expected = scipy.linalg.eigvalsh(matrix, driver="evx")
    top = max(abs(expected).max(), 1e-300)
    alone, in_company = eigenvalues(matrix), eigenvalues(np.stack([*grams(side=side, count=7), matrix]))[7]
    np.testing.assert_allclose(alone / top, expected / top, rtol=0, atol=40 * EPS)
    np.testing.assert_allclose(in_company / top, expected / top, rtol=0, atol=40 * EPS)


def test_accuracy_does_not_fall_behind_lapacks_as_sides_grow():
    """Against eigenvalues known exactly; both lose a few eps of the largest."""
    values = np.sort(np.random.default_rng(1).pareto(1.5, 700) + 1.0)
    matrix = known(700, values)
    ours, theirs = (
        abs(found - values).max() / values[-1] for found in (eigenvalues(matrix), np.linalg.eigvalsh(matrix))
    )
    assert ours <= max(10 * theirs, 40 * EPS)


@pytest.mark.parametrize("side", [3, 40, 130])
def test_numbers_do_not_depend_on_what_is_solved_beside(side):
    stacks = [grams(side=s, count=k, seed=k, decay=0.5) for s, k in ((side, 4), (side + 1, 1), (side, 19))]
    for together, stack in zip(finished([halfway(stack) for stack in stacks]), stacks, strict=True):
        np.testing.assert_array_equal(together, eigenvalues(stack))


@pytest.mark.parametrize("side", [3, 40, 130])
def test_numbers_depend_on_the_place_in_a_stack_alone(side):
    """Eights of a stack are made tridiagonal at once, the rest one by one."""
    stack, others = grams(side=side, count=11), grams(side=side, count=11, seed=1)
    others[[2, 10]] = stack[[2, 10]]
    np.testing.assert_array_equal(eigenvalues(others)[[2, 10]], eigenvalues(stack)[[2, 10]])


def test_lower_triangles_alone_are_read():
    matrices = grams(side=21, count=2)
    rubbish = np.tril(matrices) + np.triu(np.full((21, 21), 1e30), 1)
    np.testing.assert_array_equal(eigenvalues(rubbish), eigenvalues(matrices))


@pytest.mark.parametrize("power", [-900, -200, 300, 900])
def test_powers_of_two_scale_exactly(power):
    matrix = grams(side=30)[0]
    np.testing.assert_array_equal(eigenvalues(np.ldexp(matrix, power)), np.ldexp(eigenvalues(matrix), power))


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.0, 3.0))
def test_trace_and_squares_are_kept(side, seed, decay):
    matrix = grams(side=side, seed=seed, decay=decay)[0]
    found = eigenvalues(matrix)
    assert (np.diff(found) >= 0).all()
    assert found.sum() == pytest.approx(np.trace(matrix), rel=1e-13 * side)
    assert (found**2).sum() == pytest.approx((matrix**2).sum(), rel=1e-13 * side)


@pytest.mark.parametrize("wide", [True, False])
def test_large_matrices_go_by_the_band_or_to_torch(wide, monkeypatch):
    monkeypatch.setattr(symmetric, "WIDE_REGISTERS", wide)
    values = np.linspace(1.0, 3.0, LARGE_SIDE)
    matrix = known(LARGE_SIDE, values)
    assert isinstance(halfway(matrix[None]), Tridiagonal) is wide
    np.testing.assert_allclose(eigenvalues(matrix), values, rtol=1e-13)


def test_what_does_not_converge_is_an_error():
    broken = Tridiagonal(np.full((1, 4), np.nan), np.full((1, 4), np.nan), np.zeros(1, np.int32))
    with pytest.raises(NumericsError, match="did not converge") as error:
        finished([broken])
    assert error.value.kind is FailureKind.EIGENSOLVER_ERROR


def test_nan_stops_before_the_solver():
    matrix = np.eye(9)
    matrix[4, 4] = np.nan
    with pytest.raises(NumericsError) as error:
        eigenvalues(matrix)
    assert error.value.kind is FailureKind.NONFINITE


def test_torchs_lack_of_memory_is_a_memory_error(monkeypatch):
    """torch copies what it solves; these 128 TiB are one number, seen from everywhere."""
    monkeypatch.setattr(symmetric, "WIDE_REGISTERS", False)
    side = 1 << 22
    vast = np.lib.stride_tricks.as_strided(np.ones(1), (1, side, side), (0, 0, 0))
    with pytest.raises(MemoryError, match="eigenvalues"):
        halfway(vast)
