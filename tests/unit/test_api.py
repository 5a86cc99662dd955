"""The notebook's three lines, and what they refuse."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import scanner
from scanner import compare, fit_tail, read_matrices, scan, spectrum
from scanner.spectra.eigen import DenseWeights, solve
from schemas.errors import ConfigError, ScanError, TargetError
from schemas.results import Role

STATE = {
    "layers.0.q_proj.weight": np.random.default_rng(0).standard_normal((80, 60)).astype(np.float32),
    "layers.1.q_proj.weight": np.random.default_rng(1).standard_normal((60, 80)).astype(np.float32),
    "conv.weight": np.random.default_rng(2).standard_normal((16, 20, 3, 3)).astype(np.float32),
    "norm.weight": np.ones(60, np.float32),
}
NUMBERS = ("alpha", "norm", "mp_D", "phase", "n_tail", "w_std", "role", "layer_index", "flags")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "owner" / "name"
    root.mkdir(parents=True)
    save_file(STATE, root / "model.safetensors")
    return root


def numbers(target, **options):
    return {row.tensor: [getattr(row, column) for column in NUMBERS] for row in scan(target, **options)}


def test_three_lines(folder):
    for matrix in read_matrices(folder):
        fit = fit_tail(spectrum(matrix))
        assert fit.alpha > 1, matrix.name


def test_matrices_are_named_shaped_and_valued(folder):
    found = {matrix.name: matrix for matrix in read_matrices(folder)}
    assert found.keys() == STATE.keys() - {"norm.weight"}
    matrix = found["layers.1.q_proj.weight"]
    assert (matrix.shape, matrix.dtype, matrix.role, matrix.layer_index) == ((60, 80), "F32", Role.Q, 1)
    np.testing.assert_array_equal(matrix.values, STATE["layers.1.q_proj.weight"])
    assert matrix.values.dtype == np.float64
    assert repr(matrix) == "Matrix('layers.1.q_proj.weight', shape=(60, 80), dtype=F32, role='q')"
    assert found["conv.weight"].shape == (16, 20, 3, 3)


def test_folders_files_and_state_dicts_scan_alike(folder):
    tensors = {name: torch.from_numpy(array) for name, array in STATE.items()}
    expected = numbers(folder)
    assert expected.keys() == STATE.keys()
    for target in (str(folder), folder / "model.safetensors", STATE, tensors):
        assert numbers(target) == expected


def test_a_state_dict_in_bf16_is_read_bit_for_bit():
    half = torch.from_numpy(STATE["layers.0.q_proj.weight"]).bfloat16()
    (row,) = scan({"q_proj.weight": half})
    assert row.dtype == "BF16"
    expected = fit_tail(solve(DenseWeights(half.double().numpy())))
    assert row.alpha == pytest.approx(expected.alpha, rel=1e-9)
    assert spectrum(half).evals == pytest.approx(spectrum(half.double()).evals)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", [(30, 20), (12, 10, 3), (12, 10, 3, 3), (12, 10, 2, 2, 2)])
def test_a_spectrum_of_an_array_a_tensor_or_a_convolution(shape, method):
    array = np.random.default_rng(0).standard_normal(shape)
    expected = solve(DenseWeights(array), method=method).evals
    for weights in (
        array,
        torch.from_numpy(array),
        torch.from_numpy(array).requires_grad_(),
        array.astype(">f8"),
    ):
        np.testing.assert_array_equal(spectrum(weights, method=method).evals, expected)


def test_a_module_s_state_dict_is_a_target():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 32))
    rows = {row.tensor: row for row in scan(module.state_dict())}
    assert {name: row.status for name, row in rows.items()} == {
        "0.weight": "ok",
        "0.bias": "skipped",
        "2.weight": "ok",
        "2.bias": "skipped",
    }


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0)])
def test_what_has_no_spectrum_is_refused(shape):
    with pytest.raises(ValueError, match="needs a non-empty matrix, got shape"):
        spectrum(np.zeros(shape))


@pytest.mark.parametrize("weights", ["text", None, {"a": 1}, np.zeros((3, 3), dtype=complex)])
def test_a_wrong_type_is_refused(weights):
    with pytest.raises(TypeError, match="cannot read weights of type"):
        spectrum(weights)


def test_integers_are_no_weights():
    with pytest.raises(ValueError, match="not decoded"):
        spectrum(np.arange(9).reshape(3, 3))


def test_unknown_profiles_and_targets_are_refused():
    with pytest.raises(ConfigError, match="unknown profile"):
        list(scan(STATE, "best"))
    with pytest.raises(TargetError, match="no such file or folder"):
        list(scan("./nowhere"))
    with pytest.raises(TypeError, match="cannot read weights"):
        list(scan({"a": "text"}))


def test_a_repository_of_which_nothing_is_readable_raises(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    for read in (scan, read_matrices):
        with pytest.raises(ScanError) as caught:
            list(read(tmp_path))
        assert (caught.value.kind, caught.value.file) == ("bad_header", "model.safetensors")


def broken_in_part(folder):
    """A sound model with a shard that is no safetensors file, and one matrix of NaN."""
    first = STATE | {"bad.weight": np.full((40, 40), np.nan, np.float32)}
    save_file(first, folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"\xff" * 64)
    return folder


def test_what_could_not_be_read_is_in_the_result_as_in_a_lake(tmp_path):
    rows = scan(broken_in_part(tmp_path))
    assert rows.failures == []
    with pytest.warns(RuntimeWarning, match="model-00002-of-00002.safetensors: ") as caught:
        found = {row.tensor: row for row in rows}
    assert [warning.filename for warning in caught] == [__file__]
    assert found.keys() == STATE.keys() | {"bad.weight"}
    header, matrix = rows.failures
    assert (header.stage, header.kind, header.file) == (
        "header",
        "bad_header",
        "model-00002-of-00002.safetensors",
    )
    assert (matrix.kind, matrix.tensor) == ("nonfinite", "bad.weight")
    assert found["bad.weight"].failure_id == matrix.failure_id


def test_a_file_without_matrices_is_not_passed_over_in_silence(tmp_path):
    with pytest.warns(RuntimeWarning, match="model-00002-of-00002.safetensors: "):
        names = {matrix.name for matrix in read_matrices(broken_in_part(tmp_path))}
    assert "layers.0.q_proj.weight" in names
    with pytest.warns(RuntimeWarning, match="model-00002-of-00002.safetensors: ") as caught:
        compare(STATE, tmp_path)
    assert {warning.filename for warning in caught} == {__file__}


def test_rows_come_one_repository_at_a_time(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_file(STATE, tmp_path / name / "model.safetensors")
    rows = scan(tmp_path)
    assert next(rows).repo_id != [row.repo_id for row in rows][-1]


def test_a_profile_adds_columns():
    rows = [row for row in scan(STATE, "weightwatcher") if row.tensor.startswith("layers")]
    assert [row.ww_status for row in rows] == ["success", "success"]


def test_the_package_offers_what_it_says():
    for name in scanner.__all__:
        assert getattr(scanner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = scanner.nothing


def test_small_matrices_never_import_torch():
    code = (
        "import sys, numpy; from scanner import compare, fit_tail, spectrum;"
        "fit_tail(spectrum(numpy.eye(64) + numpy.arange(64)));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
