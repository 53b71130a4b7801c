"""Questions to the guard streams of one response, without waiting: batches in, verdicts told.

No coroutines, so that it can be compiled like the pump and the stream (see `hatch_build.py`).
"""

import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Final

from adapters.base import Key
from proxy.guard.protocol import GuardFault, GuardStream, GuardTimeout, GuardUnavailable
from proxy.risk import Risk
from proxy.structs import Batch

# One risk for each token of each batch; or why there is none.
Verdicts = list[list[Risk]] | Exception
# A stream, the frame before its text, and its position at the first token of the text.
Opened = tuple[GuardStream, Sequence[int], int]

_clock: Final = time.monotonic
# Lags that a median is taken of: the newest of a long answer.
MAX_LAGS: Final = 256


class Lags:
    """Seconds from handing tokens over to their verdicts."""

    def __init__(self) -> None:
        self._newest = array("d")  # a ring, since floats in a list take four times the memory
        self._oldest = 0
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
        if len(self._newest) < MAX_LAGS:
            self._newest.append(seconds)
        else:
            self._newest[self._oldest] = seconds
            self._oldest = (self._oldest + 1) % MAX_LAGS
        if self.max is None or seconds > self.max:
            self.max = seconds
        self.last = end

    @property
    def median(self) -> float | None:
        return median(self._newest) if self._newest else None


class Inquiry:
    """One call at a time."""

    def __init__(self, open_stream: Callable[[Batch], Opened]) -> None:
        """`open_stream`: the one that a batch is the first for."""
        self._open = open_stream
        self._tell: Callable[[Verdicts], None] | None = None  # who waits
        self._batches: Sequence[Batch] = ()  # that are under way
        self._begin = 0.0
        self._risks: list[list[Risk]] = []  # of each batch
        self._left = 0  # batches without theirs
        self.streams: dict[tuple[Key, int], Opened] = {}
        # Who was asked last, since nearly always the next batch is for the same.
        self._last: Batch | None = None
        self._last_opened: Opened | None = None
        self.lags = Lags()

    def put(self, batches: Sequence[Batch], tell: Callable[[Verdicts], None]) -> None:
        """`tell` gets one risk for each token of each batch, or the GuardError instead.

        At once, where the guard answers at once; never by itself, where the guard hangs: then `give_up`.
        """
        self._begin = begin = _clock()
        self.lags.begin(begin)
        self._batches, self._tell = batches, tell
        if len(batches) == 1:  # as nearly always
            self._ask_only(batches[0])
            return
        self._risks, self._left = [[]] * len(batches), len(batches)
        for number, batch in enumerate(batches):
            stream, frame, start = self._opened(batch)
            position, ids, skipped = start + batch.position, batch.ids, 0
            if not batch.position and stream.position < start:
                skipped = len(frame)
                position, ids = position - skipped, [*frame, *ids]
            stream.ask(position, ids, partial(self._heard, number, skipped))
            if self._batches is not batches:
                return  # all have heard, or one has failed at once; and who was told may have put others

    def _ask_only(self, batch: Batch) -> None:
        stream, frame, start = self._opened(batch)
        if batch.position or stream.position >= start:
            stream.ask(start + batch.position, batch.ids, self._heard_only)
        else:  # frames flag falsely at fixed positions, and are not the model's text
            stream.ask(start - len(frame), [*frame, *batch.ids], partial(self._heard_behind, len(frame)))

    def _heard_behind(self, skipped: int, found: list[Risk] | Exception) -> None:
        self._heard_only(found if isinstance(found, Exception) else found[skipped:])

    def _heard_only(self, risks: list[Risk] | Exception) -> None:
        if isinstance(risks, Exception):
            self._end(risks)
            return
        count = len(self._batches[0].ids)
        if len(risks) != count:
            self._end(wrong_count(len(risks), count))
            return
        self.lags.add(self._begin, _clock())
        self._told([risks])

    def _opened(self, batch: Batch) -> Opened:
        last, opened = self._last, self._last_opened
        if last is None or opened is None or last.key is not batch.key or last.view != batch.view:
            opened = self.streams.get((batch.key, batch.view))
            if opened is None:
                opened = self.streams[batch.key, batch.view] = self._open(batch)
            self._last, self._last_opened = batch, opened
        return opened

    def give_up(self) -> None:
        """On what was put, if it is not answered yet."""
        if self._tell is not None:
            self._end(late())

    def _heard(self, number: int, skipped: int, found: list[Risk] | Exception) -> None:
        if isinstance(found, Exception):
            self._end(found)
            return
        risks, count = found[skipped:] if skipped else found, len(self._batches[number].ids)
        if len(risks) != count:
            self._end(wrong_count(len(risks), count))
            return
        self._risks[number] = risks
        self._left -= 1
        if not self._left:
            self.lags.add(self._begin, _clock())
            self._told(self._risks)

    def _end(self, error: Exception) -> None:
        """Without verdicts: nothing more is heard of what is still under way."""
        for batch in self._batches:
            if (known := self.streams.get((batch.key, batch.view))) is not None:
                known[0].give_up()
        self._told(_expected(error))

    def _told(self, verdicts: Verdicts) -> None:
        tell, self._tell = self._tell, None
        self._batches, self._risks = (), []
        assert tell is not None  # a stream is heard once, and not after it was given up
        tell(verdicts)


def _expected(exc: Exception) -> Exception:
    """Only GuardErrors are to be expected."""
    if isinstance(exc, TimeoutError):
        return late()
    if isinstance(exc, OSError):  # else it would pass for the client's own connection breaking
        return GuardUnavailable(type(exc).__name__)
    return exc


def wrong_count(risks: int, tokens: int) -> GuardFault:
    return GuardFault(f"{risks} risks for {tokens} tokens")


def late() -> GuardTimeout:
    return GuardTimeout("no verdict within the deadline")
