"""How much one key may ask: requests at once, requests a minute, tokens a minute."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from proxy.errors import RETRY_AFTER_SECONDS, ApiError

MINUTE_SECONDS = 60.0


class Cells(Protocol):
    """Of a bucket: how much of it is used, and the time at which it was. Zeros at first."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


class Usage(Protocol):
    """What a key has used."""

    @property
    def requests(self) -> Cells: ...

    @property
    def tokens(self) -> Cells: ...

    @property
    def running(self) -> int: ...

    def add(self, running: int) -> None: ...

    def lock(self) -> AbstractContextManager[None]:
        """While it is held nobody else reads or changes what is used."""


class OwnUsage:
    """Of a process that serves alone."""

    def __init__(self) -> None:
        self.requests: Cells = [0.0, 0.0]
        self.tokens: Cells = [0.0, 0.0]
        self.running = 0

    def add(self, running: int) -> None:
        self.running += running

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()


class Bucket:
    """Holds a minute's worth, and refills evenly. It may be overdrawn: what is owed has to be made good first."""

    def __init__(self, per_minute: int, cells: Cells, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._cells = cells
        self._clock = clock

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is there."""
        return max(0.0, (self._used() + amount - self._size) * MINUTE_SECONDS / self._size)

    def take(self, amount: float) -> None:
        self._cells[0] = self._used() + amount

    def _used(self) -> float:
        cells, now = self._cells, self._clock()
        cells[0] = max(0.0, cells[0] - (now - cells[1]) * self._size / MINUTE_SECONDS)
        cells[1] = now
        return cells[0]


class KeyLimits:
    """What one key uses, beside what it may. None: no limit.

    Nobody knows the tokens of an answer before it is given, so they are taken when it has ended: a
    key that has used up its tokens finishes what runs, and waits until they are made good.
    """

    def __init__(self, usage: Usage | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._usage = usage or OwnUsage()
        self._clock = clock
        self.adopt()

    def adopt(
        self,
        max_streams: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        """Go by these from now on; what is used stays so."""
        usage, clock = self._usage, self._clock
        self._max_streams = max_streams
        self._requests = Bucket(requests_per_minute, usage.requests, clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, usage.tokens, clock) if tokens_per_minute else None

    @property
    def running(self) -> int:
        return self._usage.running

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a request while it runs. Raises ApiError."""
        with self._usage.lock():
            self._check()
            if self._requests is not None:
                self._requests.take(1)
            self._usage.add(1)
        try:
            yield
        finally:
            with self._usage.lock():
                self._usage.add(-1)

    def charge(self, tokens: int) -> None:
        """Tokens of a prompt and its answer, once they are known."""
        if self._tokens is not None:
            with self._usage.lock():
                self._tokens.take(tokens)

    def _check(self) -> None:
        """Raises ApiError."""
        if self._max_streams is not None and self._usage.running >= self._max_streams:
            raise _too_many("max_streams", "Too many requests of this API key are running.", RETRY_AFTER_SECONDS)
        if self._requests is not None and (wait := self._requests.wait(1)):
            raise _too_many("requests_per_minute", "This API key has made too many requests this minute.", wait)
        # One token has to be there: how many it will be is not known.
        if self._tokens is not None and (wait := self._tokens.wait(1)):
            raise _too_many("tokens_per_minute", "This API key has used too many tokens this minute.", wait)


def _too_many(limit: str, message: str, wait: float) -> ApiError:
    retry = {"retry-after": str(max(RETRY_AFTER_SECONDS, math.ceil(wait)))}
    told, counted = {"limit": limit}, f"auth.keys.{limit}"
    return ApiError(429, message, "rate_limit_error", None, "rate_limit_exceeded", retry, told, counted)
