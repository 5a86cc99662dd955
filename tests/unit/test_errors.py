"""The tree of errors, and errors that cross process borders."""

import pickle
import re

import pytest

from schemas import errors
from schemas.errors import (
    ConfigError,
    FormatError,
    HubspectraError,
    LakeError,
    NumericsError,
    ScanError,
    SourceError,
    TargetError,
    UsageError,
)
from schemas.results import FailureKind

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("kind", [ScanError, SourceError, FormatError, NumericsError])
@pytest.mark.parametrize("retryable", [None, True])
def test_an_error_survives_pickling_whole(kind, retryable):
    error = kind(
        FailureKind.HTTP_ERROR, "what happened", file="f", tensor="t", http_status=503, retryable=retryable
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    for name in ("kind", "message", "file", "tensor", "http_status", "retryable"):
        assert getattr(again, name) == getattr(error, name)
    assert str(again) == "what happened"
    assert again.retryable is bool(retryable)


def test_the_count_of_nonfinite_entries_survives_pickling():
    error = NumericsError(FailureKind.NONFINITE, "NaN")
    error.num_nonfinite = 3
    assert pickle.loads(pickle.dumps(error)).num_nonfinite == 3


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (TargetError, ValueError),
        (ConfigError, ValueError),
        (FormatError, ValueError),
        (NumericsError, ArithmeticError),
    ],
)
def test_errors_are_the_builtin_ones_a_caller_expects(kind, builtin):
    assert issubclass(kind, builtin)


def test_usage_and_scan_errors_are_apart():
    assert not issubclass(ScanError, UsageError)
    assert issubclass(LakeError, UsageError)


def test_the_drawn_tree_is_the_tree():
    """A line's depth in the docstring is the class's depth below HubspectraError."""
    drawn = re.findall(r"^((?:│   |    )*)[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    parents = {0: HubspectraError}
    for indent, name in drawn:
        depth = len(indent) // 4
        found = getattr(errors, name)
        assert parents[depth] in found.__bases__, name
        parents[depth + 1] = found
    assert {name for _, name in drawn} == {kind.__name__ for kind in CLASSES} - {"HubspectraError"}


def test_every_failure_has_a_sentence():
    for kind in FailureKind:
        assert kind.sentence
        assert kind.sentence[-1] != "."
