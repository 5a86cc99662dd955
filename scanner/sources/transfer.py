"""When to try again: the numbers of a transfer, patience with failures, and the pace of arrivals."""

import random
import time
from dataclasses import dataclass

from schemas.errors import SourceError

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPolicy:
    """How a hub is read. Times are seconds, sizes bytes, rates bytes a second.

    A failed request is repeated after `backoff`, doubled up to `backoff_cap`, with jitter; `attempts`
    failures in a row without `progress` bytes between them end it, or `first_attempts` where the hub has
    never answered, which is then asked nothing for `silence`. A rate limit is waited out for its stated
    time plus `rate_limit_margin` and jitter, `rate_limit_patience` in all, and is no failure.
    A transfer below `min_rate` over `min_rate_window` counts as cut. Spans less than `gap` apart share
    a request, and all spans do when they are `whole_share` of the file. `chunk` bounds one read.
    """

    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    attempts: int = 5
    first_attempts: int = 4
    silence: float = 30.0
    backoff: float = 1.0
    backoff_cap: float = 8.0
    progress: int = MIB
    rate_limit_margin: float = 1.0
    rate_limit_patience: float = 1800.0
    min_rate: float = 1e6
    min_rate_window: float = 60.0
    gap: int = 4 * MIB
    whole_share: float = 0.6
    chunk: int = MIB
    max_hops: int = 5


DEFAULT_POLICY = TransferPolicy()


class RateLimited(SourceError):
    """HTTP 429; `wait` is the seconds until the window resets."""

    wait = 0.0


class UnreachableError(SourceError):
    """No connection to a hub that has never answered."""


class Patience:
    """Decides, after each failure of one piece of work, between another try and giving up."""

    def __init__(self, policy: TransferPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._progress = 0
        self._waited = 0.0

    def progressed(self, count: int) -> None:
        """Note `count` bytes that arrived; enough of them forgive the failures so far."""
        self._progress += count
        if self._progress >= self._policy.progress:
            self._failures = 0

    def after(self, error: SourceError) -> None:
        """Sleep until another try makes sense; raises `error` when none does."""
        if not error.retryable:
            raise error
        self._progress = 0
        time.sleep(self._limit(error) if isinstance(error, RateLimited) else self._backoff(error))

    def _limit(self, error: RateLimited) -> float:
        pause = error.wait + self._policy.rate_limit_margin * (1 + 2 * random.random())
        self._waited += pause
        if self._waited > self._policy.rate_limit_patience:
            raise error
        return pause

    def _backoff(self, error: SourceError) -> float:
        self._failures += 1
        unheard = isinstance(error, UnreachableError)
        if self._failures >= (self._policy.first_attempts if unheard else self._policy.attempts):
            raise error
        pause = self._policy.backoff * 2.0 ** (self._failures - 1)
        return min(pause, self._policy.backoff_cap) * random.uniform(0.75, 1.25)


class Pace:
    """Watches the rate of one connection; time spent outside reads does not count."""

    def __init__(self, policy: TransferPolicy) -> None:
        self._policy = policy
        self._count = 0
        self._seconds = 0.0

    def too_slow(self, count: int, seconds: float) -> bool:
        """Add a read of `count` bytes; true when a full window has passed below the minimum rate."""
        self._count += count
        self._seconds += seconds
        if self._seconds < self._policy.min_rate_window:
            return False
        slow = self._count < self._policy.min_rate * self._seconds
        self._count, self._seconds = 0, 0.0
        return slow
