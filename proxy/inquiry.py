"""Questions to the guard streams of one response, without waiting: batches in, verdicts told.

No coroutines, so that it can be compiled like the pump and the stream (see `hatch_build.py`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

from adapters.base import Key
from proxy.guard.protocol import GuardFault, GuardStream, GuardTimeout, GuardUnavailable
from proxy.guard.streams import KeptStream
from proxy.risk import Risk
from proxy.structs import Batch

# One risk for each token of each batch; or why there is none.
Verdicts = list[list[Risk]] | Exception
# The risks of one batch, or of each of several.
Answer = asyncio.Future[Any]

# Lags that a median is taken of: the newest of a long answer.
MAX_LAGS = 1024


class Lags:
    """Seconds from handing tokens over to their verdicts."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=MAX_LAGS)
        self.max: float | None = None
        self.count = 0  # of what was handed over
        self.first = 0.0  # when that began, by the monotonic clock
        self.last: float | None = None  # when it was over; None while verdicts are missing

    def begin(self, at: float) -> None:
        if not self.count:
            self.first = at
        self.last = None
        self.count += 1

    def add(self, begin: float, end: float) -> None:
        seconds = end - begin
        self._newest.append(seconds)
        if self.max is None or seconds > self.max:
            self.max = seconds
        self.last = end

    @property
    def median(self) -> float | None:
        return median(self._newest) if self._newest else None


class Inquiry:
    """One call at a time."""

    def __init__(self, ask: Callable[[Sequence[Batch]], Awaitable[Any]]) -> None:
        """`ask`: several batches, or one whose guard stream is still to be opened and put into `streams`."""
        self._ask = ask
        self._asked: Answer | None = None  # under way
        self._direct: tuple[KeptStream, Callable[[Verdicts], None]] | None = None  # the same, without a future
        # Each with its position at the first token of the text.
        self.streams: dict[tuple[Key, int], tuple[GuardStream, int]] = {}
        self.lags = Lags()

    def put(self, batches: Sequence[Batch], tell: Callable[[Verdicts], None]) -> None:
        """`tell` gets one risk for each token of each batch, or the GuardError instead.

        At once, where the guard answers at once; never by itself, where the guard hangs: then `give_up`.
        """
        begin = time.monotonic()
        self.lags.begin(begin)
        if len(batches) == 1 and (known := self.streams.get((batches[0].key, batches[0].view))) is not None:
            stream, start = known
            if isinstance(stream, KeptStream):
                self._put_directly(stream, start, batches[0], tell, begin)
                return
        found = self._begin(batches)
        asked: Answer = found if isinstance(found, asyncio.Future) else asyncio.ensure_future(found)
        self._asked = asked
        if asked.done():
            self._answered(batches, tell, begin, asked)
        else:
            asked.add_done_callback(partial(self._answered, batches, tell, begin))

    def give_up(self) -> None:
        """On what was put, if it is not answered yet."""
        if self._asked is not None:
            self._asked.cancel()
        if self._direct is not None:
            (stream, tell), self._direct = self._direct, None
            stream.give_up()
            tell(late())

    def _put_directly(
        self, stream: KeptStream, start: int, batch: Batch, tell: Callable[[Verdicts], None], begin: float
    ) -> None:
        self._direct = stream, tell
        try:
            stream.ask(start + batch.position, batch.ids, partial(self._heard, len(batch.ids), tell, begin))
        except Exception as exc:
            self._direct = None
            tell(exc)

    def _heard(self, count: int, tell: Callable[[Verdicts], None], begin: float, found: list[Risk] | Exception) -> None:
        self._direct = None
        if isinstance(found, Exception):
            tell(found)
        elif len(found) != count:
            tell(wrong_count(len(found), count))
        else:
            self.lags.add(begin, time.monotonic())
            tell([found])

    def _begin(self, batches: Sequence[Batch]) -> Awaitable[Any]:
        if len(batches) > 1:
            return self._ask(batches)
        batch = batches[0]
        known = self.streams.get((batch.key, batch.view))
        if known is None:
            return self._ask(batches)
        stream, start = known
        return stream.classify(start + batch.position, batch.ids)

    def _answered(
        self, batches: Sequence[Batch], tell: Callable[[Verdicts], None], begin: float, asked: Answer
    ) -> None:
        self._asked = None
        verdicts = _verdicts(asked, batches)
        if not isinstance(verdicts, Exception):
            self.lags.add(begin, time.monotonic())
        tell(verdicts)


def _verdicts(asked: Answer, batches: Sequence[Batch]) -> Verdicts:
    """What came of a call. Only GuardErrors are to be expected."""
    if asked.cancelled():
        return late()
    exc = asked.exception()
    if exc is not None:
        if isinstance(exc, TimeoutError):
            return late()
        if isinstance(exc, OSError):  # else it would pass for the client's own connection breaking
            return GuardUnavailable(type(exc).__name__)
        assert isinstance(exc, Exception)  # what else there is ends the event loop
        return exc
    risks: list[list[Risk]] = [asked.result()] if len(batches) == 1 else asked.result()
    for number, batch in enumerate(batches):
        if len(risks[number]) != len(batch.ids):
            return wrong_count(len(risks[number]), len(batch.ids))
    return risks


def wrong_count(risks: int, tokens: int) -> GuardFault:
    return GuardFault(f"{risks} risks for {tokens} tokens")


def late() -> GuardTimeout:
    return GuardTimeout("no verdict within the deadline")
