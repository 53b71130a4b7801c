"""Drives a pump by what happens on the event loop: bytes come, verdicts come, the client has room, time passes.

One answer has one of these, one timer that is moved lazily, and no task: its handler awaits one future for all of it.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from proxy.aside import Run, at_once
from proxy.classifier import Classifier, Verdicts
from proxy.errors import TOO_LONG, UPSTREAM_SILENT, Fault
from proxy.pump import Pump, Wait
from proxy.settings import UpstreamSettings
from proxy.stream import ModeratedStream
from proxy.structs import Batch

# What one turn takes from an upstream that has more: then other streams have theirs.
MAX_TURN_BYTES = 16 << 10


class Source(Protocol):
    """An upstream's answer."""

    def take(self) -> bytes | None:
        """See `pump.Ends`."""

    def listen(self, more: Callable[[], None] | None) -> None:
        """`more` is called whenever `take` may have something new to say; None: nobody listens any more."""


class Client(Protocol):
    """Who gets the answer. What is raised here comes out of `Drive.run`."""

    @property
    def is_full(self) -> bool:
        """See `pump.Ends`."""

    def write(self, data: bytes) -> None:
        """At once; it never waits."""

    def beat(self) -> None:
        """A sign of life, for one that has got nothing for a while."""

    async def drain(self) -> None:
        """Wait until it is full no more, or raise."""


class Drive:
    """`run` it once. It is the pump's `Ends`."""

    def __init__(
        self,
        stream: ModeratedStream,
        source: Source,
        classifier: Classifier | None,
        client: Client,
        limits: UpstreamSettings,
        beat_seconds: float,
        *,
        fails_open: bool,
        aside: Run = at_once,
    ) -> None:
        """`classifier`: None where the stream's gate is open. `beat_seconds`: how long the client gets nothing while
        the upstream is waited for, until it gets a sign of life. `aside`: for steps of large answers.
        """
        self._source, self._classifier, self._client = source, classifier, client
        self._idle_seconds = limits.idle_seconds
        self._verdict_seconds = math.inf if classifier is None else classifier.verdict_seconds
        self._beat_seconds = beat_seconds
        self._pump = Pump(stream, self, fails_open=fails_open)
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._run_aside = aside
        self._room: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._fault: Fault | None = None  # of the upstream, by the clock
        self._refused: BaseException | None = None  # of a client that took nothing
        self._turn_bytes = 0
        # Of the loop's clock.
        self._since = self._wrote = self._loop.time()  # when the wait began, and when the client last got something
        self._last = self._since + limits.total_seconds
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    async def run(self) -> None:
        """To the stream's end."""
        self._source.listen(self._go)
        try:
            self._go()
            await self._done
        except asyncio.CancelledError:
            if self._refused is not None:  # a client that is hung up on is gone before we are told why
                raise self._refused from None
            raise
        finally:
            self._source.listen(None)
            self._done.cancel()
            await self._stop()

    async def _stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._room is not None:
            self._room.cancel()
        if self._classifier is not None:
            self._classifier.give_up()
        if self._working is not None and not self._working.done():
            self._working.cancel()
            await asyncio.wait([self._working])  # until then the stream is not whole
        del self._pump  # else each answer waits for the garbage collector

    # `pump.Ends`.

    def take(self) -> bytes | None:
        now = self._loop.time()
        if self._fault is not None:
            raise self._fault
        if now >= self._last:  # one that finds bytes waiting never waits for the alarm
            raise Fault(TOO_LONG, 504)
        if self._turn_bytes >= MAX_TURN_BYTES:
            self._loop.call_soon(self._go)
            return None
        if chunk := self._source.take():
            self._turn_bytes += len(chunk)
            self._since = now
        return chunk

    def classify(self, batches: Sequence[Batch], told: Callable[[Verdicts], None]) -> None:
        assert self._classifier is not None  # else the gate is open, and there is nothing to classify
        self._classifier.put(batches, partial(self._tell, told))

    def aside(self, work: Callable[[], Any], told: Callable[[Any], None]) -> None:
        async def worked() -> None:
            try:
                found = await self._run_aside(work)
            except Exception as exc:
                found = exc
            self._tell(told, found)

        self._working = self._loop.create_task(worked())

    @property
    def is_full(self) -> bool:
        return self._client.is_full

    def write(self, data: bytes) -> None:
        self._client.write(data)
        self._wrote = self._loop.time()

    # What happens.

    def _go(self) -> None:
        if not self._done.done():
            self._turn(self._pump.go)

    def _turn(self, turn: Callable[[], None]) -> None:
        """A turn of the pump, and what is to be waited for then. It raises nothing: whoever calls has other streams."""
        self._turn_bytes = 0
        try:
            turn()
        except Exception as exc:
            self._end(exc)
            return
        if self._pump.is_full:
            self._wait_for_room()
        elif self._pump.is_over:
            self._end(None)
        else:
            self._watch()

    def _tell(self, told: Callable[[Any], None], found: Any) -> None:
        """What the pump has waited for."""
        if self._done.done():
            return
        self._since = self._loop.time()
        if self._pump.is_going:
            told(found)
        else:
            self._turn(partial(told, found))

    def _end(self, exc: BaseException | None) -> None:
        if self._done.done():
            return
        if exc is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(exc)

    def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = self._loop.create_task(self._client.drain())
            self._room.add_done_callback(self._has_room)

    def _has_room(self, room: asyncio.Task[None]) -> None:
        self._room = None
        if room.cancelled():
            return
        if (exc := room.exception()) is not None:
            self._refused = exc
            self._end(exc)
            return
        self._since = self._loop.time()
        self._go()

    # Time.

    def _due(self) -> float:
        """When the wait is too long, or the client wants a sign of life."""
        if self._pump.waits_for is Wait.VERDICTS:
            return self._since + self._verdict_seconds
        if self._pump.waits_for is Wait.WORK:
            return math.inf  # it has a limit of its own
        return min(self._since + self._idle_seconds, self._last, self._wrote + self._beat_seconds)

    def _watch(self) -> None:
        due = self._due()
        if due < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_at(due, self._ring), due

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        if self._done.done() or self._room is not None:
            return  # who drains has a limit of its own
        now = self._loop.time()
        if now < self._due():
            self._watch()  # it was put off meanwhile
        elif self._pump.waits_for is Wait.VERDICTS:
            assert self._classifier is not None  # that was asked
            self._classifier.give_up()
        elif now >= self._last or now >= self._since + self._idle_seconds:
            self._fault = Fault(TOO_LONG if now >= self._last else UPSTREAM_SILENT, 504)
            self._go()
        else:
            self._wrote = now
            self._turn(self._beat)

    def _beat(self) -> None:
        self._client.beat()
        self._pump.look()
