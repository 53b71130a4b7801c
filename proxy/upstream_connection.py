"""One connection to an upstream: a request out, the answer's bytes in, without a stream object between.

What cannot be read for certain is refused, and a connection serves again only after an exchange that ended as its
framing says, with nothing behind it. No coroutines, so that it can be compiled: what is to be awaited is a future.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from proxy.answer_parser import AnswerParser, Head
from proxy.errors import BrokenAnswer
from proxy.in_parts import PARSED_BYTES

# What one read returns at the most: the event loop reads, tokenizes and encodes it in a few milliseconds.
MAX_READ_BYTES: Final = 16 << 10
# Where more waits to be taken, the upstream has to wait.
BUFFER_BYTES: Final = 32 << 10


class UpstreamConnection:
    """`send` a request, await `head`, `take` the body; then `is_clean` says whether it may serve again.

    An `asyncio.Protocol` by its methods. It may not be a subclass, or it could not be compiled.
    """

    def __init__(self) -> None:
        """Raises RuntimeError without a running loop."""
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self._parser: AnswerParser | None = None
        self._head: asyncio.Future[Head] | None = None
        self._has_head = False  # the future may be done without: whoever waits for it may be cancelled
        self._break: Exception | None = None
        self._has_news = True  # since `take` has returned None, or may have
        self._is_spent = False
        self._upload: asyncio.Task[None] | None = None
        self._late = b""  # that is not parsed yet
        self._turn: asyncio.Handle | None = None  # in which more of it will be
        self._is_paused = False  # the upstream has to wait
        self._room: asyncio.Future[None] | None = None  # for what we send
        self._came: float | None = None  # when the oldest byte came that nobody has taken
        self.arrived = 0.0  # when the oldest byte of what was taken last had come, by the monotonic clock
        self.on_more: Callable[[], None] | None = None  # called whenever `take` may have something new to say

    def send(self, request: bytes, *, opens_tunnel: bool = False) -> None:
        """Begin an exchange. `opens_tunnel`: behind the answer's head comes another protocol. Raises BrokenAnswer."""
        self._parser = AnswerParser(has_body=not opens_tunnel)
        self._head, self._has_head = self._loop.create_future(), False
        self.write(request)

    def upload(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send a request's body as it comes, while the answer may already begin. What `sending` raises ends both."""
        # This task lives as long as the exchange: `end` stops it.
        self._upload = self._loop.create_task(sending)
        self._upload.add_done_callback(self._sent)

    def head(self) -> "asyncio.Future[Head]":
        """The head of the answer, or BrokenAnswer."""
        assert self._head is not None  # after `send`
        return self._head

    def take(self) -> bytes | None:
        """The next bytes of the body; b"" at its end, None where none have come. Raises BrokenAnswer."""
        if not self._has_news:
            return None  # asked after each chunk
        parser = self._parser
        if parser is None:
            raise BrokenAnswer("the exchange is over")
        if data := self._body_of(parser):
            if self._came is not None:
                self.arrived, self._came = self._came, None
            self._has_news = parser.has_more or parser.has_ended or self._break is not None
            if self._is_paused:
                self._flow()
            return data
        self._came = None  # what came was no body
        if parser.has_ended:
            return b""
        if self._break is not None:
            raise self._break
        self._has_news = False
        return None

    def _body_of(self, parser: AnswerParser) -> bytes:
        try:
            return parser.take(MAX_READ_BYTES)
        except BrokenAnswer as exc:
            self._fail(exc)
            raise

    def more(self) -> "asyncio.Future[None]":
        """Await it until `take` may have something new to say. For one at a time."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.on_more = partial(_wake, waiter)
        return waiter

    @property
    def is_clean(self) -> bool:
        """Whether the exchange has ended, on both sides, so that another may begin."""
        upload = self._upload
        if upload is not None and (not upload.done() or upload.cancelled() or upload.exception() is not None):
            return False
        return self.is_open and self._has_head and self._parser is not None and self._parser.has_ended

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        if self._is_spent or self._late or self.transport is None or self.transport.is_closing():
            return False
        return self._parser is None or not self._parser.is_last

    def end(self) -> None:
        """Forget the exchange. What comes after it nobody has asked for."""
        parser = self._parser
        self._is_spent = self._is_spent or bool(self._late) or (parser is not None and parser.is_last)
        if parser is not None:
            parser.close()
        if self._upload is not None:
            self._upload.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._turn, self._late = None, b""
        self._upload = self._head = self._parser = self._break = self.on_more = None
        self._has_news, self._has_head = True, False
        self._came = None
        if self._is_paused:
            self._flow()

    def abort(self) -> None:
        """Close at once. Who still waits is told that the answer broke."""
        self._fail(BrokenAnswer("the connection was given up"))
        self.end()

    def write(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise BrokenAnswer("the upstream has closed the connection")
        self.transport.write(data)

    def room(self) -> "asyncio.Future[None] | None":
        """To be awaited before more is written; None where there is room."""
        return self._room

    # `asyncio.Protocol`.

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._late:
            self._late += data  # its turn comes
            return
        if len(data) > PARSED_BYTES:
            self._late = data
            self._parse_late()
            return
        self._parse(data)
        if self._parser is not None and self._parser.size > BUFFER_BYTES:
            self._flow()

    def eof_received(self) -> None:
        """The transport closes, and says so."""

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            _wake(room)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        late, self._late = self._late, b""
        if late:
            self._parse(late)  # the answer may be complete in it
        self._is_spent = self._has_news = True
        self.transport = None
        self.resume_writing()
        parser = self._parser
        if parser is None:
            return
        try:
            if exc is not None:
                raise BrokenAnswer(type(exc).__name__)
            if self._break is None:  # else we have closed it ourselves, which is no end of anything
                parser.feed_eof()
        except BrokenAnswer as broken:
            self._fail(broken)
            return
        if self.on_more is not None:
            self.on_more()

    def _parse(self, data: bytes) -> None:
        self._has_news = True
        if self._came is None:
            self._came = time.monotonic()
        parser = self._parser
        if parser is None:
            self.abort()
            return
        broken: BrokenAnswer | None = None
        try:
            parser.feed(data)
        except BrokenAnswer as exc:
            broken = exc
        if not self._has_head and parser.head is not None:
            self._tell_head(parser.head)
        if broken is not None:
            self._fail(broken)
        elif self.on_more is not None:
            self.on_more()

    def _tell_head(self, found: Head) -> None:
        assert self._head is not None  # while there is a parser
        if self._head.done():
            self._is_spent = True  # an answer that nobody waits for
            return
        self._has_head = True
        self._head.set_result(found)

    def _parse_late(self) -> None:
        """A part of what one read brought; other streams have their turns between."""
        self._turn = None
        part, self._late = self._late[:PARSED_BYTES], self._late[PARSED_BYTES:]
        self._parse(part)
        self._flow()

    def _flow(self) -> None:
        """Parse and read no more than is taken."""
        parser = self._parser
        is_full = parser is not None and parser.size > BUFFER_BYTES
        if self._late and not is_full and self._turn is None:
            self._turn = self._loop.call_soon(self._parse_late)
        has_to_wait = is_full or bool(self._late)
        transport = self.transport
        if has_to_wait is self._is_paused or transport is None or transport.is_closing():
            return
        self._is_paused = has_to_wait
        if has_to_wait:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _fail(self, broken: BrokenAnswer) -> None:
        self._is_spent = self._has_news = True
        if self._head is not None and not self._head.done():
            self._head.set_exception(broken)
            self._head.exception()  # where nobody waits for it, that is nothing to complain about
        self._break = self._break or broken
        if self.transport is not None:
            self.transport.abort()
        if self.on_more is not None:
            self.on_more()

    def _sent(self, upload: "asyncio.Task[None]") -> None:
        if upload.cancelled() or upload is not self._upload:
            return
        exc = upload.exception()
        if exc is not None:  # the client's doing, or the upstream's: a request that is not whole cannot go on
            self._fail(exc if isinstance(exc, BrokenAnswer) else BrokenAnswer(type(exc).__name__))


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
