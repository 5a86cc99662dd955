"""One test for each way a safetensors header can lie, on literal bytes, with the reference as witness."""

import pickle
from dataclasses import dataclass

import pytest
from safetensors import SafetensorError, safe_open

from scanner.weights.header import (
    DTYPE_BITS,
    HARD_MAX_HEADER,
    MAX_HEADER,
    MAX_TENSORS,
    PREFIX,
    header_length,
    parse_header,
)
from schemas.errors import FormatError
from schemas.refs import FileRef, RepoRef
from schemas.results import FailureKind

REPO = RepoRef("org/model", "0123456789abcdef0123456789abcdef01234567")


def file_of(size):
    return FileRef(REPO, "model.safetensors", size, "content")


def parse(raw, data):
    return parse_header(raw, file_of(PREFIX + len(raw) + data))


def reference_accepts(path, raw, data):
    with path.open("wb") as out:
        out.write(len(raw).to_bytes(PREFIX, "little") + raw)
        out.truncate(PREFIX + len(raw) + data)
    try:
        with safe_open(path, "numpy") as opened:
            list(opened.keys())
    except SafetensorError:
        return False
    return True


@dataclass(frozen=True)
class Crafted:
    name: str
    raw: bytes
    data: int
    says: str


def one(fields, name=b"a"):
    return b'{"' + name + b'":{' + fields + b"}}"


