"""Cards are written by strangers: facts come out, or nothing does, but never an exception."""

import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.sources.card import (
    MAX_FRONT_MATTER,
    MAX_TEXT,
    bounded_card,
    facts_from_card,
    facts_from_readme,
)
from schemas.refs import RepoFacts

README = b"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
base_model: acme/root
tags:
- llama
- 7
released: 2024-05-06
---
# Title
license: not this one
"""


def test_facts_of_a_readme():
    facts = facts_from_readme(README)
    assert (facts.license, facts.base_model) == ("apache-2.0", "acme/root")
    assert (facts.library_name, facts.pipeline_tag) == ("transformers", "text-generation")
    assert facts.tags == ("llama",)
    assert facts.card["tags"] == ["llama", 7]
    assert facts.card["released"] == "2024-05-06"
    assert (facts.downloads, facts.likes, facts.last_modified) == (None, None, None)


@pytest.mark.parametrize(
    ("stated", "tokens"),
    [
        (15 * 10**12, 15 * 10**12),
        ("15T", 15 * 10**12),
        (" 1.4 t ", 1_400_000_000_000),
        ("300B", 300 * 10**9),
        ("250M", 250_000_000),
        ("many", None),
        (-1, None),
        (True, None),
        ("9" * 40, None),
        (["1T"], None),
    ],
)
def test_training_tokens_where_the_card_gives_a_number(stated, tokens):
    assert facts_from_card({"training_tokens": stated}).tokens == tokens


@pytest.mark.parametrize(
    "readme",
    [
        b"\xef\xbb\xbf---\nlicense: mit\n---\n",
        b"---\r\nlicense: mit\r\n---\r\ntext",
        b"---  \nlicense: mit\n---",
        b"---\nlicense: mit\nnote: |\n  a\n  --- b\n---\nlicense: no",
    ],
)
def test_front_matter_as_people_write_it(readme):
    assert facts_from_readme(readme).license == "mit"


@pytest.mark.parametrize(
    "readme",
    [
        b"",
        b"# no card",
        b"text\n---\nlicense: mit\n---\n",
        b"---\nlicense: mit\n",
        b"---\n---\n",
        b"---\n- a list\n---\n",
        b"---\njust text\n---\n",
        b"---\na: b: c\n---\n",
        b"---\na: \x00\n---\n",
        b"---\n\xff\xfe: [\n---\n",
        b"---\n!!python/object/apply:os.system [id]\n---\n",
        b"---\n? [a, list]\n: key\n---\n",
        b"---\na: 2024-99-99\n---\n",
        b"---\na: " + b"9" * 5000 + b"\n---\n",
        b"---\na: " + b"1:" * 400 + b"1.5\n---\n",
        b"---\na: " + b"[" * 20_000 + b"\n---\n",
        b"---\na: &x [1]\nb: *x\n---\n",
        b"---\na: &a {k: v}\nb:\n  <<: [*a, *a]\n---\n",
        b"---\na: " + b"x" * MAX_FRONT_MATTER + b"\n---\n",
    ],
)
def test_what_is_no_card(readme):
    assert facts_from_readme(readme) == RepoFacts()


def test_long_evaluation_results_do_not_hide_the_rest():
    results = b"model-index:\n- name: m\n  results:\n" + b"  - value: 1\n\n" * MAX_FRONT_MATTER
    facts = facts_from_readme(b"---\nlicense: mit\n" + results + b"base_model: acme/root\n---\n")
    assert facts.card == {"license": "mit", "base_model": "acme/root"}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("acme/root", "acme/root"),
        (["acme/one", "acme/two"], "acme/one"),
        ([None, 3, "", "acme/two"], "acme/two"),
        ([], None),
        ({"name": "acme/root"}, None),
        (7, None),
        ("  ", None),
    ],
)
def test_base_model(stated, expected):
    assert facts_from_card({"base_model": stated}).base_model == expected


def test_several_licences_are_all_named():
    assert facts_from_card({"license": ["mit", "apache-2.0", None]}).license == "mit, apache-2.0"


def test_the_hub_overrules_the_card_and_its_tags_stand_in():
    moment = datetime(2024, 5, 6, tzinfo=UTC)
    info = {
        "library_name": "diffusers",
        "downloads": 5,
        "likes": 0,
        "last_modified": moment,
        "tags": ["license:mit", "base_model:acme/root", "base_model:finetune:acme/root"],
    }
    facts = facts_from_card({"library_name": "peft", "pipeline_tag": "fill-mask", "tags": ["own"]}, info)
    assert (facts.library_name, facts.pipeline_tag) == ("diffusers", "fill-mask")
    assert (facts.license, facts.base_model) == ("mit", "acme/root")
    assert (facts.downloads, facts.likes, facts.last_modified) == (5, 0, moment)
    assert facts.tags == tuple(info["tags"])


@pytest.mark.parametrize("count", [-1, 1 << 63, 1.5, True, "9", None, math.nan])
def test_counts_that_are_none(count):
    assert facts_from_card({}, {"downloads": count}).downloads is None


def test_times_are_aware():
    assert facts_from_card({}, {"last_modified": datetime(2024, 5, 6)}).last_modified == datetime(
        2024, 5, 6, tzinfo=UTC
    )
    assert facts_from_card({}, {"last_modified": "2024-05-06"}).last_modified is None


def test_texts_are_clean_and_short():
    facts = facts_from_card({"license": "a\x1b[2J\ud800\n" + "b" * 2000})
    assert facts.license is not None
    assert facts.license.startswith("a\ufffd[2J\ufffd\ufffdb")
    assert len(facts.license) == MAX_TEXT


def test_a_card_keeps_only_small_plain_values():
    loop: list[object] = []
    loop.append(loop)
    card = {
        "text": "x" * 2000,
        "number": 1.5,
        "huge": 1 << 70,
        "nan": math.nan,
        "none": None,
        "day": date(2024, 5, 6),
        "object": object(),
        "nested": {"a": [1, {"b": True}], 3: "no text key"},
        "long": list(range(1000)),
        "loop": loop,
        5: "no text key",
    }
    assert bounded_card(card) == {
        "text": "x" * MAX_TEXT,
        "number": 1.5,
        "huge": None,
        "nan": None,
        "day": "2024-05-06",
        "object": None,
        "nested": {"a": [1, {"b": True}]},
    }
    assert len(bounded_card({f"k{i}": i for i in range(1000)})) == 128


@given(st.binary(max_size=200))
def test_no_bytes_raise(noise):
    for readme in (noise, b"---\n" + noise + b"\n---\n"):
        assert isinstance(facts_from_readme(readme), RepoFacts)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner)
        ),
        max_leaves=8,
    )
)
def test_no_value_raises(value):
    card = {name: value for name in ("license", "base_model", "tags", "library_name", "other")}
    for stated in (value, card):
        assert isinstance(facts_from_card(stated, card), RepoFacts)
