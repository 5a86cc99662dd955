"""Records made in bulk are those that their own constructors make."""

import pickle

import pytest
from nouns import ROW as PLACE

from schemas.models import ModelMetrics
from schemas.records import blank, changed, record, remade
from schemas.refs import FileRef, MatrixRef, RepoRef, TensorRef
from schemas.results import Role
from schemas.rows import Failure, LayerMetrics, RepositoryRow, RunRow

FILE = FileRef(RepoRef("a/b", "0" * 40), "model.safetensors", 100, "c")
TENSOR = TensorRef(FILE, "layer.weight", "F32", (4, 6), 0, 96)
ROW = changed(PLACE, alpha=2.5)
REF = MatrixRef(tensor=TENSOR, index=3, shape=(4, 6), start=0, stop=96, role=Role.K)


@record()
class Pair:
    first: int
    second: str = "two"


@pytest.mark.parametrize("one", [ROW, TENSOR, REF], ids=lambda one: type(one).__name__)
def test_a_record_comes_back_from_a_pickle_equal_and_of_its_class(one: object) -> None:
    back = pickle.loads(pickle.dumps(one))
    assert type(back) is type(one)
    assert back == one
    assert hash(back) == hash(one)


def test_all_values_in_order_make_the_record_that_keywords_make() -> None:
    assert remade(Pair, (1, "three")) == Pair(first=1, second="three")


def test_a_blank_filled_by_name_makes_the_record_that_keywords_make() -> None:
    values = blank(Pair)
    assert values == {"first": None, "second": "two"}
    values |= {"second": "three", "first": 1}
    assert remade(Pair, values.values()) == Pair(first=1, second="three")
    assert blank(Pair)["first"] is None


def test_a_blank_filled_with_another_name_makes_no_record() -> None:
    with pytest.raises(TypeError):
        remade(Pair, (blank(Pair) | {"third": 3}).values())


@pytest.mark.parametrize("values", [(1,), (1, "two", 3)])
def test_a_record_is_never_made_of_too_few_or_too_many_values(values: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        remade(Pair, values)


def test_a_change_makes_another_record_and_leaves_the_first_as_it_was() -> None:
    other = changed(ROW, alpha=3.0, flags=("under_trained",))
    assert (other.alpha, other.flags, other.tensor) == (3.0, ("under_trained",), "x.weight")
    assert ROW.alpha == 2.5
    assert not ROW.flags
    assert other != ROW


def test_a_change_of_no_field_is_an_error() -> None:
    with pytest.raises(AttributeError):
        changed(Pair(first=1), third=3)


def test_a_record_without_a_value_that_has_no_default_is_an_error() -> None:
    with pytest.raises(TypeError, match="first"):
        Pair()  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [LayerMetrics, RepositoryRow, Failure, RunRow, ModelMetrics, MatrixRef])
def test_records_hold_their_fields_and_nothing_else(kind: type) -> None:
    assert not hasattr(object.__new__(kind), "__dict__")
