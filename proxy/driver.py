"""What drives a pump by what happens on the event loop, but for what is awaited: that is `proxy.drive`'s.

No coroutines, so that it can be compiled like the pump and the stream (see `hatch_build.py`).
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol

from proxy.errors import TOO_LONG, UPSTREAM_SILENT, Fault
from proxy.inquiry import Inquiry, Verdicts
from proxy.pump import Pump, Told, Wait
from proxy.stream import ModeratedStream
from proxy.structs import Batch, Patience

# What one turn takes from an upstream that has more: then other streams have theirs.
MAX_TURN_BYTES: Final = 16 << 10


# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_VERDICTS: Final = Wait.VERDICTS
_WORK: Final = Wait.WORK


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

    def write_last(self, data: bytes) -> None:
        """The same, and the stream has ended with it."""

    def beat(self) -> None:
        """A sign of life, for one that has got nothing for a while."""

    def drain(self) -> Coroutine[Any, Any, None]:
        """To be awaited until it is full no more, or raises."""


class Driver:
    """It is the pump's `Ends`. One timer, moved lazily, and no task."""

    __deletable__ = ("_pump",)  # for the compiler

    def __init__(
        self,
        stream: ModeratedStream,
        source: Source,
        inquiry: Inquiry | None,
        client: Client,
        patience: Patience,
        aside: Callable[[Callable[[], Any], Told], Coroutine[Any, Any, None]],
        *,
        fails_open: bool,
    ) -> None:
        """`inquiry`: None where the stream's gate is open. `aside` tells what a work came to.

        Raises RuntimeError without a running loop.
        """
        self._source, self._inquiry, self._client = source, inquiry, client
        self._patience = patience
        self._aside = aside
        self._pump = Pump(stream, self, fails_open=fails_open)
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._told: Callable[[Verdicts], None] | None = None  # who gets what was asked
        self.refused: BaseException | None = None  # of a client that took nothing
        self.working: asyncio.Task[None] | None = None
        self._room: asyncio.Task[None] | None = None
        self._fault: Fault | None = None  # of the upstream, by the clock
        self._turn_bytes = 0
        # Of the loop's clock.
        self._since = self._wrote = self._loop.time()  # when the wait began, and when the client last got something
        self._last = self._since + patience.total_seconds
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def begin(self) -> None:
        self._source.listen(self.go)
        self.go()

    def end(self) -> None:
        """Nobody waits for `done` any more."""
        self._source.listen(None)
        self.done.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._room is not None:
            self._room.cancel()
        if self._inquiry is not None:
            self._inquiry.give_up()

    def close(self) -> None:
        """Break the circle with the pump: else each answer waits for the garbage collector."""
        del self._pump

    # `pump.Ends`.

    def take(self) -> bytes | None:
        if self._fault is not None:
            raise self._fault
        if self._turn_bytes >= MAX_TURN_BYTES:
            self._loop.call_soon(self.go)
            return None
        chunk = self._source.take()
        if chunk:
            self._turn_bytes += len(chunk)
            self._since = self._loop.time()
            if self._since >= self._last:  # one that finds bytes waiting never waits for the alarm
                raise Fault(TOO_LONG, 504)
        return chunk

    def classify(self, batches: Sequence[Batch], told: Callable[[Verdicts], None]) -> None:
        assert self._inquiry is not None  # else the gate is open, and there is nothing to classify
        self._told = told
        self._inquiry.put(batches, self._answered)

    def _answered(self, found: Verdicts) -> None:
        told = self._told
        assert told is not None  # as an inquiry answers once
        self._told = None
        self.tell(told, found)

    def aside(self, work: Callable[[], Any], told: Told) -> None:
        self.working = self._loop.create_task(self._aside(work, partial(self.tell, told)))

    @property
    def is_full(self) -> bool:
        return self._client.is_full

    def write(self, data: bytes) -> None:
        self._client.write(data)
        self._wrote = self._since  # to a few milliseconds: what is written has just come, or its verdict has

    def write_last(self, data: bytes) -> None:
        self._client.write_last(data)

    # What happens.

    def go(self) -> None:
        if not self.done.done():
            self._turn(None, None)

    def tell(self, told: Told, found: Any) -> None:
        """What the pump has waited for."""
        if self.done.done():
            return
        if self._pump.is_going:
            told(found)  # at once, and so there was no wait
        else:
            self._since = self._loop.time()
            self._turn(told, found)

    def _turn(self, told: Told | None, found: Any) -> None:
        """A turn of the pump, and what is to be waited for then. It raises nothing: whoever calls has other streams."""
        self._turn_bytes = 0
        pump = self._pump
        try:
            if told is None:
                pump.go()
            else:
                told(found)
        except Exception as exc:
            self._finish(exc)
            return
        if pump.is_full:
            self._wait_for_room()
        elif pump.is_over:
            self._finish(None)
        else:
            self._watch()

    def _finish(self, exc: BaseException | None) -> None:
        if self.done.done():
            return
        if exc is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(exc)

    def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = self._loop.create_task(self._client.drain())
            self._room.add_done_callback(self._has_room)

    def _has_room(self, room: "asyncio.Task[None]") -> None:
        self._room = None
        if room.cancelled():
            return
        exc = room.exception()
        if exc is not None:
            self.refused = exc
            self._finish(exc)
            return
        self._since = self._loop.time()
        self.go()

    # Time.

    def _due(self) -> float:
        """When the wait is too long, or the client wants a sign of life."""
        patience = self._patience
        if self._pump.waits_for is _VERDICTS:
            return self._since + patience.verdict_seconds
        if self._pump.waits_for is _WORK:
            return math.inf  # it has a limit of its own
        due = self._since + patience.idle_seconds
        beat = self._wrote + patience.beat_seconds
        if beat < due:
            due = beat
        return due if due < self._last else self._last

    def _watch(self) -> None:
        due = self._due()
        if due < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._loop.call_at(due, self._ring), due

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        if self.done.done() or self._room is not None:
            return  # who drains has a limit of its own
        now = self._loop.time()
        if now < self._due():
            self._watch()  # it was put off meanwhile
        elif self._pump.waits_for is _VERDICTS:
            assert self._inquiry is not None  # that was asked
            self._inquiry.give_up()
        elif now >= self._last or now >= self._since + self._patience.idle_seconds:
            self._fault = Fault(TOO_LONG if now >= self._last else UPSTREAM_SILENT, 504)
            self.go()
        else:
            self._wrote = now
            self._turn(self._beat, None)

    def _beat(self, _: None) -> None:
        self._client.beat()
        self._pump.look()
