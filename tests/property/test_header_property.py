"""The header parser against the safetensors reference: it accepts nothing the reference rejects."""

import json
import tempfile

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from scanner.weights.header import DTYPE_BITS, PREFIX, header_length, parse_header
from schemas.errors import FormatError
from schemas.refs import FileRef, RepoRef

REPO = RepoRef("org/model", "0" * 40)
LARGEST = 2**33

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12).filter(
    lambda n: n != "__metadata__"
)
dims = st.one_of(st.integers(0, 9), st.sampled_from([64, 1000, 4096]))
tensors = st.tuples(st.sampled_from(sorted(DTYPE_BITS)), st.lists(dims, max_size=4))
metadata = st.one_of(st.none(), st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3))
blank = st.text(" \n\r\t", max_size=9)


@pytest.fixture(scope="module")
def sparse():
    """Write a header and a hole of the wanted size, and ask the reference what it reads."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:

        def ask(raw, size):
            file.seek(0)
            file.truncate(0)
            file.write((len(raw).to_bytes(PREFIX, "little") + raw)[:size])
            file.truncate(size)
            file.flush()
            return reference(file.name)

        yield ask


def reference(path):
    try:
        with safe_open(path, "numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            return {name: (view.get_dtype(), tuple(view.get_shape())) for name, view in slices.items()}
    except SafetensorError:
        return None


def ours(raw, size):
    file = FileRef(REPO, "model.safetensors", size, "content")
    try:
        header_length(len(raw).to_bytes(PREFIX, "little"), file)
        header = parse_header(raw, file)
    except FormatError as error:
        assert error.file == file.path
        return None
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors}


def laid_out(contents):
    """A valid header table for {name: (dtype, shape)}, and the bytes of data it describes."""
    table, position = {}, 0
    for name, (dtype, shape) in contents.items():
        bits = DTYPE_BITS[dtype]
        for dim in shape:
            bits *= dim
        assume(bits % 8 == 0)
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + bits // 8]}
        position += bits // 8
    assume(position < LARGEST)
    return table, position


@st.composite
def valid(draw):
    """(table, header bytes, file size) of a valid file, entries in any order, padded with blanks."""
    table, data = laid_out(draw(st.dictionaries(names, tensors, max_size=5)))
    table = dict(draw(st.permutations(list(table.items()))))
    extra = draw(metadata)
    whole = table if extra is None else {"__metadata__": extra, **table}
    raw = draw(blank) + json.dumps(whole, ensure_ascii=draw(st.booleans())) + draw(blank)
    encoded = raw.encode("utf-8", "surrogatepass")
    return table, encoded, PREFIX + len(encoded) + data


quiet = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@quiet
@given(valid())
def test_a_valid_header_is_read_as_the_reference_reads_it(sparse, case):
    table, raw, size = case
    expected = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in table.items()}
    assert ours(raw, size) == expected
    assert sparse(raw, size) == expected


@quiet
@given(valid(), st.integers(-9, 9))
def test_a_file_of_another_size_is_refused(sparse, case, change):
    _, raw, size = case
    assume(change and size + change >= 0)
    assert ours(raw, size + change) is None
    assert sparse(raw, size + change) is None


hostile = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-2, 20),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(sorted(DTYPE_BITS)),
    st.lists(st.integers(-1, 9), max_size=9),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@quiet
@given(valid(), st.data())
def test_what_is_accepted_after_a_changed_field_the_reference_accepts(sparse, case, data):
    table, _, size = case
    assume(table)
    entry = table[data.draw(st.sampled_from(sorted(table)))]
    field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
    entry[field] = data.draw(hostile)
    raw = json.dumps(table).encode()
    accepted = ours(raw, size)
    assert accepted is None or accepted == sparse(raw, size)


@quiet
@given(valid(), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_what_is_accepted_after_random_bytes_the_reference_accepts(sparse, case, changes):
    _, raw, size = case
    broken = bytearray(raw)
    for place, byte in changes:
        broken[place % len(raw)] = byte
    accepted = ours(bytes(broken), size)
    assert accepted is None or accepted == sparse(bytes(broken), size)


@quiet
@given(valid(), st.integers(0), st.integers(0), st.binary(max_size=12))
def test_what_is_accepted_after_a_splice_the_reference_accepts(sparse, case, place, length, inserted):
    _, raw, size = case
    start = place % len(raw)
    broken = raw[:start] + inserted + raw[start + length % 20 :]
    new_size = size + len(broken) - len(raw)
    accepted = ours(broken, new_size)
    assert accepted is None or accepted == sparse(broken, new_size)


@quiet
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_header_or_a_format_error(raw):
    assert isinstance(ours(raw, PREFIX + len(raw)), dict | None)
