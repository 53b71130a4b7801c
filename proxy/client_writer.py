"""A streamed answer on its way to the client: head and chunks in bytes of our own, straight to the transport.

aiohttp's `StreamResponse.write` is a coroutine a chunk, through three layers. It has read the request, and is told
at the end what was sent; what lies between is here.
"""

import functools
import re
import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import HttpVersion11, web
from aiohttp.http import SERVER_SOFTWARE

from proxy.chunk_writer import ChunkWriter
from proxy.deadline import Deadline

CHUNKED = {"transfer-encoding": "chunked"}
CHUNKED_AND_LAST = {**CHUNKED, "connection": "close"}
# In a header's name or value these would begin another header.
FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class SlowClient(ConnectionAbortedError):
    """A client that did not take what was sent within `server.send_seconds`."""


class ClientWriter:
    """Writes one answer of status 200, of a length that nobody knows yet.

    response = writer.begin(headers, keeps_open=True)
    writer.chunks.write(data)                  # at once, the head with it; it never waits
    if writer.chunks.is_full:                  # the client is slower than the upstream: read no more until
        await writer.drain()                   # it has taken some, or raise SlowClient
    writer.chunks.write(data, is_last=True)    # one packet for the end and what comes before it
    return response                        # to aiohttp, which calls its `write_eof`
    """

    __slots__ = (
        "_deadline",
        "_is_chunked",
        "_protocol",
        "_request",
        "_send_seconds",
        "chunks",
        "has_hung_up",
    )

    def __init__(self, request: web.Request, send_seconds: float) -> None:
        self._request = request
        self._protocol = request.protocol
        self._send_seconds = send_seconds
        self._deadline: Deadline | None = None
        self._is_chunked = request.version >= HttpVersion11  # an older client reads until we close
        self.chunks = ChunkWriter(request.protocol, is_chunked=self._is_chunked)
        self.has_hung_up = False

    def begin(self, headers: Mapping[str, str], *, keeps_open: bool) -> web.StreamResponse:
        """Make the head; returns what aiohttp is to be told. `keeps_open`: the connection may serve again.

        Raises ValueError for what no header may hold.
        """
        keeps_open = keeps_open and self._is_chunked and self._request.keep_alive
        all_headers = {**headers, "date": _date(int(time.time())), "server": SERVER_SOFTWARE}
        if self._is_chunked:
            all_headers |= CHUNKED if keeps_open else CHUNKED_AND_LAST
        lines = [f"{name}: {text}" for name, text in all_headers.items()]
        if FORBIDDEN.search("".join(lines)):
            raise ValueError("a header with a control character in it")
        version = self._request.version
        first = f"HTTP/{version.major}.{version.minor} 200 OK"
        self.chunks.head = head = "\r\n".join([first, *lines, "\r\n"]).encode()
        self._request.writer.output_size += len(head)  # so that aiohttp knows that an answer has begun
        return _Sent(self, keeps_open=keeps_open)

    async def drain(self) -> None:
        """Wait until the client has taken enough. Raises SlowClient, having hung up; ConnectionError."""
        if self._deadline is None:
            self._deadline = Deadline()
        try:
            with self._deadline.within(self._send_seconds):
                await self._request.writer.drain()
        except TimeoutError as exc:
            raise self.hang_up() from exc

    def hang_up(self) -> SlowClient:
        """On a client that does not read, and would hold the upstream and the guard for ever; returns what to raise."""
        self.has_hung_up = True
        if self._protocol.transport is not None:
            self._protocol.transport.abort()
        return SlowClient("the client does not read")

    def close(self) -> None:
        """Stop the timer."""
        if self._deadline is not None:
            self._deadline.close()


class _Sent(web.StreamResponse):
    """What aiohttp gets to know of an answer that it did not write."""

    def __init__(self, writer: ClientWriter, *, keeps_open: bool) -> None:
        super().__init__()
        self._writer = writer
        self._keeps_open = keeps_open

    @property
    def keep_alive(self) -> bool:
        return self._keeps_open

    async def prepare(self, request: web.BaseRequest) -> None:
        """The head is out."""

    async def write_eof(self, data: bytes = b"") -> None:
        self._writer.chunks.end()


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    """As HTTP writes it; written once a second."""
    return formatdate(second, usegmt=True)
