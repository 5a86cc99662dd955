"""Units: bounds, order, names and the arithmetic they promise."""

from dataclasses import replace
from math import prod

import pytest
from laid import laid

from scanner.spectra import fourier
from scanner.spectra.estimators import window_starts
from scanner.weights import plan
from scanner.weights.matrices import plan_matrices
from scanner.weights.pairing import Base, paired
from scanner.weights.plan import GRAM_RATE, ROW_SECONDS, cost, peak_bytes, plan_units, row_cost
from schemas.config import MatrixRules, ScanConfig, SpectrumRules, WorkLimits
from schemas.refs import FileRef, RepoRef

REPO = RepoRef("owner/name", "a" * 40)
CONFIG = ScanConfig()


def matrices(*shapes, conv_mode="pool", repo=REPO, content="content"):
    file = FileRef(repo, "model.safetensors", 1 << 20, content)
    tensors = laid({f"layer{i}.conv.weight": ("F32", *shape) for i, shape in enumerate(shapes)}, file)
    return plan_matrices(tensors, MatrixRules(conv_mode=conv_mode))


def units(rows, config=CONFIG, repo=REPO, **limits):
    return plan_units(repo, rows, config, WorkLimits(**limits))


def test_cost_grows_as_the_arithmetic():
    """N M^2 for the Gram matrix, 4/3 M^3 for its eigenvalues; the parts that do not scale drop out."""
    small, tall, large = (cost(row, "gram") for row in matrices((4096, 2048), (8192, 2048), (8192, 4096)))
    assert tall - small == pytest.approx(4096 * 2048**2 / GRAM_RATE)
    assert 7 < large / small < 8


def test_cost_has_no_orientation():
    tall, wide = matrices((400, 100), (100, 400))
    assert cost(tall, "gram") == cost(wide, "gram")


def test_an_svd_costs_more():
    (row,) = matrices((2048, 2048))
    assert cost(row, "svd") > 3 * cost(row, "gram")


STAGES = (
    {"null_model": True},
    {"estimators": True},
    {"alternatives": True},
    {"bootstrap": 200},
    {"vectors": True},
)


@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (300, 900), (64, 32, 3, 3)], ids=str)
def test_every_stage_has_its_price(stage, shape):
    (row,) = matrices(shape)
    more = replace(CONFIG, stages=replace(CONFIG.stages, **stage))
    assert row_cost(row, CONFIG) == cost(row, "gram")
    assert row_cost(row, more) > row_cost(row, CONFIG)


def test_a_transformed_convolution_costs_its_frequencies():
    """Measured: 290 and 37 times its slices for sides of 64 and 16."""
    for side, least, most in ((64, 145, 580), (16, 18, 75)):
        (row,) = matrices((side, side, 3, 3), conv_mode="fft")
        ratio = row_cost(row, replace(CONFIG, matrices=MatrixRules(conv_mode="fft"))) / cost(row, "gram")
        assert least < ratio < most


def test_the_grid_and_the_windows_are_those_that_are_solved():
    """Plans may not import spectra, so they have the two rules again."""
    assert plan.GRID == fourier.GRID
    rows = matrices((256, 256), (256, 300), (300, 5000), (700, 700))
    more = replace(CONFIG, stages=replace(CONFIG.stages, estimators=True))
    one, *others = (row_cost(row, more) - row_cost(row, CONFIG) - plan.FITS_SECONDS for row in rows)
    for row, price in zip(rows[1:], others, strict=True):
        windows = prod(len(window_starts(length, 256)) for length in row.shape)
        assert price / one == pytest.approx(windows)


def test_cost_of_a_convolution_is_that_of_its_slices():
    (pooled,) = matrices((400, 1000, 3, 3))
    slices = matrices((400, 1000, 3, 3), conv_mode="slice")
    apart = sum(cost(row, "gram") - ROW_SECONDS for row in slices)
    assert cost(pooled, "gram") - ROW_SECONDS == pytest.approx(apart)


def test_peak_memory_holds_the_gram_matrix_twice_and_a_block():
    (row,) = matrices((1000, 400))
    assert peak_bytes(row, 512) == 8 * (2 * 400**2 + 512 * 400)
    assert peak_bytes(row, 5000) == 8 * (2 * 400**2 + 1000 * 400)


def test_small_repositories_are_one_unit():
    rows = matrices((32, 32), (32, 16, 3, 3))
    (unit,) = units(rows)
    assert unit.matrices == rows
    assert unit.nbytes == 4 * (32 * 32 + 32 * 16 * 9)
    assert unit.cost == sum(cost(row, "gram") for row in rows)