BROKEN = [
    Crafted(
        "overlap",
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
        6,
        "overlaps the tensor before it: it begins at offset 2, expected 4",
    ),
    Crafted(
        "shared bytes",
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        4,
        "overlaps",
    ),
    Crafted(
        "gap",
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}}',
        6,
        "leaves a hole before it: it begins at offset 5, expected 4",
    ),
    Crafted("hole at start", one(b'"dtype":"U8","shape":[1],"data_offsets":[1,2]'), 2, "leaves a hole"),
    Crafted(
        "out of bounds",
        one(b'"dtype":"U8","shape":[4398046511104],"data_offsets":[0,4398046511104]'),
        4,
        "truncated: the tensors end at byte 43980465",
    ),
    Crafted("truncated", one(b'"dtype":"F32","shape":[2],"data_offsets":[0,8]'), 7, "truncated"),
    Crafted("trailing bytes", one(b'"dtype":"F32","shape":[2],"data_offsets":[0,8]'), 9, "trailing bytes"),
    Crafted("trailing bytes without tensors", b"{}", 1, "trailing bytes"),
    Crafted("negative offset", one(b'"dtype":"U8","shape":[1],"data_offsets":[-1,0]'), 0, "has -1, expected"),
    Crafted("offsets reversed", one(b'"dtype":"U8","shape":[0],"data_offsets":[1,0]'), 1, "begin <= end"),
    Crafted("one offset", one(b'"dtype":"U8","shape":[1],"data_offsets":[1]'), 1, "expected a list of 2"),
    Crafted("three offsets", one(b'"dtype":"U8","shape":[1],"data_offsets":[0,1,1]'), 1, "a list of 2"),
    Crafted(
        "bool offset", one(b'"dtype":"U8","shape":[1],"data_offsets":[false,1]'), 1, "data_offsets has False"
    ),
    Crafted(
        "size below shape",
        one(b'"dtype":"F32","shape":[2,2],"data_offsets":[0,12]'),
        12,
        "offsets span 12 bytes, F32 [2, 2] needs 16 bytes",
    ),
    Crafted("size above shape", one(b'"dtype":"F32","shape":[],"data_offsets":[0,8]'), 8, "needs 4 bytes"),
    Crafted("empty tensor with bytes", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,1]'), 1, "needs 0"),
    Crafted("negative shape", one(b'"dtype":"U8","shape":[-1],"data_offsets":[0,1]'), 1, "dimension -1"),
    Crafted("bool shape", one(b'"dtype":"U8","shape":[true],"data_offsets":[0,1]'), 1, "dimension True"),
    Crafted("float shape", one(b'"dtype":"U8","shape":[1.0],"data_offsets":[0,1]'), 1, "the number 1.0"),
    Crafted("minus zero", one(b'"dtype":"U8","shape":[-0],"data_offsets":[0,0]'), 0, "the number -0"),
    Crafted("string shape", one(b'"dtype":"U8","shape":["1"],"data_offsets":[0,1]'), 1, "dimension '1'"),
    Crafted("shape no list", one(b'"dtype":"U8","shape":1,"data_offsets":[0,1]'), 1, "shape is 1"),
    Crafted(
        "overflow",
        one(b'"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]'),
        0,
        "overflows: expected fewer than 2^63",
    ),
    Crafted(
        "overflow before a zero",
        one(b'"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]'),
        0,
        "overflows",
    ),
    Crafted(
        "overflow after a zero",
        one(b'"dtype":"U8","shape":[0,18446744073709551616],"data_offsets":[0,0]'),
        0,
        "overflows",
    ),
    Crafted(
        "5,000 digits", one(b'"dtype":"U8","shape":[1' + b"0" * 5000 + b'],"data_offsets":[0,1]'), 1, "number"
    ),
    Crafted("half a byte", one(b'"dtype":"F4","shape":[3],"data_offsets":[0,2]'), 2, "12 bits, which is no"),
    Crafted("unknown dtype", one(b'"dtype":"F128","shape":[1],"data_offsets":[0,16]'), 16, "dtype is 'F128'"),
    Crafted("dtype no string", one(b'"dtype":["U8"],"shape":[1],"data_offsets":[0,1]'), 1, "a list of 1"),
    Crafted("dtype missing", one(b'"shape":[1],"data_offsets":[0,1]'), 1, "dtype is null or missing"),
    Crafted("shape missing", one(b'"dtype":"U8","data_offsets":[0,1]'), 1, "shape is null or missing"),
    Crafted("offsets missing", one(b'"dtype":"U8","shape":[1]'), 1, "data_offsets is null or missing"),
    Crafted("null entry", b'{"a":null}', 0, "entry is null or missing, expected an object"),
    Crafted("number entry", b'{"a":7}', 0, "entry is 7"),
    Crafted("bad UTF-8", one(b'"dtype":"U8","shape":[1],"data_offsets":[0,1]', b"\xff"), 1, "utf-8"),
    Crafted(
        "encoded surrogate",
        one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', b"\xed\xa0\x80"),
        0,
        "utf-8",
    ),
    Crafted(
        "lone surrogate", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', rb"\ud800"), 0, "surrogates"
    ),
    Crafted("lone surrogate in metadata", rb'{"__metadata__":{"a":"\udfff"}}', 0, "surrogates"),
    Crafted(
        "lone surrogate in an extra key",
        one(rb'"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":["\ud800"]'),
        0,
        "surrogates",
    ),
    Crafted("BOM", b"\xef\xbb\xbf{}", 0, "starts with '\\ufeff', expected '{'"),
    Crafted("NUL padding", b"{}\0\0\0\0\0\0", 0, "Extra data"),
    Crafted("no-break space", b"{}\xc2\xa0", 0, "Extra data"),
    Crafted("second object", b"{}{}", 0, "Extra data"),
    Crafted("array", b"[]", 0, "starts with '[', expected '{'"),
    Crafted("blank", b"        ", 0, "expected '{'"),
    Crafted("unterminated", b'{"a":', 0, "Expecting value"),
    Crafted(
        "raw control character", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', b"\n"), 0, "control"
    ),
    Crafted("NaN", b'{"a":NaN}', 0, "the number NaN"),
    Crafted("huge exponent", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1e999'), 0, "1e999"),
    Crafted("nested arrays", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 0, "nested too deep"),
    Crafted(
        "nested arrays in an extra key",
        one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":' + b"[" * 150 + b"]" * 150),
        0,
        "key 'x' is nested too deep",
    ),
    Crafted(
        "number in metadata", b'{"__metadata__":{"step":1}}', 0, "__metadata__ 'step' is 1, expected a string"
    ),
    Crafted("metadata no object", b'{"__metadata__":[["a","b"]]}', 0, "__metadata__ is a list of 1"),
    Crafted(
        "conflicting duplicate",
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        2,
        "key 'a' occurs twice",
    ),
    Crafted(
        "field twice", one(b'"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]'), 1, "'dtype' occurs"
    ),
    Crafted("two metadata", b'{"__metadata__":{},"__metadata__":{}}', 0, "'__metadata__' occurs twice"),
]

