"""One connection to an upstream: a request out, the answer's bytes in, without a stream object between.

The parser is llhttp in aiohttp's hands, the same that reads our clients. What it cannot read for certain is refused,
and a connection serves again only after an exchange that ended as its framing says, with nothing behind it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.http import HttpResponseParser, HttpVersion10, HttpVersion11, RawResponseMessage

from proxy.in_parts import PARSED_BYTES, InParts

MAX_LINE_BYTES = 8190
# Some providers' headers carry whole policies.
MAX_FIELD_BYTES = 16 << 10
# What one read returns at the most: the event loop reads, tokenizes and encodes it in a few milliseconds.
MAX_READ_BYTES = 16 << 10
# Twice as much may wait to be read before the upstream has to wait.
BUFFER_BYTES = 32 << 10


class BrokenAnswer(ConnectionError):
    """What came is not HTTP as it must be, or it ended too early."""


class UpstreamConnection(InParts):
    """`send` a request, wait for `head`, `take` the body; then `is_clean` says whether it may serve again."""

    __slots__ = (
        *("_body", "_break", "_came", "_has_head", "_has_news", "_head", "_is_spent", "_opens_tunnel", "_upload"),
        *("_is_parsing", "_late", "_turn", "arrived", "on_more"),
    )

    def __init__(self) -> None:
        """Raises RuntimeError without a running loop."""
        super().__init__(asyncio.get_running_loop())
        self._begin_parts()
        self._head: asyncio.Future[RawResponseMessage] | None = None
        self._has_head = False  # the future may be done without: whoever waits for it may be cancelled
        self._body: StreamReader = EMPTY_PAYLOAD
        self._break: Exception | None = None
        self._has_news = True  # since `take` has returned None, or may have
        self._is_spent = self._opens_tunnel = False
        self._upload: asyncio.Task[None] | None = None
        self._came: float | None = None  # when the oldest byte came that nobody has taken
        self.arrived = 0.0  # when the oldest byte of what was taken last had come, by the monotonic clock
        self.on_more: Callable[[], None] | None = None  # called whenever `take` may have something new to say

    def send(self, request: bytes, *, opens_tunnel: bool = False) -> None:
        """Begin an exchange. `opens_tunnel`: behind the answer's head comes another protocol. Raises BrokenAnswer."""
        self._opens_tunnel = opens_tunnel
        self._parser = HttpResponseParser(
            self,
            self._loop,
            BUFFER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            payload_exception=BrokenAnswer,
            response_with_body=not opens_tunnel,
            read_until_eof=True,
        )
        self._head, self._has_head = self._loop.create_future(), False
        self._body = EMPTY_PAYLOAD
        self.write(request)

    def upload(self, chunks: AsyncIterator[bytes], *, is_chunked: bool) -> None:
        """Send a request's body as it comes, while the answer may already begin."""
        # This task lives as long as the exchange: `end` and `connection_lost` stop it.
        self._upload = self._loop.create_task(self._send_all(chunks, is_chunked))

    async def head(self) -> RawResponseMessage:
        """The head of the answer. Raises BrokenAnswer."""
        assert self._head is not None  # after `send`
        return await self._head

    def take(self) -> bytes | None:
        """The next bytes of the body; b"" at its end, None where none have come. Raises BrokenAnswer."""
        if not self._has_news:
            return None  # asked after each chunk: no look into the reader
        if self._head is None:
            raise BrokenAnswer("the exchange is over")
        found = self._body.exception()
        if found is not None:
            # The reader would withhold what came before a break, and the answer may be complete in it.
            self._break = self._break or BrokenAnswer(str(found))
            self._body.set_exception(None)  # type: ignore[arg-type]
        if data := self._body.read_nowait(MAX_READ_BYTES):
            self.arrived, self._came = self.arrived if self._came is None else self._came, None
            is_all = len(data) < MAX_READ_BYTES and self._break is None and not self._body.is_eof()
            self._has_news = not is_all
            return data
        self._came = None  # what came was no body
        if self._body.is_eof():
            return b""
        if self._break is not None:
            raise self._break
        self._has_news = False
        return None

    async def more(self) -> None:
        """Wait until `take` may have something new to say. For one at a time."""
        waiter = self._loop.create_future()
        self.on_more = partial(_wake, waiter)
        try:
            await waiter
        finally:
            self.on_more = None

    @property
    def is_clean(self) -> bool:
        """Whether the exchange has ended, on both sides, so that another may begin."""
        is_sent = self._upload is None or self._upload.done()
        return self.is_open and is_sent and self._has_ended

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return not self._is_spent and not self._late and self.transport is not None and not self.transport.is_closing()

    @property
    def _has_ended(self) -> bool:
        return self._has_head and self._body.is_eof()

    def end(self) -> None:
        """Forget the exchange. What comes after it nobody has asked for."""
        self._is_spent, self._late = self._is_spent or bool(self._late), b""
        if self._upload is not None:
            self._upload.cancel()
        self._upload = self._head = self._parser = self._break = self.on_more = None
        self._has_news = True
        self._body, self._has_head, self._came = EMPTY_PAYLOAD, False, None

    def abort(self) -> None:
        """Close at once. Who still waits is told that the answer broke."""
        self._fail(BrokenAnswer("the connection was given up"))
        self.end()

    def write(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            raise BrokenAnswer("the upstream has closed the connection")
        self.transport.write(data)

    # `asyncio.Protocol`.

    def data_received(self, data: bytes) -> None:
        if (self._late or len(data) > PARSED_BYTES) and self._puts_off(data):
            return
        self._has_news = True
        if self._came is None:
            self._came = time.monotonic()
        if self._parser is None:
            self.abort()
            return
        try:
            messages, is_upgraded, _ = self._parser.feed_data(data)
            for message, body in messages:
                self._receive_head(message, body)
            if self._has_head and self._body.is_eof() and self._parser.feed_eof() is not None:
                self._is_spent = True  # something has begun behind the end
        except Exception as exc:  # whatever a parser or a decoder finds wrong
            self._fail(exc)
            return
        self._is_spent = self._is_spent or is_upgraded
        if self.on_more is not None:
            self.on_more()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # the reader asks for it each time that something is taken
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._late:
            self._parse(len(self._late))  # the answer may be complete in it
        self._is_spent = self._has_news = True
        super().connection_lost(exc)
        if self._parser is None:
            return
        try:
            if exc is not None:
                self._fail(BrokenAnswer(type(exc).__name__))
            elif self._head is not None and not self._head.done():
                self._fail(BrokenAnswer("the upstream closed the connection without an answer"))
            elif not self._body.is_eof():
                self._parser.feed_eof()
        except Exception as broken:
            self._fail(broken)
        if self.on_more is not None:
            self.on_more()

    def _receive_head(self, message: RawResponseMessage, body: StreamReader) -> None:
        assert self._head is not None  # while there is a parser
        if 100 <= message.code <= 199 and message.code != 101:
            return
        if self._head.done():
            self._is_spent = True  # a second answer to one request, or one that nobody waits for
            return
        codings = [coding.lower() for coding in message.headers.getall("transfer-encoding", [])]
        if message.version not in (HttpVersion10, HttpVersion11) or codings not in ([], ["chunked"]):
            raise BrokenAnswer("an answer in a version or a coding that nobody asked for")
        self._is_spent = self._is_spent or (message.should_close and not self._opens_tunnel)
        self._body, self._has_head = body, True
        self._head.set_result(message)

    def _fail(self, exc: Exception) -> None:
        broken = exc if isinstance(exc, BrokenAnswer) else BrokenAnswer(type(exc).__name__)
        self._is_spent = self._has_news = True
        if self._head is not None and not self._head.done():
            self._head.set_exception(broken)
            self._head.exception()  # where nobody waits for it, that is nothing to complain about
        self._break = self._break or broken
        if self.transport is not None:
            self.transport.abort()
        if self.on_more is not None:
            self.on_more()

    async def _send_all(self, chunks: AsyncIterator[bytes], is_chunked: bool) -> None:
        try:
            async for chunk in chunks:
                self.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)
                await self._drain_helper()  # no faster than the upstream takes it
            if is_chunked:
                self.write(b"0\r\n\r\n")
        except Exception as exc:  # the client's doing, or the upstream's: a request that is not whole cannot go on
            self._fail(exc)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