def test_units_are_bounded_by_bytes():
    rows = matrices(*[(32, 32)] * 7)
    cut = units(rows, unit_bytes=3 * 4 * 32 * 32)
    assert [len(unit.matrices) for unit in cut] == [3, 3, 1]
    assert tuple(row for unit in cut for row in unit.matrices) == rows


def test_units_are_bounded_by_arithmetic():
    rows = matrices(*[(32, 32)] * 7)
    cut = units(rows, unit_cost=2.5 * cost(rows[0], "gram"))
    assert [len(unit.matrices) for unit in cut] == [2, 2, 2, 1]


def test_svd_counts_in_the_bound():
    rows = matrices(*[(256, 256)] * 4)
    config = replace(CONFIG, spectrum=SpectrumRules(method="svd"))
    limit = 2.5 * cost(rows[0], "gram")
    assert [len(unit.matrices) for unit in units(rows, config, unit_cost=limit)] == [1] * 4


def test_a_matrix_beyond_the_bounds_is_a_unit_of_its_own():
    cut = units(matrices((8, 8), (640, 64), (8, 8)), unit_bytes=1000)
    assert [len(unit.matrices) for unit in cut] == [1, 1, 1]


def test_rows_that_share_bytes_stay_together_and_are_read_once():
    rows = matrices((32, 32, 3), (32, 32, 3), conv_mode="slice")
    cut = units(rows, unit_bytes=1, unit_cost=1)
    assert [len(unit.matrices) for unit in cut] == [3, 3]
    assert [unit.nbytes for unit in cut] == [4 * 32 * 32 * 3] * 2


def test_a_skipped_row_is_in_no_unit_and_nothing_is_read_for_it():
    rows = matrices((32, 32), (64,), (32, 16, 3, 3))
    (unit,) = units(rows)
    assert unit.matrices == (rows[0], rows[2])
    assert rows[1].nbytes == 0


def test_nothing_planned_is_no_unit():
    assert units(()) == ()


def test_equal_work_has_an_equal_name():
    first, again = units(matrices((32, 32))), units(matrices((32, 32)))
    assert first[0].unit_id == again[0].unit_id
    assert len(first[0].unit_id) == 24


OTHER_REPO = RepoRef("owner/name", "b" * 40)
CHANGES = {
    "content": lambda: units(matrices((32, 32), content="other")),
    "shape": lambda: units(matrices((32, 33))),
    "revision": lambda: units(matrices((32, 32), repo=OTHER_REPO), repo=OTHER_REPO),
    "config": lambda: units(matrices((32, 32)), replace(CONFIG, spectrum=SpectrumRules(block=7))),
    "component": lambda: units(tuple(replace(row, component="unet") for row in matrices((32, 32)))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_work_has_another_name(change):
    assert CHANGES[change]()[0].unit_id != units(matrices((32, 32)))[0].unit_id


def test_every_unit_of_a_repository_has_its_own_name():
    names = [unit.unit_id for unit in units(matrices(*[(32, 32)] * 20), unit_bytes=1)]
    assert len(set(names)) == 20


# Rows with a base


def pairs(*shapes, revision="b" * 40, content="base"):
    repo = RepoRef("owner/base", revision)
    return tuple(paired(matrices(*shapes), Base(repo, matrices(*shapes, repo=repo, content=content))))


def test_a_pair_reads_twice_and_costs_more():
    shapes = ((300, 200), (200, 100))
    (alone,), (both,) = units(matrices(*shapes)), units(pairs(*shapes))
    assert both.nbytes == 2 * alone.nbytes
    assert 3 < both.cost / alone.cost < 4
    assert peak_bytes(pairs((300, 200))[0], 512) > peak_bytes(matrices((300, 200))[0], 512)


def test_bounds_of_a_unit_count_the_base_too():
    shapes = ((100, 100), (100, 100))
    assert len(units(matrices(*shapes), unit_bytes=80_000)) == 1
    assert len(units(pairs(*shapes), unit_bytes=80_000)) == 2


def test_another_commit_of_the_base_is_other_work():
    names = {
        units(rows)[0].unit_id
        for rows in (
            matrices((100, 50)),
            pairs((100, 50)),
            pairs((100, 50), revision="c" * 40),
            pairs((100, 50), content="other"),
            pairs((100, 50), content="content"),
        )
    }
    assert len(names) == 5
    assert units(pairs((100, 50)))[0].unit_id == units(pairs((100, 50)))[0].unit_id


def test_the_base_s_own_file_costs_nothing_more():
    (same,), (alone,) = units(pairs((100, 50), content="content")), units(matrices((100, 50)))
    assert (same.nbytes, same.cost) == (alone.nbytes, alone.cost)
