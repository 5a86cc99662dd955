"""Evaluation results on cards are anyone's claims in anyone's shape: names and finite numbers come out."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scanner.sources.card import (
    MAX_EVALUATIONS,
    MAX_SCORES,
    MAX_TEXT,
    facts_from_card,
    facts_from_readme,
)


def result(value, task="text-classification", metric="accuracy", **dataset):
    return {
        "task": {"type": task, "name": "A task"},
        "dataset": {"type": "glue", "name": "GLUE"} | dataset,
        "metrics": [{"type": metric, "value": value, "name": "A metric"}],
    }


def index(*results):
    return [{"name": "model", "results": list(results)}]


def scores(model_index):
    return dict(facts_from_card({}, {"model_index": model_index}).scores)


def readme(model_index, *more):
    evaluations = yaml.safe_dump({"model-index": model_index}, sort_keys=False)
    return "\n".join(["---", "license: mit", evaluations.rstrip(), *more, "---", "# Title"]).encode()


def test_a_score_is_named_by_ids_of_task_dataset_and_metric():
    assert scores(index(result(0.9))) == {"text-classification/glue/accuracy": 0.9}


def test_the_configuration_of_a_dataset_is_part_of_its_name():
    found = scores(
        index(result(0.9, config="sst2"), result(0.8, config="mnli"), result(0.7, config="default"))
    )
    assert found == {
        "text-classification/glue:sst2/accuracy": 0.9,
        "text-classification/glue:mnli/accuracy": 0.8,
        "text-classification/glue/accuracy": 0.7,
    }


def test_names_stand_in_for_ids_and_a_question_mark_for_both():
    assert scores([{"results": [{"metrics": [{"name": "Accuracy", "value": 1}]}]}]) == {"?/?/Accuracy": 1.0}
    assert scores([{"results": [{"metrics": [{"value": 1}]}]}]) == {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (91, 91.0),
        ("91.5", 91.5),
        (" 9e1 ", 90.0),
        (-0.5, -0.5),
        (True, None),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        ("inf", None),
        ("91.5 %", None),
        ("257.44 +/- 20.98", None),
        ("9" * 400, None),
        (1 << 70, None),
        pytest.param(1 << 20_000, None, id="beyond text"),
        ([91.5], None),
        ({"en": 91.5}, None),
    ],
)
def test_values(value, expected):
    assert scores(index(result(value))).get("text-classification/glue/accuracy") == expected


def test_one_name_with_two_values_is_no_score():
    assert scores(index(result(0.9), result(0.8), result(0.7, metric="f1"))) == {
        "text-classification/glue/f1": 0.7
    }
    assert scores(index(result(0.9), result(0.9))) == {"text-classification/glue/accuracy": 0.9}


def test_two_models_on_one_card_have_no_score_where_they_differ():
    assert scores([*index(result(0.9)), *index(result(0.8))]) == {}


def test_names_are_clean_and_short():
    (name,) = scores(index(result(1, metric="a\x1b[2J" + "m" * 2000, type="d\n" * 600)))
    assert len(name) <= MAX_TEXT
    assert name.isprintable()


def test_scores_are_bounded():
    found = facts_from_card({}, {"model_index": index(*(result(i, metric=f"m{i}") for i in range(3000)))})
    assert len(found.scores) == MAX_SCORES


def test_a_readme_states_scores_beside_the_rest_of_its_card():
    facts = facts_from_readme(
        readme(index(result(0.9), result("0.8", config="sst2")), "base_model: acme/root")
    )
    assert dict(facts.scores) == {
        "text-classification/glue/accuracy": 0.9,
        "text-classification/glue:sst2/accuracy": 0.8,
    }
    assert (facts.license, facts.base_model) == ("mit", "acme/root")
    assert "model-index" not in facts.card


@pytest.mark.parametrize(
    "evaluations",
    [
        "model-index: &x [*x]",
        "model-index: [",
        "model-index:\n- name: a: b: c",
        "model-index: text",
        pytest.param("model-index:\n- name: " + "x" * MAX_EVALUATIONS, id="long"),
        pytest.param("model-index:\n- results:\n  - metrics: " + "[" * 5000, id="deep"),
        "model-index: !!python/object/apply:os.system [id]",
    ],
)
def test_broken_evaluations_leave_the_rest_of_the_card(evaluations):
    text = f"---\nlicense: mit\n{evaluations}\nbase_model: acme/root\n---\n".encode()
    facts = facts_from_readme(text)
    assert facts.scores == ()
    assert (facts.license, facts.base_model) == ("mit", "acme/root")
    assert facts.card == {"license": "mit", "base_model": "acme/root"}


def test_a_card_as_a_mapping_states_scores_too():
    assert dict(facts_from_card({"model-index": index(result(0.9))}).scores) == {
        "text-classification/glue/accuracy": 0.9
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "type", "results", "task", "dataset", "metrics", "value", "config"]),
            inner,
        )
    ),
    max_leaves=20,
)


@given(anything, anything)
def test_no_shape_raises_and_all_scores_are_finite(whole, part):
    for stated in (whole, [{"results": whole}], [{"results": [{"metrics": [part], "task": whole}]}]):
        for name, value in facts_from_card({}, {"model_index": stated}).scores:
            json.dumps([name, value], allow_nan=False)
            assert isinstance(value, float)
