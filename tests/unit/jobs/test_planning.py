"""`hubspectra plan` over a small lake: what it writes, where, and what it refuses."""

import json

import numpy as np
import pytest
import yaml
from running import run_cli
from safetensors.numpy import save_file

from jobs.engine.driver import Request, run_scan
from jobs.engine.progress import quiet_progress
from jobs.verbs.planning import layer_rows
from scanner.diagnosis.plans import PlanKind, make_plan
from scanner.sources.targets import parse_targets
from schemas.config import ScanConfig
from schemas.errors import UsageError

BLOCKS = 6


def matrix(random, power):
    """Eigenvalues that fall as a power: the larger it is, the heavier the tail."""
    return (random.standard_normal((80, 64)) * np.arange(1, 65) ** -power).astype("f4")


def save_model(folder, powers, seed=0):
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors = {f"layers.{i}.fc.weight": matrix(random, power) for i, power in enumerate(powers)}
    save_file({**tensors, "head.weight": matrix(random, 0)}, folder / "model.safetensors")


def scan(root, lake):
    request = Request(targets=parse_targets([str(root)]), lake=lake, config=ScanConfig(), engine="local")
    with quiet_progress() as silent:
        run_scan(request, silent)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """acme/spread, whose layers differ, acme/alike, whose do not, and acme/pipe of two sub-models."""
    root = tmp_path_factory.mktemp("models")
    save_model(root / "acme/spread", [0.2 * i for i in range(BLOCKS)])
    save_model(root / "acme/alike", [0.0] * BLOCKS)
    for seed, part in enumerate(("unet", "vae")):
        save_model(root / "acme/pipe" / part, [0.2 * i for i in range(BLOCKS)], seed)
    (root / "acme/pipe/model_index.json").write_text(
        json.dumps({"_class_name": "Pipe", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]})
    )
    lake = tmp_path_factory.mktemp("lakes") / "lake"
    scan(root, lake)
    return lake


def run(*arguments):
    ran = run_cli("plan", *arguments)
    return ran.code, ran.text, ran.err


def test_yaml_to_standard_output_holds_the_plan(lake):
    code, out, err = run("acme/spread", "--kind", "learning-rate", "--lake", lake, "--base", 0.01)
    found = yaml.safe_load(out)
    assert (code, err) == (0, "")
    assert (found["kind"], found["base"], found["reason"]) == ("learning-rate", 0.01, None)
    assert found["repo_id"] == "acme/spread"
    assert len(found["revision"]) == 40
    plan = make_plan(layer_rows(lake, "acme/spread"), PlanKind.LEARNING_RATE, base=0.01)
    assert [e["value"] for e in found["entries"]] == [e.value for e in plan.entries]
    assert found["entries"][1]["tensors"] == ["layers.1.fc.weight"]
    assert {e["value"] for e in found["entries"]} > {0.01}


def test_json_and_yaml_say_the_same(lake, tmp_path):
    texts = {}
    for form in ("yaml", "json"):
        code, texts[form], _ = run("acme/spread", "--kind", "wd", "--lake", lake, "--format", form)
        assert code == 0
    assert json.loads(texts["json"]) == yaml.safe_load(texts["yaml"])
    code, out, _ = run("acme/spread", "--kind", "wd", "--lake", lake, "-o", tmp_path / "plan.json")
    assert (code, out) == (0, "")
    assert (tmp_path / "plan.json").read_text() == texts["json"]
    run("acme/spread", "--kind", "wd", "--lake", lake, "-o", tmp_path / "plan.yml")
    assert (tmp_path / "plan.yml").read_text() == texts["yaml"]


@pytest.mark.parametrize(
    ("short", "long"), [("lr", "learning-rate"), ("wd", "weight-decay"), ("prune", "pruning")]
)
def test_short_kinds_are_the_long_ones(lake, short, long):
    arguments = ("acme/spread", "--lake", lake, "--alpha", "alpha_hill", "--kind")
    assert run(*arguments, short) == run(*arguments, long)
    assert yaml.safe_load(run(*arguments, short)[1])["kind"] == long


def test_pruning_by_blocks_keeps_the_total(lake):
    _, out, _ = run(
        "acme/spread",
        *("--kind", "pruning", "--lake", lake, "--alpha", "alpha_hill", "--base", 0.9, "--scale", 0.7, 1.3),
    )
    entries = yaml.safe_load(out)["entries"]
    assert [entry["name"] for entry in entries] == [f"layers.{i}" for i in range(BLOCKS)]
    assert {entry["params"] for entry in entries} == {80 * 64}
    assert sum(entry["value"] for entry in entries) / BLOCKS == pytest.approx(0.9)
    assert max(entry["value"] for entry in entries) == 1


def test_experts_are_whole_numbers_that_add_up(lake):
    _, out, _ = run(
        "acme/spread", "--kind", "experts", "--lake", lake, "--alpha", "alpha", "--base", 20, "--no-guard"
    )
    counts = [entry["value"] for entry in yaml.safe_load(out)["entries"]]
    assert sum(counts) == 20
    assert all(isinstance(count, int) for count in counts)


def test_a_uniform_plan_says_why(lake):
    code, out, err = run("acme/alike", "--kind", "lr", "--lake", lake)
    assert code == 0
    assert "alike" in yaml.safe_load(out)["reason"]
    assert err == f"uniform plan: {yaml.safe_load(out)['reason']}\n"


def test_a_column_not_in_the_lake_names_another(lake):
    code, out, err = run("acme/spread", "--kind", "pruning", "--lake", lake)
    assert (code, out) == (1, "")
    assert "alpha_peak_compat was not computed" in err
    assert "take alpha_hill or alpha instead (--alpha)" in err


def test_sub_models_are_asked_for_by_name(lake):
    code, _, err = run("acme/pipe", "--kind", "lr", "--lake", lake)
    assert code == 1
    assert "--component unet|vae" in err
    _, out, _ = run("acme/pipe", "--kind", "lr", "--lake", lake, "--component", "vae")
    assert len(yaml.safe_load(out)["entries"]) == BLOCKS + 1
    code, _, err = run("acme/pipe", "--kind", "lr", "--lake", lake, "--component", "text")
    assert code == 1
    assert "no component text; it has unet, vae" in err


def test_what_cannot_be_done_is_a_sentence(lake, tmp_path):
    assert run("acme/nothing", "--kind", "lr", "--lake", lake)[0] == 1
    assert run("acme/spread", "--kind", "lr", "--lake", tmp_path)[0] == 1
    assert run("acme/spread", "--kind", "depth", "--lake", lake)[0] == 2
    code, _, err = run("acme/spread", "--kind", "lr", "--lake", lake, "--beta", 2)
    assert code == 1
    assert "beta" in err
    code, _, err = run("acme/spread", "--kind", "lr", "--lake", lake, "-o", tmp_path / "no/plan.yml")
    assert code == 1
    assert "cannot write" in err


def test_rows_are_those_of_the_latest_scan(tmp_path):
    root, lake = tmp_path / "models", tmp_path / "lake"
    save_model(root / "acme/model", [0.0, 0.5])
    scan(root, lake)
    (root / "acme/model/model.safetensors").unlink()
    (root / "acme/model").rmdir()
    save_model(root / "acme/model", [0.0, 0.5, 1.0])
    scan(root, lake)
    assert len(layer_rows(lake, "acme/model")) == 4
    with pytest.raises(UsageError, match="acme/model"):
        layer_rows(lake, "acme/modle")
