"""One matrix, one row: invariances, special matrices, and the columns each profile fills."""

from dataclasses import fields, replace

import numpy as np
import pytest

from scanner.api import scan
from scanner.layer import measure
from scanner.place import place
from scanner.spectra.eigen import DenseWeights
from schemas.config import MatrixRules, ScanConfig, SpectrumRules, profile_config
from schemas.errors import NumericsError
from schemas.refs import FileRef, MatrixRef, RepoRef, TensorRef
from schemas.results import FailureKind, Phase, Role, SkipReason
from schemas.rows import LayerMetrics

FILE = FileRef(RepoRef("owner/name", "0" * 40), "model.safetensors", 1 << 30, "content", "ab" * 32)
CONFIG = ScanConfig()
SCALE_FREE = (
    "alpha alpha_stderr D_ks tail_decades n_tail alpha_trunc alpha_hill stable_rank rank0_frac entropy eff_rank "
    "mp_edge_ratio mp_D mp_softrank spike_mass mp_ok num_spikes phase w_kurtosis zero_frac num_evals fit_status "
    "bulk_status counted Q erg_num erg_gap erg_dlambda"
).split()


def ref_of(stored, name="layers.0.q_proj.weight", role=Role.Q, **about):
    tensor = TensorRef(FILE, name, "F32", tuple(stored), 0, 0)
    known = {"index": 3, "shape": tuple(stored), "start": 0, "stop": 0, "role": role}
    return MatrixRef(tensor=tensor, **(known | about))


def assert_alike(row, other):
    for column in SCALE_FREE:
        found, expected = getattr(row, column), getattr(other, column)
        if isinstance(expected, float):
            expected = pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert found == expected, column


def row_of(array, config=CONFIG, **about):
    return measure(ref_of(array.shape, **about), DenseWeights(array), config)


