"""`hubspectra correlate` from model cards, from a CSV beside a lake, and from a CSV alone."""

import csv
import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from running import rows, run_cli
from safetensors.numpy import save_file

from jobs.hub.server import HubServer
from scanner.sources.hub import HubSource
from scanner.sources.local import LocalSource

METRIC = "log_norm_mean"
SCORE = "text-classification/glue:sst2/accuracy"
FAMILIES = {"Alpha": 0, "Beta": 100}
MEMBERS = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two families of six; inside a family the score rises with the norm, from one to the other it falls."""
    root = tmp_path_factory.mktemp("models")
    noise = np.random.default_rng(0).standard_t(3, (40, 30))
    for family, offset in FAMILIES.items():
        for member in range(MEMBERS):
            folder = root / f"{family.lower()}/m{member}"
            folder.mkdir(parents=True)
            save_file(
                {"layer.weight": (noise * (1 + member + offset)).astype("f4")}, folder / "model.safetensors"
            )
            (folder / "config.json").write_text(json.dumps({"architectures": [family]}))
            (folder / "README.md").write_text(card(90 + member - offset / 2))
    return root


def card(accuracy):
    return f"""---
license: mit
model-index:
- name: m
  results:
  - task:
      type: text-classification
    dataset:
      name: GLUE SST-2
      type: glue
      config: sst2
    metrics:
    - type: accuracy
      value: {accuracy}
    - type: loss
      value: "0.1"
