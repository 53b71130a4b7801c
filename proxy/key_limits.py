"""How much one key may ask: requests at once, requests a minute, tokens a minute."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from proxy.errors import RETRY_AFTER_SECONDS, ApiError

MINUTE_SECONDS = 60.0


class Bucket:
    """Holds a minute's worth, and refills evenly. What is owed counts: a level below 0 has to be made good first."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._clock = clock
        self._level = self._size
        self._filled_at = clock()

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is there."""
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._filled_at) * self._size / MINUTE_SECONDS)
        self._filled_at = now
        return max(0.0, (amount - self._level) * MINUTE_SECONDS / self._size)

    def take(self, amount: float) -> None:
        self._level -= amount


class KeyLimits:
    """What one key uses, beside what it may. None: no limit.

    Nobody knows the tokens of an answer before it is given, so they are taken when it has ended: a
    key that has used up its tokens finishes what runs, and waits until they are made good.
    """

    def __init__(
        self,
        max_streams: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_streams = max_streams
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, clock)
        self.running = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a request while it runs. Raises ApiError."""
        if self._max_streams is not None and self.running >= self._max_streams:
            raise _too_many("max_streams", "Too many requests of this API key are running.", RETRY_AFTER_SECONDS)
        if self._requests is not None and (wait := self._requests.wait(1)):
            raise _too_many("requests_per_minute", "This API key has made too many requests this minute.", wait)
        # One token has to be there: how many it will be is not known.
        if self._tokens is not None and (wait := self._tokens.wait(1)):
            raise _too_many("tokens_per_minute", "This API key has used too many tokens this minute.", wait)
        if self._requests is not None:
            self._requests.take(1)
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def charge(self, tokens: int) -> None:
        """Tokens of a prompt and its answer, once they are known."""
        if self._tokens is not None:
            self._tokens.take(tokens)


def _too_many(limit: str, message: str, wait: float) -> ApiError:
    retry = {"retry-after": str(max(RETRY_AFTER_SECONDS, math.ceil(wait)))}
    told, counted = {"limit": limit}, f"auth.keys.{limit}"
    return ApiError(429, message, "rate_limit_error", None, "rate_limit_exceeded", retry, told, counted)