@pytest.fixture(scope="module")
def trained():
    """Noise with decaying columns: a heavy-tailed layer."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 120)) * np.arange(1, 121) ** -0.35


@pytest.fixture(scope="module")
def plain(trained):
    return row_of(trained)


@pytest.mark.parametrize("c", [1e-12, 1e-3, 3e-4, 7.0, 1e12])
def test_scale_free_columns_do_not_see_the_scale(trained, plain, c):
    scaled = row_of(trained * c)
    assert_alike(scaled, plain)
    assert scaled.log_norm == pytest.approx(plain.log_norm + 2 * np.log10(c))
    assert scaled.xmin == pytest.approx(plain.xmin * c**2)
    assert scaled.alpha_weighted == pytest.approx(plain.alpha * scaled.log_spectral_norm)


@pytest.mark.parametrize("c", [1e-12, 1e12])
def test_scale_free_columns_in_single_precision(trained, c):
    single = row_of(trained.astype(np.float32))
    scaled = row_of(trained.astype(np.float32) * np.float32(c))
    assert scaled.alpha == pytest.approx(single.alpha, rel=1e-5)
    assert (scaled.n_tail, scaled.phase, scaled.num_spikes) == (
        single.n_tail,
        single.phase,
        single.num_spikes,
    )


def test_transposed_and_permuted_weights_are_the_same_layer(trained, plain):
    rng = np.random.default_rng(1)
    shuffled = trained[rng.permutation(300)][:, rng.permutation(120)].T
    row = row_of(shuffled)
    assert (row.N, row.M, row.Q) == (plain.N, plain.M, plain.Q) == (300, 120, 2.5)
    assert_alike(row, plain)


def test_a_rectangular_layer_fills_its_columns(plain, trained):
    assert (plain.status, plain.fit_status, plain.bulk_status) == ("ok", "ok", "ok")
    assert (plain.spectrum_method, plain.device, plain.estimator) == ("gram_f64", "cpu", "hs1")
    assert (plain.num_evals, plain.kernel_size, plain.conv_mode) == (120, 1, None)
    assert plain.counted
    assert plain.w_mean == pytest.approx(trained.mean())
    assert plain.norm == pytest.approx(np.sum(trained**2))
    assert plain.log_spectral_norm_n == pytest.approx(plain.log_spectral_norm - np.log10(300))
    assert plain.secs > 0


def test_the_place_is_that_of_the_tensor():
    row = place(ref_of((30, 20), layer_index=0, is_last=True, component="unet"), CONFIG)
    assert (row.repo_id, row.revision, row.file) == ("owner/name", "0" * 40, "model.safetensors")
    assert (row.tensor, row.file_sha256, row.component) == ("layers.0.q_proj.weight", "ab" * 32, "unet")
    assert (row.matrix_index, row.role, row.layer_index, row.is_last) == (3, "q", 0, True)
    assert (row.dtype, row.shape, row.config_fingerprint) == ("F32", (30, 20), CONFIG.fingerprint())


def test_a_skipped_row_has_a_place_and_a_reason_and_no_numbers():
    row = place(ref_of((7, 20), skip=SkipReason.TOO_SMALL), CONFIG)
    assert (row.status, row.status_reason) == ("skipped", "too_small")
    assert (row.N, row.M) == (20, 7)
    assert {row.alpha, row.norm, row.fit_status, row.num_evals, row.secs} == {None}


@pytest.mark.parametrize("shape", [(), (5,), (0, 5)])
def test_what_is_no_matrix_has_no_sides(shape):
    row = place(ref_of(shape, skip=SkipReason.NOT_A_MATRIX), CONFIG)
    assert (row.N, row.M, row.Q, row.kernel_size) == (None,) * 4


@pytest.mark.parametrize("role", [Role.EMBED, Role.POS_EMBED, Role.LM_HEAD, Role.LORA])
def test_embeddings_heads_and_adapters_are_not_counted(trained, role):
    row = row_of(trained, role=role)
    assert (row.fit_status, row.counted) == ("ok", False)


PROFILE_NAMES = ["default", "full", "weightwatcher"]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
@pytest.mark.parametrize("shape", [(60, 50), (60, 50, 3, 3)])
def test_a_zero_matrix_is_ok_and_knows_only_its_entries(shape, profile):
    row = row_of(np.zeros(shape), profile_config(profile))
    assert (row.status, row.status_reason) == ("ok", "zero_matrix")
    assert (row.zero_frac, row.w_std, row.num_nonfinite) == (1.0, 0.0, 0)
    assert (row.num_evals, row.counted) == (50 * int(np.prod(shape[2:])), False)
    for column in ("norm", "log_norm", "lambda_max", "stable_rank", "alpha", "phase", "mp_D", "w_kurtosis"):
        assert getattr(row, column) is None


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_constant_spectrum_has_no_tail(profile):
    row = row_of(np.eye(60), profile_config(profile))
    assert (row.status, row.fit_status, row.counted) == ("ok", "constant", False)
    assert (row.alpha, row.alpha_weighted, row.log_alpha_norm) == (None, None, None)
    assert row.stable_rank == pytest.approx(60)


def test_few_eigenvalues_have_norms_and_no_fit():
    row = row_of(np.random.default_rng(0).standard_normal((300, 19)))
    assert (row.status, row.fit_status, row.bulk_status) == ("ok", "too_few_evals", "too_small")
    assert (row.phase, row.alpha) == (Phase.UNDECIDED, None)
    assert row.norm > 0


def test_no_column_is_ever_nan():
    rng = np.random.default_rng(0)
    edge_cases = [
        rng.standard_normal((60, 50)) * 1e100,
        rng.standard_normal((60, 50)) * 1e-100,
        np.eye(60) + 1e-9 * rng.standard_normal((60, 60)),
        np.outer(rng.standard_normal(60), rng.standard_normal(50)),
        rng.standard_cauchy((60, 50)),
        np.triu(np.ones((60, 60))),
    ]
    for array in edge_cases:
        for config in map(profile_config, PROFILE_NAMES):
            row = row_of(array, config)
            for field in fields(LayerMetrics):
                value = getattr(row, field.name)
                assert not isinstance(value, float) or np.isfinite(value), field.name


@pytest.mark.parametrize("shape", [(60, 50), (60, 50, 3)])
def test_nan_and_inf_are_counted_and_blamed(shape):
    array = np.random.default_rng(0).standard_normal(shape)
    array[3, :2] = np.nan
    array[7, 0] = np.inf
    bad = int(np.count_nonzero(~np.isfinite(array)))
    with pytest.raises(NumericsError) as caught:
        row_of(array)
    assert (caught.value.kind, caught.value.num_nonfinite) == (FailureKind.NONFINITE, bad)
    assert f"{bad} of {array.size} entries are NaN or Inf" in caught.value.message


@pytest.mark.parametrize(("scale", "word"), [(1e200, "overflow"), (1e-200, "underflow")])
def test_squares_out_of_range_are_the_range_s_fault(scale, word):
    array = np.random.default_rng(0).standard_normal((60, 50)) * scale
    with pytest.raises(NumericsError, match=f"{word} float64: rescale") as caught:
        row_of(array)
    assert caught.value.kind is FailureKind.EIGENSOLVER_ERROR


WAYS = {
    "gram": ((60, 50), ScanConfig()),
    "svd": ((60, 60), ScanConfig(spectrum=SpectrumRules(method="svd"))),
    "pooled": ((20, 24, 3, 3), ScanConfig()),
    "pooled svd": ((20, 24, 3, 3), profile_config("weightwatcher")),
    "slices": ((20, 24, 3, 3), ScanConfig(matrices=MatrixRules(conv_mode="slice"))),
    "fft": ((20, 24, 3, 3), ScanConfig(matrices=MatrixRules(conv_mode="fft"))),
    "fft svd": (
        (20, 24, 3, 3),
        ScanConfig(spectrum=SpectrumRules(method="svd"), matrices=MatrixRules(conv_mode="fft")),
    ),
}


@pytest.mark.parametrize("scale", [1e146, 1e154, 1e200, 1.7e307])
@pytest.mark.parametrize("way", WAYS)
def test_the_end_of_float64_is_a_failed_row_and_no_warning(way, scale):
    """Warnings are errors here; LAPACK would print its own on infinities."""
    shape, config = WAYS[way]
    array = np.random.default_rng(0).uniform(-1, 1, shape) * scale
    rows = list(scan({"a.weight": array}, config=config))
    assert {(row.status, row.status_reason) for row in rows} == {("failed", "eigensolver_error")}


def test_a_long_tail_is_solved_again_by_svd():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((100, 60)))[0]
    array = q * np.logspace(0, -5.5, 60)
    row = row_of(array)
    assert row.spectrum_method == "svd_f64"
    assert row.hard_rank == 60
    assert row.num_nonfinite == 0
    assert row.w_mean == pytest.approx(array.mean())
    relaxed = ScanConfig(spectrum=SpectrumRules(svd_above=1e30))
    assert row_of(array, relaxed).spectrum_method == "gram_f64"


@pytest.mark.parametrize(
    ("mode", "kernel", "count"), [("pool", 9, 180), ("slice", 1, 20), ("flatten", 1, 24)]
)
def test_convolution_modes(mode, kernel, count):
    array = np.random.default_rng(0).standard_normal((24, 20, 3, 3))
    config = ScanConfig(matrices=MatrixRules(conv_mode=mode))
    about = {"role": Role.CONV, "name": "conv.weight"}
    if mode == "slice":
        row = measure(ref_of(array.shape, slice_id=4, **about), DenseWeights(array[:, :, 1, 1]), config)
    elif mode == "flatten":
        flat = array.reshape(24, -1)
        row = measure(ref_of(array.shape, shape=flat.shape, **about), DenseWeights(flat), config)
    else:
        row = measure(ref_of(array.shape, **about), DenseWeights(array), config)
    assert (row.conv_mode, row.kernel_size, row.num_evals) == (mode, kernel, count)
    assert row.N == (180 if mode == "flatten" else 24)


WW_COLUMNS = [field.name for field in fields(LayerMetrics) if field.name.startswith("ww_")]


def test_weightwatchers_columns_need_its_profile(trained, plain):
    assert {getattr(plain, column) for column in WW_COLUMNS} == {None}
    row = row_of(trained, profile_config("weightwatcher"))
    of_clipping = {"ww_num_fingers", "ww_raw_alpha"}
    assert {column for column in WW_COLUMNS if getattr(row, column) is None} == of_clipping
    assert (row.ww_status, row.spectrum_method, row.hard_rank) == ("success", "gram_f64", 120)
    assert row.alpha == pytest.approx(plain.alpha, rel=1e-9)


def test_weightwatcher_has_no_row_for_a_flattened_convolution():
    array = np.random.default_rng(0).standard_normal((24, 20, 3, 3))
    config = profile_config("weightwatcher")
    config = replace(config, matrices=replace(config.matrices, conv_mode="flatten"))
    row = measure(ref_of(array.shape, shape=(24, 180)), DenseWeights(array.reshape(24, -1)), config)
    assert (row.status, row.ww_status) == ("ok", None)


def test_weightwatchers_alpha_falls_with_the_scale_where_ours_stays(trained, plain):
    compat = profile_config("weightwatcher")
    tiny = row_of(trained * 1e-4, compat)
    assert tiny.alpha == pytest.approx(plain.alpha, rel=1e-9)
    assert tiny.ww_alpha != pytest.approx(row_of(trained, compat).ww_alpha, rel=0.01)
    lost = row_of(trained * 1e-6, compat)
    assert (lost.ww_status, lost.ww_alpha) == ("failed", None)
    assert lost.alpha == pytest.approx(plain.alpha, rel=1e-9)


def test_stages_that_are_off_say_so(trained, plain):
    assert (plain.null_status, plain.alt_status, plain.base_status) == ("off", "off", "off")
    full = row_of(trained, profile_config("full"))
    assert (full.null_status, full.alt_status) == ("ok", "ok")
    assert full.rand_seed is not None
    assert full.best_dist is not None


def test_the_least_size_of_a_pooled_convolution_is_a_rule():
    array = np.random.default_rng(0).standard_normal((15, 15, 3, 3))
    row = row_of(array, ScanConfig(matrices=MatrixRules(min_side=1)))
    assert (row.bulk_status, row.fit_status) == ("too_small", "ok")