---
"""


@pytest.fixture(scope="module")
def lake(models, tmp_path_factory):
    lake = tmp_path_factory.mktemp("lake")
    assert run_cli("scan", models, "--lake", lake, "--engine", "local", "-q").code == 0
    return lake


@pytest.fixture
def correlate(lake):
    """Ask, and have the answer as rows by scope and stratum."""

    def ask(*words):
        ran = run_cli("correlate", *words, "--lake", lake, "--format", "json")
        assert ran.code == 0, ran.err
        return {(row["scope"], row["stratum"]): row for row in json.loads(ran.text)}

    return ask


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "scores.csv"
        path.write_text(text)
        return path

    return write


# Scores of model cards


def test_the_lake_keeps_the_scores_of_cards(lake):
    (found,) = rows(lake, "SELECT scores FROM repositories WHERE repo_id = 'alpha/m1'")
    assert found["scores"] == {SCORE: 91.0, "text-classification/glue:sst2/loss": 0.1}


def test_a_card_without_scores_is_null(models, tmp_path):
    folder = tmp_path / "models/acme/mute"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes((models / "alpha/m0/model.safetensors").read_bytes())
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    run_cli("scan", tmp_path / "models", "--lake", tmp_path / "lake", "-q")
    assert rows(tmp_path / "lake", "SELECT scores FROM repositories") == [{"scores": None}]
    ran = run_cli("correlate", METRIC, "accuracy", "--lake", tmp_path / "lake")
    assert ran.code == 1
    assert "no model card" in ran.err


def test_a_hub_states_the_scores_that_a_folder_does(models, tmp_path):
    shutil.copytree(models, tmp_path / "hub/models")
    with HubServer(tmp_path / "hub") as server:
        source = HubSource(server.endpoint)
        of_hub = source.repository("alpha/m1").facts.scores
        source.close()
    of_folder = LocalSource(models / "alpha/m1").repository("alpha/m1").facts.scores
    assert of_hub == of_folder
    assert dict(of_hub)[SCORE] == 91.0


@pytest.mark.parametrize("score", [SCORE, "accuracy", "SST2/Accuracy"])
def test_simpson_is_told(correlate, score):
    found = correlate(METRIC, score)
    assert [row["n"] for (scope, _), row in found.items() if scope == "stratum"] == [MEMBERS, MEMBERS]
    within, pooled = found["within", None], found["pooled", None]
    assert within["tau"] == pytest.approx(1)
    assert pooled["tau"] < 0
    assert (within["global_order"], within["sign_agreement"]) == (False, 1)
    assert within["verdict"].startswith(f"No one order of all models by {METRIC}: Simpson's paradox")


def test_lower_is_better_turns_the_score(correlate):
    found = correlate(METRIC, "accuracy", "--lower-is-better")
    assert found["within", None]["tau"] == pytest.approx(-1)
    assert found["pooled", None]["tau"] > 0


def test_another_column_makes_other_strata(correlate):
    found = correlate(METRIC, "accuracy", "--by", "architecture")
    assert {name for scope, name in found if scope == "stratum"} == {"Alpha", "Beta"}


def test_a_model_scanned_twice_counts_once(models, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[tail]\nmin_tail = 11\n")
    again = tmp_path / "again"
    for more in ((), ("--config", config)):
        assert run_cli("scan", models / "alpha", "--lake", again, "-q", *more).code == 0
    assert len(rows(again, "FROM repositories")) == 2 * MEMBERS
    ran = run_cli("correlate", METRIC, "accuracy", "--lake", again, "--format", "json")
    assert json.loads(ran.text)[-1]["n"] == MEMBERS


def test_a_repository_of_two_models_has_no_one_metric(models, tmp_path):
    folder = tmp_path / "models/acme/pipe"
    for part, member in (("unet", "m0"), ("vae", "m1")):
        (folder / part).mkdir(parents=True)
        data = (models / f"alpha/{member}/model.safetensors").read_bytes()
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(data)
        (folder / part / "config.json").write_text("{}")
    (folder / "model_index.json").write_text('{"_class_name": "Pipe"}')
    (folder / "README.md").write_text(card(1))
    lake = tmp_path / "lake"
    assert run_cli("scan", tmp_path / "models", "--lake", lake, "-q").code == 0
    assert len(rows(lake, "FROM repositories")) == 2
    ran = run_cli("correlate", METRIC, "accuracy", "--lake", lake, "--format", "json")
    assert "0 models, 2 left out" in ran.text


def test_a_lake_from_before_scores_has_none(lake, tmp_path):
    old = shutil.copytree(lake, tmp_path / "old")
    for part in (old / "repositories").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns("scores"), part)
    assert run_cli("leaderboard", "--lake", old).code == 0
    ran = run_cli("correlate", METRIC, "accuracy", "--lake", old)
    assert ran.code == 1
    assert "no model card" in ran.err


# A CSV beside the lake


def scores_csv(header="repo_id,score", value=lambda family, member: member, more=""):
    lines = [
        f"{family.lower()}/m{member},{value(family, member)}"
        for family in FAMILIES
        for member in range(MEMBERS)
    ]
    return "\n".join([header, *lines, more])


@pytest.mark.parametrize("header", ["repo_id,score", "model,score"])
def test_scores_of_a_csv_are_joined_by_the_models_name(correlate, table, header):
    found = correlate(METRIC, "score", "--csv", table(scores_csv(header, more="acme/unknown,7\n")))
    assert found["within", None]["tau"] == pytest.approx(1)
    assert found["pooled", None]["n"] == 2 * MEMBERS
    assert "1 left out" in found["within", None]["verdict"]


def test_the_strata_may_be_the_csvs(correlate, table):
    text = scores_csv(
        "repo_id,score,stratum", lambda family, member: f"{member},{'even' if member % 2 else 'odd'}"
    )
    found = correlate(METRIC, "score", "--csv", table(text))
    assert {name for scope, name in found if scope == "stratum"} == {"even", "odd"}
    named = correlate(METRIC, "score", "--csv", table(text), "--by", "architecture")
    assert {name for scope, name in named if scope == "stratum"} == {"Alpha", "Beta"}


# A CSV alone


@pytest.fixture
def simpson(table):
    lines = [f"m{s}{i},{10 * s + i},{i - 30 * s},f{s}" for s in range(3) for i in range(6)]
    return table("\n".join(["model,shape,accuracy,family", *lines]))


def ask_csv(path, *words, form="json"):
    return run_cli("correlate", *words, "--csv", path, "--lake", "no-lake", "--format", form)


def test_a_csv_with_both_columns_needs_no_lake(simpson):
    ran = ask_csv(simpson, "shape", "accuracy", "--by", "family")
    assert ran.code == 0
    *strata, within, pooled = json.loads(ran.text)
    assert [row["stratum"] for row in strata] == ["f0", "f1", "f2"]
    assert (within["tau"], within["global_order"]) == (pytest.approx(1), False)
    assert pooled["tau"] < 0


def test_every_format_tells_the_verdict(simpson):
    words = ("shape", "accuracy", "--by", "family")
    (as_json,) = (row["verdict"] for row in json.loads(ask_csv(simpson, *words).text) if row["verdict"])
    text = ask_csv(simpson, *words, form="csv").text
    (as_csv,) = (row["verdict"] for row in csv.DictReader(io.StringIO(text)) if row["verdict"])
    people = ask_csv(simpson, *words, form="table").text
    assert as_json == as_csv
    assert people.endswith(as_json + "\n")
    assert "(all together)" in people


def test_a_file_of_the_answer_holds_the_verdict(simpson, tmp_path):
    target = tmp_path / "answer.json"
    ran = ask_csv(simpson, "shape", "accuracy", "--by", "family", "-o", target)
    assert (ran.code, ran.text) == (0, "")
    assert any(row["verdict"] for row in json.loads(target.read_text()))


def test_the_default_stratum_of_a_csv_is_its_column_of_that_name(table):
    lines = [f"{i},{i},only" for i in range(6)]
    ran = ask_csv(table("\n".join(["x,y,stratum", *lines])), "x", "y")
    assert json.loads(ran.text)[0]["stratum"] == "only"


def test_names_from_a_file_do_not_reach_the_terminal_raw(table):
    lines = [f"{i},{i},\x1b[2J\u202eevil" for i in range(6)]
    ran = ask_csv(table("\n".join(["x,y,stratum", *lines])), "x", "y", form="table")
    assert ran.code == 0
    assert "evil" in ran.text
    assert "\x1b" not in ran.text
    assert "\u202e" not in ran.text


# What cannot be asked


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("alpha_hil_mean", "accuracy"), "there is alpha_hill_mean"),
        (("flags", "accuracy"), "no metric of models is called flags"),
        ((METRIC, "acuracy"), f"no score on the model cards is called acuracy; there is {SCORE}"),
        ((METRIC, "glue"), f"glue fits 2 scores; choose one, such as {SCORE}"),
        ((METRIC, "accuracy", "--by", "archtecture"), "no column of models is called archtecture"),
        ((f'{METRIC}"; DROP VIEW models; --', "accuracy"), "no metric of models"),
    ],
)
def test_names_that_are_not_there_are_refused_with_the_nearest(lake, words, reason):
    ran = run_cli("correlate", *words, "--lake", lake)
    assert (ran.code, ran.text) == (1, "")
    assert reason in ran.err


@pytest.mark.parametrize(
    ("text", "words", "reason"),
    [
        ("model,score\nx,1\n", (METRIC, "score"), "no model of"),
        ("name,score\nx,1\n", (METRIC, "score"), "needs a column repo_id or model"),
        ("model,score\nx,1\n", (METRIC, "scores"), "is called scores; there is score"),
        ("model,score\nx,1\n", ("scor", "score"), "there is score"),
        ("model,x,score\nx,1,1\n", ("x", "score"), "say with --by"),
        ("model,x,score\nx,1,1\n", ("x", "score", "--by", "famly"), "is called famly"),
        ("model,x,score\nx,one,1\n", ("x", "score", "--by", "model"), "line 2, column x"),
    ],
)
def test_tables_that_do_not_fit_are_refused(lake, table, text, words, reason):
    ran = run_cli("correlate", *words, "--csv", table(text), "--lake", lake)
    assert (ran.code, ran.text) == (1, "")
    assert reason in ran.err


def test_without_a_lake_it_says_how_to_make_one(tmp_path):
    ran = run_cli("correlate", METRIC, "accuracy", "--lake", tmp_path / "none")
    assert ran.code == 1
    assert "hubspectra scan" in ran.err
