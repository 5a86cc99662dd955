"""Tables of scores come from spreadsheets and strangers: read whole, or refused with the line and the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.verbs import scores
from jobs.verbs.scores import no_such, read_csv
from schemas.errors import UsageError

TABLE = "repo_id,score,family\nacme/a,1.5,x\nacme/b, 2 ,x\nacme/c,,\n"


@pytest.fixture
def table(tmp_path):
    def write(content):
        path = tmp_path / "scores.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_numbers_texts_and_ids(table):
    read = read_csv(table(TABLE))
    assert read.numbers("score") == [1.5, 2.0, None]
    assert read.texts("family") == ["x", "x", None]
    assert read.ids() == ["acme/a", "acme/b", "acme/c"]


def test_models_may_be_called_so_too(table):
    assert read_csv(table("model,score\na,1\n")).ids() == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n"),
        TABLE.replace("acme/a", '"acme/a"'),
        TABLE.rstrip(),
        ",".join(["", TABLE]).replace("\n", "\n0,", 3),
    ],
)
def test_the_same_table_in_other_dress(table, content):
    read = read_csv(table(content))
    assert read.numbers("score") == [1.5, 2.0, None]
    assert read.ids() == ["acme/a", "acme/b", "acme/c"]


@pytest.mark.parametrize("cell", ["", " ", "NA", "n/a", "NaN", "None", "null", "-"])
def test_missing_numbers(table, cell):
    assert read_csv(table(f"model,score\na,{cell}\nb,1\n")).numbers("score") == [None, 1.0]


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999", "12 %", "=1+1", "\x1b[2J", "9" * 600 + "x"])
def test_what_is_no_number_is_refused_with_its_line(table, cell):
    read = read_csv(table(f"model,score\na,1\nb,{cell}\n"))
    with pytest.raises(UsageError, match=r"line 3, column score: .* is no number") as error:
        read.numbers("score")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"a,b\n1\n", "line 2 has 1 cells, the header has 2"),
        (b"a,b\n\n1,2,3\n", "line 3 has 3 cells"),
        (b"a,a\n1,2\n", "more than one column a"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        (b'a,b\n1,"2"3\n', "line 2:"),
        (b"a,b\n1," + b"x" * 200_000, "field larger than"),
        (b"a,b\n\xff\xfe,1\n", "is not UTF-8: byte 4"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(table, content, reason):
    with pytest.raises(UsageError, match=reason):
        read_csv(table(content))


def test_a_file_that_is_too_large_is_not_read(table, monkeypatch):
    monkeypatch.setattr(scores, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="above 1 MiB"):
        read_csv(table(b"a,b\n" + b"1,2\n" * (1 << 18)))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*nowhere"):
        read_csv(tmp_path / "nowhere.csv")


def test_a_column_that_is_not_there_brings_the_nearest(table):
    read = read_csv(table(TABLE))
    for ask in (read.numbers, read.texts):
        with pytest.raises(UsageError, match=r"is called scores; there is score$"):
            ask("scores")


def test_models_that_are_not_named_or_named_twice(table):
    with pytest.raises(UsageError, match="needs a column repo_id or model"):
        read_csv(table("name,score\na,1\n")).ids()
    with pytest.raises(UsageError, match="more than one row for a:"):
        read_csv(table("model,score\na,1\nb,1\na,2\n")).ids()


def test_cells_are_clean_and_short(table):
    (name,) = read_csv(table("model,score\n" + "a\x1b[2J\u202e" + "b" * 2000 + ",1\n")).ids()
    assert name.startswith("a\ufffd[2J\ufffdb")
    assert len(name) == scores.MAX_TEXT


def test_many_names_are_cut():
    message = str(no_such("column", "zzz", [f"long column {i}" for i in range(9)]))
    assert message.endswith("and 4 more")


@given(content=st.binary(max_size=200) | st.text(alphabet='a,"\n\r 1\x00', max_size=40).map(str.encode))
def test_no_bytes_raise_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "noise.csv"
    path.write_bytes(content)
    try:
        read = read_csv(path)
        for name in read.columns:
            read.numbers(name)
    except UsageError as error:
        assert "noise.csv" in str(error)