STRICTER = [
    Crafted(
        "identical duplicate",
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
        "key 'a' occurs twice",
    ),
    Crafted(
        "conflicting duplicate of which the last fits",
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        2,
        "key 'a' occurs twice",
    ),
    Crafted("duplicate in metadata", b'{"__metadata__":{"a":"1","a":"2"}}', 0, "key 'a' occurs twice"),
    Crafted("entry as a list", b'{"a":["U8",[1],[0,1]]}', 1, "entry is a list of 3, expected an object"),
    Crafted(
        "nine dimensions",
        one(b'"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]'),
        1,
        "at most 8",
    ),
    Crafted(
        "NUL in a name", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', rb"a\u0000"), 0, "control"
    ),
    Crafted(
        "escape in a name", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', rb"\u001b[2J"), 0, "'\\x1b["
    ),
    Crafted(
        "long name",
        one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0]', b"n" * 513),
        0,
        "has 513 characters",
    ),
    Crafted(
        "deep extra",
        one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":' + b"[" * 20 + b"]" * 20),
        0,
        "too deep",
    ),
    Crafted("float in an extra key", one(b'"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":0.5'), 0, "0.5"),
]


@pytest.mark.parametrize("crafted", BROKEN + STRICTER, ids=lambda crafted: crafted.name)
def test_crafted_header_is_rejected_with_its_reason(crafted):
    with pytest.raises(FormatError) as caught:
        parse(crafted.raw, crafted.data)
    error = caught.value
    assert crafted.says in error.message
    assert error.kind is FailureKind.BAD_HEADER
    assert error.file == "model.safetensors"
    assert error.message.startswith("org/model@0123456789ab model.safetensors")
    assert len(error.message) < 400
    assert error.message.isprintable()
    assert not error.retryable


@pytest.mark.parametrize("crafted", BROKEN, ids=lambda crafted: crafted.name)
def test_the_reference_rejects_it_too(crafted, tmp_path):
    assert not reference_accepts(tmp_path / "crafted.safetensors", crafted.raw, crafted.data)


@pytest.mark.parametrize("crafted", STRICTER, ids=lambda crafted: crafted.name)
def test_the_reference_is_laxer_here(crafted, tmp_path):
    assert reference_accepts(tmp_path / "crafted.safetensors", crafted.raw, crafted.data)


def test_tensors_come_in_order_of_offset_with_absolute_places():
    raw = (
        b'{"__metadata__":{"format":"pt"},"last":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},'
        b'"first":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    )
    header = parse(raw, 20)
    base = PREFIX + len(raw)
    places = [(t.name, t.dtype, t.shape, t.start, t.stop) for t in header.tensors]
    assert places == [
        ("first", "F32", (2,), base, base + 8),
        ("last", "BF16", (2, 3), base + 8, base + 20),
    ]
    assert header.metadata == {"format": "pt"}
    assert header.notes == ()
    assert header.tensors[1].nbytes == 12


@pytest.mark.parametrize("raw", [b"{}", b" \t\r\n{} \n", b'{"__metadata__":null}', b'{"__metadata__":{}}'])
def test_a_file_without_tensors_is_legal(raw):
    header = parse(raw, 0)
    assert header.tensors == ()
    assert header.metadata == {}


def test_empty_tensors_and_scalars_are_legal_anywhere():
    raw = (
        b'{"z":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        b'"e":{"dtype":"F16","shape":[7,0],"data_offsets":[4,4]}}'
    )
    assert [t.name for t in parse(raw, 4).tensors] == ["z", "s", "e"]


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_has_the_size_the_reference_gives_it(dtype, tmp_path):
    size = DTYPE_BITS[dtype]
    raw = one(b'"dtype":"%b","shape":[2,4],"data_offsets":[0,%d]' % (dtype.encode(), size))
    assert parse(raw, size).tensors[0].nbytes == size
    assert reference_accepts(tmp_path / "dtype.safetensors", raw, size)


