"""Fine-tunes made by known edits, compared with what they were made of: V12 of the definitions."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from scanner import compare, scan
from scanner.bases import plan_base
from scanner.diagnosis.flags import model_findings
from scanner.pipeline import scan_unit
from scanner.planning import plan_repository
from scanner.reading import streamed
from scanner.sources.local import LocalSource
from schemas.config import ScanConfig, Stages
from schemas.errors import SourceError
from schemas.results import FailureKind
from schemas.rows import Failure


def trained_like(shape, seed):
    """A matrix of decaying spectrum, as training leaves it, with noise of full rank."""
    random = np.random.default_rng(seed)
    signal = random.standard_normal(shape) * np.arange(1, shape[1] + 1) ** -0.6
    return (signal @ np.linalg.qr(random.standard_normal((shape[1], shape[1])))[0]).astype("f4")


BASE = {
    "fc1.weight": trained_like((256, 64), 1),
    "fc2.weight": trained_like((384, 256), 2),
    "fc3.weight": trained_like((384, 384), 3),
    "head.weight": trained_like((10, 384), 4),
    "fc2.bias": np.zeros(384, "f4"),
}
TRAPS = replace(ScanConfig(), stages=Stages(null_model=True, cka=True))


def tuned(edit, name="fc2.weight"):
    return BASE | {name: edit(BASE[name])}


def row_of(fine_tune, name="fc2.weight", base=BASE, config=None):
    return next(row for row in compare(base, fine_tune, config=config) if row.tensor == name)


def pruned(w):
    return np.where(np.abs(w) > np.quantile(np.abs(w), 0.9), w, 0).astype("f4")


def int4(w):
    step = np.abs(w).max(axis=1, keepdims=True) / 7
    return (np.round(w / step) * step).astype("f4")


def rank32(w):
    u, s, v = np.linalg.svd(w, full_matrices=False)
    return ((u[:, :32] * s[:32]) @ v[:32]).astype("f4")


def nudged(w):
    return w + (1e-3 * w.std() * np.random.default_rng(9).standard_normal(w.shape)).astype("f4")


def replaced(w):
    return (3 * w.std() * np.random.default_rng(9).standard_normal(w.shape)).astype("f4")


def of_pairs(row):
    return {flag for flag in row.flags if flag.startswith(("ft_", "scale_c"))}


def test_a_scaled_layer_is_a_collapse_and_nothing_else():
    row = row_of(tuned(lambda w: w * np.float32(0.1)), config=TRAPS)
    assert row.d_log_spectral_norm == pytest.approx(-2, abs=1e-5)
    assert row.d_log_norm == pytest.approx(-2, abs=1e-5)
    assert row.d_alpha == pytest.approx(0, abs=1e-5)
    assert row.rel_delta == pytest.approx(0.9, abs=1e-5)
    assert (row.subspace_overlap10, row.cka) == (pytest.approx(1, abs=1e-8), pytest.approx(1, abs=1e-8))
    assert row.d_num_traps == 0
    assert of_pairs(row) == {"scale_collapse"}


def test_the_other_layers_of_a_scaled_model_are_unchanged():
    rows = compare(BASE, tuned(lambda w: w * np.float32(0.1)))
    others = [row for row in rows if row.status == "ok" and row.tensor != "fc2.weight"]
    assert [(row.rel_delta, row.d_alpha or 0, row.scale_change_z) for row in others] == [(0, 0, 0)] * 3
    assert all(of_pairs(row) == set() for row in others)


@pytest.mark.parametrize(
    ("edit", "flags"),
    [
        (int4, set()),
        (nudged, set()),
        (lambda w: w.astype("f2").astype("f4"), set()),
        (replaced, {"ft_unstable"}),
    ],
    ids=["int4", "nudge", "f16", "replaced"],
)
def test_an_edit_is_flagged_as_v12_says(edit, flags):
    assert of_pairs(row_of(tuned(edit))) == flags


def test_pruning_and_truncation_make_traps_that_the_base_has_not():
    for edit, phase in ((pruned, None), (rank32, "RANK-COLLAPSE")):
        row = row_of(tuned(edit), config=TRAPS)
        assert row.d_num_traps is not None
        assert phase in (None, row.phase)
        sentences = [f.sentence for f in row.findings if f.kind == "ft_unstable" and "traps" in f.sentence]
        assert bool(sentences) is (row.d_num_traps > 0)


def test_numbers_are_those_of_the_dense_matrices():
    own, base = replaced(BASE["fc2.weight"]).astype("f8"), BASE["fc2.weight"].astype("f8")
    row = row_of(tuned(replaced), config=TRAPS)
    s, s0, sd = (np.linalg.svd(m, compute_uv=False) for m in (own, base, own - base))
    u, u0 = (np.linalg.svd(m)[0][:, :10] for m in (own, base))
    assert row.rel_delta == pytest.approx(np.linalg.norm(own - base) / np.linalg.norm(base), rel=1e-10)
    assert row.d_log_spectral_norm == pytest.approx(2 * np.log10(s[0] / s0[0]), abs=1e-10)
    assert row.delta_log_spectral_norm == pytest.approx(2 * np.log10(sd[0]), abs=1e-10)
    assert row.delta_stable_rank == pytest.approx(np.sum(sd**2) / sd[0] ** 2, rel=1e-10)
    assert row.subspace_overlap10 == pytest.approx(np.sum((u.T @ u0) ** 2) / 10, abs=1e-8)
    alone = {r.tensor: r.alpha for r in compare(BASE, BASE | {"head.weight": BASE["head.weight"] * 2})}
    assert row.d_alpha == pytest.approx(row.alpha - alone["fc2.weight"], abs=1e-12)


def test_storage_types_may_differ():
    half = {name: w.astype("f2") for name, w in BASE.items()}
    row = row_of(half)
    expected = BASE["fc2.weight"].astype("f2").astype("f8") - BASE["fc2.weight"].astype("f8")
    assert (row.dtype, row.base_status) == ("F16", "ok")
    assert row.rel_delta == pytest.approx(
        np.linalg.norm(expected) / np.linalg.norm(BASE["fc2.weight"]), rel=1e-6
    )


def test_a_state_dict_against_itself_is_the_same_file():
    rows = compare(BASE, BASE)
    measured = [row for row in rows if row.status == "ok"]
    assert {row.base_status for row in measured} == {"same_file"}
    assert all(row.rel_delta is None and row.base_tensor == row.tensor for row in measured)


def test_convolutions_are_pooled_for_spectra_and_flattened_for_directions():
    random = np.random.default_rng(0)
    base = {"conv.weight": random.standard_normal((24, 16, 3, 3)), "other.weight": np.eye(20)}
    own = base | {"conv.weight": base["conv.weight"] + random.standard_normal((24, 16, 3, 3))}
    row = row_of(own, "conv.weight", base)
    change = own["conv.weight"] - base["conv.weight"]
    tops = [
        np.linalg.svd(c.transpose(2, 3, 0, 1), compute_uv=False).max() for c in (change, own["conv.weight"])
    ]
    assert row.delta_log_spectral_norm == pytest.approx(2 * np.log10(tops[0]), abs=1e-10)
    assert row.log_spectral_norm == pytest.approx(2 * np.log10(tops[1]), abs=1e-10)
    left = [
        np.linalg.svd(c.reshape(24, -1).T, full_matrices=False)[0][:, :10]
        for c in (own["conv.weight"], base["conv.weight"])
    ]
    assert row.subspace_overlap10 == pytest.approx(np.linalg.norm(left[0].T @ left[1]) ** 2 / 10, abs=1e-8)


def test_parts_that_share_bytes_are_compared_part_by_part(tmp_path):
    base = {
        "h.0.attn.c_attn.weight": trained_like((32, 96), 5),
        "h.1.attn.c_attn.weight": trained_like((32, 96), 6),
    }
    scaled = {name: w.copy() for name, w in base.items()}
    scaled["h.0.attn.c_attn.weight"][:, 32:64] *= 3
    for name, tensors in (("base", base), ("tuned", scaled)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "gpt2", "n_embd": 32, "n_head": 4}')
        save_file(tensors, tmp_path / name / "model.safetensors")
    rows = compare(tmp_path / "base", tmp_path / "tuned")
    found = {(row.tensor[:3], row.part): row.rel_delta for row in rows if row.status == "ok"}
    assert found == {
        ("h.0", "q"): 0,
        ("h.0", "k"): pytest.approx(2, rel=1e-6),
        ("h.0", "v"): 0,
        ("h.1", "q"): 0,
        ("h.1", "k"): 0,
        ("h.1", "v"): 0,
    }


# The bytes of pairs


class Watched(LocalSource):
    """A folder whose streams are noted, and may fail for one file."""

    def __init__(self, root, fails=None):
        super().__init__(root)
        self.streams, self._fails = [], fails

    def stream(self, file, spans):
        self.streams.append((file.path, list(spans)))
        for k, buffer in enumerate(super().stream(file, spans)):
            if self._fails and k >= 1:
                raise self._fails
            yield buffer


@pytest.fixture
def folders(tmp_path):
    names = [f"layers.{k}.weight" for k in range(4)]
    made = {name: trained_like((48, 32), k) for k, name in enumerate(names)}
    for name in ("base", "tuned"):
        (tmp_path / name).mkdir()
    save_file({f"model.{name}": w for name, w in made.items()}, tmp_path / "base/model.safetensors")
    save_file({name: w * np.float32(1.5) for name, w in made.items()}, tmp_path / "tuned/model.safetensors")
    return tmp_path


def planned(folders, bases=None):
    source, bases = LocalSource(folders / "tuned"), bases or LocalSource(folders / "base")
    base = plan_base(bases, bases.repository("acme/base"), ScanConfig())
    plan = plan_repository(source, source.repository("acme/tuned"), ScanConfig(), base=base)
    return source, plan


def outcomes(folders, bases):
    source, plan = planned(folders)
    return [out for unit in plan.units for out in scan_unit(source, unit, ScanConfig(), bases=bases)]


def test_a_base_in_the_same_order_is_one_stream(folders):
    bases = Watched(folders / "base")
    rows = outcomes(folders, bases)
    assert [row.base_tensor for row in rows] == [f"model.layers.{k}.weight" for k in range(4)]
    assert [(path, len(spans)) for path, spans in bases.streams] == [("model.safetensors", 4)]


def test_a_base_in_another_order_and_in_other_files_gives_the_same_rows(folders):
    expected = outcomes(folders, LocalSource(folders / "base"))
    made = {f"model.layers.{k}.weight": trained_like((48, 32), k) for k in range(4)}
    (folders / "base/model.safetensors").unlink()
    save_file({n: made[n] for n in list(made)[1::2]}, folders / "base/model-00001-of-00002.safetensors")
    save_file({n: made[n] for n in list(made)[::2]}, folders / "base/model-00002-of-00002.safetensors")
    bases = Watched(folders / "base")
    source, plan = planned(folders, bases)
    bases.streams.clear()
    found = [out for unit in plan.units for out in scan_unit(source, unit, ScanConfig(), bases=bases)]
    without = {"secs": None, "base_revision": None}
    assert [replace(row, **without) for row in found] == [replace(row, **without) for row in expected]
    assert len(bases.streams) == 4


def test_a_base_that_cannot_be_read_costs_the_comparison_only(folders):
    gone = SourceError(FailureKind.ETAG_CHANGED, "it changed", file="model.safetensors")
    found = outcomes(folders, Watched(folders / "base", gone))
    rows = [out for out in found if not isinstance(out, Failure)]
    failures = [out for out in found if isinstance(out, Failure)]
    assert [row.base_status for row in rows] == ["ok", "failed", "failed", "failed"]
    assert all(row.status == "ok" and row.alpha is not None for row in rows)
    assert rows[1].rel_delta is None
    assert {(f.stage, f.kind, f.retryable, f.only_of_base) for f in failures} == {
        ("compare", "etag_changed", False, True)
    }
    assert [f.tensor for f in failures] == [f"layers.{k}.weight" for k in (1, 2, 3)]
    assert "base acme/base@" in failures[0].message


def test_trouble_that_may_pass_is_raised(folders):
    passing = SourceError(FailureKind.HTTP_ERROR, "try again", retryable=True)
    with pytest.raises(SourceError, match="try again"):
        outcomes(folders, Watched(folders / "base", passing))


def test_a_base_with_nan_costs_the_comparison_only():
    broken = BASE["fc2.weight"].copy()
    broken[3, 4] = np.nan
    rows = {row.tensor: row for row in compare(BASE | {"fc2.weight": broken}, BASE)}
    assert (rows["fc2.weight"].status, rows["fc2.weight"].base_status) == ("ok", "failed")
    assert rows["fc1.weight"].base_status == "ok"


def test_nothing_to_read_is_no_stream(folders):
    assert list(streamed(LocalSource(folders), [], LocalSource(folders))) == []


def test_a_scan_in_a_notebook_finds_the_base_beside_a_local_fine_tune(tmp_path):
    for name, tensors in (("base", BASE), ("tuned", tuned(replaced))):
        (tmp_path / "acme" / name).mkdir(parents=True)
        save_file(tensors, tmp_path / "acme" / name / "model.safetensors")
    (tmp_path / "acme/tuned/README.md").write_text("---\nbase_model: acme/base\n---\n")
    rows = {row.tensor: row for row in scan(tmp_path / "acme/tuned")}
    assert (rows["fc2.weight"].base_repo_id, of_pairs(rows["fc2.weight"])) == ("acme/base", {"ft_unstable"})
    assert rows["fc1.weight"].rel_delta == 0
    assert {row.base_status for row in scan(tmp_path / "acme/base") if row.status == "ok"} == {"no_base"}


# Real training


@pytest.mark.slow
def test_v12_on_a_trained_net():
    """The fine-tunes of the definitions, made of a digits net; numbers within 20 %, signs and flags exact."""
    torch = pytest.importorskip("torch")
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x = torch.tensor(digits.data / 16 - 0.5, dtype=torch.float32)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1400]
    x, y = x[order], y[order]
    torch.manual_seed(0)
    relu = torch.nn.ReLU
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 256), relu(), torch.nn.Linear(256, 384), relu(), torch.nn.Linear(384, 10)
    )

    def train(model, data, labels, batch, lr, epochs, decay=0.0):
        sgd = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
        for _ in range(epochs):
            for some in torch.randperm(len(data)).split(batch):
                sgd.zero_grad()
                torch.nn.functional.cross_entropy(model(data[some]), labels[some]).backward()
                sgd.step()
        return model

    def row(model):
        return row_of(model.state_dict(), "2.weight", base.state_dict(), TRAPS)

    base = train(net, x, y, 32, 0.01, 15)
    few, labels = x[:200], y[:200]
    gentle = row(train(deepcopy(base), few, labels, 16, 0.003, 3))
    assert (gentle.rel_delta < 0.01, of_pairs(gentle)) == (True, set())
    wild = row(train(deepcopy(base), few, labels, 16, 0.2, 5))
    assert wild.rel_delta == pytest.approx(1.25, rel=0.2)
    assert wild.d_log_spectral_norm == pytest.approx(0.93, rel=0.2)
    assert (wild.alpha < 2.1, wild.d_num_traps, of_pairs(wild)) == (True, 1, {"ft_unstable"})
    memorised = row(train(deepcopy(base), few, labels[torch.randperm(200)], 16, 0.02, 40))
    assert memorised.rel_delta == pytest.approx(0.6, rel=0.2)
    assert memorised.subspace_overlap10 == pytest.approx(0.46, rel=0.2)
    assert "ft_unstable" in memorised.flags
    decayed = row(train(deepcopy(base), few, labels, 16, 0.02, 40, 0.05))
    assert (decayed.phase, decayed.rank0_frac) == ("RANK-COLLAPSE", pytest.approx(0.36, rel=0.2))


def test_a_copy_with_a_broken_matrix_is_not_said_to_be_the_base():
    limits = ScanConfig().thresholds
    assert [flag.kind for flag in model_findings(compare(BASE, dict(BASE)), limits)] == ["ft_noop"]
    broken = tuned(lambda w: np.where(w == w.max(), np.nan, w).astype("f4"))
    assert model_findings(compare(BASE, broken), limits) == ()
