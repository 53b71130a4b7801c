"""The heart: what came from the upstream goes through the stages, and what may leave goes to the client.

A pump decides nothing, and never waits. `go` takes it as far as it comes: a chunk is received; what needs no verdict
is sent; the guard is asked about the tokens; its risks are received; what they cleared is sent; and so again. It
stops where the upstream has no more, the guard thinks, or the client is full, and whoever drives it calls again when
that has changed.

There is no queue and no task a stream. While the guard is busy, bytes pile up in the socket, so the next chunk is
bigger: batching appears by itself under load, and memory stays bounded.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

from proxy.errors import INTERNAL, Fault, guard_failure
from proxy.guard.protocol import GuardError
from proxy.risk import Risk
from proxy.stream import ModeratedStream
from proxy.structs import Batch

# What was asked for, or why it cannot be had.
Told = Callable[[Any], None]


class Wait(Enum):
    """What a pump has asked for and not yet got."""

    NOTHING = "nothing"
    VERDICTS = "verdicts"
    WORK = "work"  # a step that is done aside


# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_NOTHING: Final = Wait.NOTHING
_VERDICTS: Final = Wait.VERDICTS


class Ends(Protocol):
    """What a pump is connected to. Each `told` is called once: later, or before the call returns."""

    def take(self) -> bytes | None:
        """The next chunk of the upstream's answer; b"" at its end, None where none has come. Raises Fault."""

    def classify(self, batches: Sequence[Batch], told: Callable[[Sequence[Sequence[Risk]] | Exception], None]) -> None:
        """One risk for each token of each batch, or a GuardError."""

    def aside(self, work: Callable[[], Any], told: Told) -> None:
        """What `work` returns, done where it holds nobody up; or a Fault where it cannot be done now."""

    @property
    def is_full(self) -> bool:
        """Whether the client must first take what was written."""

    def write(self, data: bytes) -> None:
        """To the client. What this raises comes out of the pump."""

    def write_last(self, data: bytes) -> None:
        """The same, and the stream has ended with it."""


class Pump:
    __slots__ = (
        "_asked", "_ends", "_fails_open", "_has_ended", "_is_unjudged", "_is_unsent", "_stream",
        "is_full", "is_going", "is_over", "waits_for",
    )  # fmt: skip

    def __init__(self, stream: ModeratedStream, ends: Ends, *, fails_open: bool) -> None:
        """`fails_open`: a guard that fails opens the gate; else it ends the stream as a failure."""
        self._stream = stream
        self._ends = ends
        self._fails_open = fails_open
        # Since something was last received, the stream was not asked what may leave, and which tokens to classify.
        self._is_unsent = self._is_unjudged = False
        self._asked: Sequence[Batch] = ()  # what the guard thinks about
        self._has_ended = False  # there is nothing more to take
        self.is_full = False  # the client was, when it was last looked at
        self.is_going = False
        self.is_over = False  # the stream has ended, and all of it was written
        self.waits_for = _NOTHING

    def go(self) -> None:
        """As far as it goes. Faults of the upstream and the guard end the stream as a failure."""
        if self.is_going:
            return  # called from within: the loop below goes on
        self.is_going = True
        self.is_full = self.is_full and self._ends.is_full
        try:
            while self.waits_for is _NOTHING and not self.is_full and not self.is_over:
                if self._is_unsent:
                    self._is_unsent = False
                    self._send()
                elif self._is_unjudged:
                    self._judge()
                elif not self._receive():
                    break
        finally:
            self.is_going = False

    def _send(self) -> None:
        stream = self._stream
        if stream.has_news and stream.is_large:
            self._do(stream.data_to_send, self._write)
        elif stream.has_news:
            self._write(stream.data_to_send())

    def _receive(self) -> bool:
        """False where there is nothing yet."""
        if self._has_ended:
            self._stream.fail(INTERNAL, "all was read and judged, and still the answer has not ended")
            self._is_unsent = True
            return True
        try:
            chunk = self._ends.take()
        except Fault as fault:
            self._stream.receive_break(fault.failure, str(fault))
            self._has_ended = self._is_unsent = self._is_unjudged = True
            return True
        if chunk is None:
            return False
        self._is_unsent = self._is_unjudged = True  # some of it may need no verdict
        if chunk and not self._stream.is_large:
            self._stream.receive_data(chunk)  # as nearly always: no call more
        elif chunk:
            self._do(partial(self._stream.receive_data, chunk), _nothing)
        else:
            self._has_ended = True
            self._do(self._stream.receive_end, _nothing)
        return True

    def _judge(self) -> None:
        if batches := self._stream.tokens_to_classify():
            self._is_unjudged = self._stream.has_more_tokens
            self.waits_for = _VERDICTS
            self._asked = batches
            self._ends.classify(batches, self._judged)
        else:
            self._is_unjudged = False
            self._is_unsent = True  # text that was read just now may have had no tokens

    def _judged(self, risks: Sequence[Sequence[Risk]] | Exception) -> None:
        batches, self._asked = self._asked, ()
        self.waits_for = _NOTHING
        self._is_unsent = True
        if isinstance(risks, GuardError):
            error = f"{type(risks).__name__}: {risks}"
            if self._fails_open:
                self._stream.open_gate(error)
            else:
                self._stream.fail(guard_failure(risks), error)
        elif isinstance(risks, Exception):
            raise risks
        else:
            self._stream.receive_risks(batches, risks)
        self.go()

    def look(self) -> None:
        """The client was written to, which alone can fill it."""
        self.is_full = self._ends.is_full

    def _write(self, data: bytes) -> None:
        is_over = self._stream.is_finished  # only what leaves can end it
        if data:
            if is_over:
                self._ends.write_last(data)
            else:
                self._ends.write(data)
            self.look()
        self.is_over = is_over

    def _do(self, work: Callable[[], Any], told: Told) -> None:
        """A step of the stream: here, unless it would hold up all others."""
        if self._stream.is_large:
            self.waits_for = Wait.WORK
            self._ends.aside(work, partial(self._done, told))
        else:
            told(work())

    def _done(self, told: Told, found: Any) -> None:
        self.waits_for = _NOTHING
        if isinstance(found, Fault):
            self._stream.fail(found.failure, str(found))
            self._write(self._stream.data_to_send())  # here: there it would not be done either
        elif isinstance(found, Exception):
            raise found
        else:
            told(found)
        self.go()


def _nothing(_: None) -> None:
    """There is nothing to do with it."""
