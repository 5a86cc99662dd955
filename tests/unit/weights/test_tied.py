"""Second names of the embedding are skipped where config.json ties them, and only there."""

import pytest
from laid import laid

from scanner.weights.matrices import plan_matrices
from schemas.config import MatrixRules
from schemas.results import SkipReason

TIED = {"tie_word_embeddings": True}


def planned(shapes, settings, dtypes=(), **rules):
    tensors = laid({name: (dict(dtypes).get(name, "F32"), *shape) for name, shape in shapes.items()})
    return plan_matrices(tensors, MatrixRules(**rules), settings=settings)


def skipped(*args, **kwargs):
    rows = planned(*args, **kwargs)
    return [row.tensor.name for row in rows if row.skip is SkipReason.DUPLICATE_TIED]


LLAMA = {
    "lm_head.weight": (90, 32),
    "model.embed_tokens.weight": (90, 32),
    "model.norm.dense.weight": (32, 32),
}


@pytest.mark.parametrize(
    ("shapes", "copies"),
    [
        (LLAMA, ["lm_head.weight"]),
        ({"transformer.wte.weight": (90, 32), "lm_head.weight": (90, 32)}, ["lm_head.weight"]),
        (
            {
                "bert.embeddings.word_embeddings.weight": (90, 32),
                "bert.embeddings.position_embeddings.weight": (90, 32),
                "cls.predictions.decoder.weight": (90, 32),
            },
            ["cls.predictions.decoder.weight"],
        ),
        (
            {
                f"{name}.weight": (90, 32)
                for name in ("decoder.embed_tokens", "encoder.embed_tokens", "lm_head", "shared")
            },
            ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight"],
        ),
        ({"lm_head.weight": (90, 32), "model.embed_tokens.weight": (80, 32)}, []),
        ({"lm_head.weight": (90, 32)}, []),
        ({"model.embed_tokens.weight": (90, 32), "score.weight": (90, 32)}, []),
    ],
)
def test_second_names(shapes, copies):
    assert skipped(shapes, TIED) == copies


def test_another_type_is_not_a_copy():
    assert skipped(LLAMA, TIED, {"lm_head.weight": "F16"}) == []


@pytest.mark.parametrize(
    ("settings", "tied"),
    [
        ({}, False),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": "yes"}, False),
        ({"text_config": TIED}, True),
        ({"text_config": TIED, "tie_word_embeddings": False}, False),
        ({"text_config": "x", "tie_word_embeddings": True}, True),
    ],
)
def test_only_the_config_ties(settings, tied):
    assert skipped(LLAMA, settings) == (["lm_head.weight"] if tied else [])


def test_as_stored_both_names_have_rows():
    assert skipped(LLAMA, TIED, as_stored=True) == []


def test_a_copy_is_not_read_and_the_embedding_is():
    rows = {row.tensor.name: row for row in planned(LLAMA, TIED)}
    assert rows["lm_head.weight"].nbytes == 0
    assert rows["model.embed_tokens.weight"].skip is None