def test_unicode_and_path_like_names_are_only_names():
    raw = one(b'"dtype":"U8","shape":[1],"data_offsets":[0,1]', rb"../\ud83d\ude00/" + "größe".encode())
    assert parse(raw, 1).tensors[0].name == "../😀/größe"


def test_ignored_keys_are_noted_once():
    raw = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"crc":12},'
        b'"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2],"crc":[1,null,{"x":true}]}}'
    )
    assert parse(raw, 2).notes == ("key 'crc' ignored in 2 entries",)


def test_one_tensor_too_many():
    entries = b",".join(
        b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(MAX_TENSORS + 1)
    )
    with pytest.raises(FormatError, match="250001 tensors, expected at most 250000"):
        parse(b"{" + entries + b"}", 0)


def test_a_bomb_of_empty_lists_is_counted_before_it_is_parsed():
    with pytest.raises(FormatError, match="lists and objects, expected at most"):
        parse(b'{"a":[' + b"[]," * 1_100_000 + b"[]]}", 0)


def test_the_error_names_the_tensor_and_survives_pickling():
    raw = one(b'"dtype":"F32","shape":[2],"data_offsets":[0,4]', b"layer.weight")
    with pytest.raises(FormatError) as caught:
        parse(raw, 4)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.kind, copy.file, copy.tensor) == (
        FailureKind.BAD_HEADER,
        "model.safetensors",
        "layer.weight",
    )


def test_length_of_a_sound_file():
    assert header_length((2).to_bytes(8, "little"), file_of(10)) == 2
    assert header_length((100).to_bytes(8, "little") + b"{", file_of(5000)) == 100


@pytest.mark.parametrize(
    ("first8", "size", "says"),
    [
        (b"", 0, "file has 0 bytes, expected at least 10"),
        (b"\x02\0\0\0\0\0\0", 7, "file has 7 bytes, expected at least 10"),
        ((0).to_bytes(8, "little"), 100, "header says 0 bytes, expected at least 2"),
        ((1).to_bytes(8, "little"), 100, "header says 1 bytes, expected at least 2"),
        (
            (93).to_bytes(8, "little"),
            100,
            "header says 93 bytes, file has 100: truncated or not a safetensors file",
        ),
        (b"/models/", 50, "file has 50: truncated or not a safetensors file"),
        (b"\xff" * 8, 2**50, "header says 18446744073709551615 bytes, file has 1125899906842624"),
        ((MAX_HEADER + 1).to_bytes(8, "little"), 2**40, "25000001 bytes, expected at most 25000000"),
    ],
)
def test_lengths_that_are_refused(first8, size, says):
    with pytest.raises(FormatError) as caught:
        header_length(first8, file_of(size))
    assert caught.value.kind is FailureKind.BAD_HEADER
    assert says in caught.value.message
    assert caught.value.file == "model.safetensors"


def test_the_limit_can_be_raised_but_not_above_the_reference():
    n = (HARD_MAX_HEADER).to_bytes(8, "little")
    assert header_length(n, file_of(2**40), limit=2**62) == HARD_MAX_HEADER
    with pytest.raises(FormatError, match="expected at most 100000000"):
        header_length((HARD_MAX_HEADER + 1).to_bytes(8, "little"), file_of(2**40), limit=2**62)


def test_a_git_lfs_pointer_has_its_own_kind():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 90868376\n"
    with pytest.raises(FormatError, match="git lfs pull") as caught:
        header_length(pointer[:8], file_of(len(pointer)))
    assert caught.value.kind is FailureKind.LFS_POINTER
