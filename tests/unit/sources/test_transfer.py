"""Patience and pace, without a network."""

import pytest

from scanner.sources.transfer import Pace, Patience, RateLimited, TransferPolicy, UnreachableError
from schemas.errors import SourceError
from schemas.results import FailureKind

POLICY = TransferPolicy(
    attempts=3, backoff=0.0, progress=100, rate_limit_margin=0.0, rate_limit_patience=0.03
)
CUT = SourceError(FailureKind.STALLED, "cut", retryable=True)


def limited(wait):
    error = RateLimited(FailureKind.HTTP_ERROR, "limited", http_status=429, retryable=True)
    error.wait = wait
    return error


def test_the_last_attempt_raises_what_went_wrong():
    patience = Patience(POLICY)
    patience.after(CUT)
    patience.after(CUT)
    with pytest.raises(SourceError) as caught:
        patience.after(CUT)
    assert caught.value is CUT


def test_a_hub_that_never_answered_has_fewer_attempts():
    patience = Patience(TransferPolicy(attempts=9, first_attempts=2, backoff=0.0))
    unheard = UnreachableError(FailureKind.HTTP_ERROR, "refused", retryable=True)
    patience.after(unheard)
    with pytest.raises(UnreachableError):
        patience.after(unheard)


def test_what_cannot_get_better_is_raised_at_once():
    with pytest.raises(SourceError, match="gone"):
        Patience(POLICY).after(SourceError(FailureKind.REVISION_GONE, "gone"))


def test_enough_progress_forgives_and_too_little_does_not():
    patience = Patience(POLICY)
    for _ in range(10):
        patience.after(CUT)
        patience.after(CUT)
        patience.progressed(60)
        patience.progressed(40)
    patience.after(CUT)
    patience.progressed(60)
    patience.after(CUT)
    patience.progressed(60)
    with pytest.raises(SourceError):
        patience.after(CUT)


def test_rate_limits_are_no_failures_but_have_an_end():
    patience = Patience(POLICY)
    for _ in range(20):
        patience.after(limited(0.001))
    patience.after(CUT)
    patience.after(CUT)
    with pytest.raises(RateLimited):
        patience.after(limited(0.011))


def test_pace_judges_full_windows_only():
    pace = Pace(TransferPolicy(min_rate=10.0, min_rate_window=2.0))
    assert not pace.too_slow(1, 1.9)
    assert pace.too_slow(1, 0.2)
    assert not pace.too_slow(1, 1.0)
    assert not pace.too_slow(30, 1.0)
