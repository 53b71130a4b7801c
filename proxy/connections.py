"""Clients' connections: how many there may be, and what one gets that does not speak HTTP."""

import asyncio
import errno
import ipaddress
import math
import selectors
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, ClassVar, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from proxy.errors import INTERNAL, ApiError, place_of
from proxy.handlers import HTTP_LOGGER
from proxy.in_parts import PARSED_BYTES, InParts
from proxy.limits import Limit
from proxy.log import Seldom
from proxy.replies import error_response
from proxy.server_settings import ServerSettings
from proxy.shedding import Shedding

if sys.platform != "win32":
    import resource

# Request heads: far above real ones.
MAX_LINE_BYTES = 8190
MAX_HEADERS = 128
# For the head of a request, and between two of them. Above the 60 s after which load balancers
# drop a connection, so that it is never we who close one that they are about to use.
IDLE_CONNECTION_SECONDS = 75.0
# For a client whose request was refused to read why, before its connection is closed on it.
LINGER_SECONDS = 5.0
# Lines that say of a connection that it does not speak HTTP: more would only help to fill the disk.
HTTP_LINES_A_SECOND = 5
# Files that are open besides connections: logs, listeners, the guard's socket, libraries that are loaded late.
OTHER_FILES = 64
# A connection may need one to the upstream.
FILES_OF_A_CONNECTION = 2

NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Turns of the event loop in which what is to be closed may still be read.
MOST_TURNS = 100
# Turns without a new one until the last is in the server's hands.
QUIET_TURNS = 3


class Room:
    """Counts connections. Above a limit new ones are closed at once, and those that are there notice nothing."""

    def __init__(self, limit: int, tell: Callable[[ApiError], None], per_address: int | None = None) -> None:
        self.limit = limit
        self.per_address = per_address
        self.tell = tell
        self.held = 0
        self._of: Counter[str] = Counter()  # by `block_of` the address

    def enter(self, address: str = "") -> bool:
        """The address as the system tells it."""
        block = block_of(address)
        if self.held >= self.limit:
            self.tell(_crowded(Limit.CONNECTIONS))
            return False
        if self.per_address is not None and self._of[block] >= self.per_address:
            self.tell(_crowded(Limit.ADDRESS))
            return False
        self.held += 1
        self._of[block] += 1
        return True

    def leave(self, address: str = "") -> None:
        self.held -= 1
        block = block_of(address)
        self._of[block] -= 1
        if not self._of[block]:
            del self._of[block]


def _crowded(limit: Limit) -> ApiError:
    return ApiError(503, "Too many connections.", code="too_many_connections", limit=limit)


def block_of(address: str) -> str:
    """What one client may have: an address, or the /64 of an IPv6 one."""
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def most_connections(settings: ServerSettings) -> int:
    """As many as the settings and the system's limit of open files allow."""
    if sys.platform == "win32":
        return settings.max_connections
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return settings.max_connections
    return min(settings.max_connections, max(1, (files - OTHER_FILES) // FILES_OF_A_CONNECTION))


def allow_all_files() -> None:
    """Take as many open files as the system lets us have; the usual 1,024 are for programs without connections."""
    if sys.platform != "win32":
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):  # some systems give an upper limit that they then refuse
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tell_seldom_of_files(loop: asyncio.AbstractEventLoop) -> None:
    """Without uvloop, a loop that has no descriptor for who connects says so a thousand times a second."""
    lines = Seldom(1)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_FILES or "socket" not in context:
            loop.default_exception_handler(context)
        elif lines.pick() is not None:
            HTTP_LOGGER.warning("nobody can connect: %s", error.strerror)

    loop.set_exception_handler(handle)


async def stop_listening(listener: asyncio.Server) -> None:
    """Close, once those are let in that the system has already connected: a close would cut them off."""
    await _until_quiet(found.fileno() for found in listener.sockets)
    listener.close()


async def hear_out(server: web.Server) -> None:
    """Let those ask who have sent something on a connection that they keep: a close would lose it."""
    sockets = (one.transport.get_extra_info("socket") for one in server.connections if one.transport is not None)
    await _until_quiet(found.fileno() for found in sockets if found is not None)


async def _until_quiet(files: Iterable[int]) -> None:
    """Until nothing waits there to be read, and what did is in the server's hands."""
    with selectors.DefaultSelector() as selector:
        for file in files:
            if file >= 0:
                selector.register(file, selectors.EVENT_READ)
        quiet = 0
        for _ in range(MOST_TURNS):
            quiet = 0 if selector.select(0) else quiet + 1
            if quiet > QUIET_TURNS:
                break
            await asyncio.sleep(0)


class Connection(InParts, web.RequestHandler):
    """One client's connection. What is not HTTP gets a fixed answer and at most one short line in the log."""

    __slots__ = (
        *("_address", "_has_spoken", "_is_let_in", "_room", "_send_seconds", "_shedding"),
        *("_is_parsing", "_late", "_turn"),
    )
    _lines: ClassVar[Seldom] = Seldom(HTTP_LINES_A_SECOND)

    def __init__(self, server: web.Server, settings: ServerSettings, room: Room, shedding: Shedding) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # one record a request says more
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,  # such bodies are refused; what is left of them is read, and costs nothing more
        )
        self._send_seconds = settings.send_seconds
        self._room, self._address, self._is_let_in = room, "", False
        self._shedding, self._has_spoken = shedding, False
        self._begin_parts()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._is_let_in = self._room.enter(self._address)
        if not self._is_let_in:
            cast(asyncio.Transport, transport).abort()  # it has asked nothing yet, and may try again
            return
        found: socket.socket | None = transport.get_extra_info("socket")
        if found is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # The last bytes of an answer wait in the kernel; this bounds how long.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(self._send_seconds * 1000))

    def data_received(self, data: bytes) -> None:
        # Once something of it was read, only the parser knows where a request begins.
        # And who reads no refusals gets no more of them to pile up.
        is_new = not self._has_spoken and not self.writing_paused
        if is_new and self.transport is not None and (refusal := self._shedding.answer(data)) is not None:
            self.transport.write(refusal)
            return
        self._has_spoken = True
        if (self._late or len(data) > PARSED_BYTES) and self._puts_off(data):
            return
        super().data_received(data)

    def _all_parsed(self) -> None:
        self._resume_reading_if_drained()

    def _resume_reading_if_drained(self) -> None:
        if self._late:
            self.data_received(b"")  # the parser goes on; more is read when all of it is parsed
        else:
            super()._resume_reading_if_drained()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._is_let_in:
            self._is_let_in = False
            self._room.leave(self._address)

    def _process_keepalive(self) -> None:
        was_open = not self._force_close
        super()._process_keepalive()
        if was_open and self._force_close:
            self._room.tell(ApiError(408, "", limit=Limit.HEAD_SECONDS))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone, which is nothing to tell anyone
        if isinstance(exc, UnicodeEncodeError) and "Expect" in request.headers:
            status = 417  # aiohttp quotes an expectation that it does not know, and fails where that is no text
        if limit := _limit_of(exc):
            self._room.tell(ApiError(status, "", limit=limit))
        if self._lines.pick() is not None:
            HTTP_LOGGER.warning("not served: %s", "nothing known" if exc is None else place_of(exc))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so its end must stay missing")
        text = "The request cannot be read." if status < 500 else INTERNAL.message
        response = error_response(ApiError(status, text, code=None if status < 500 else INTERNAL.code), {})
        response.force_close()
        return response


def _limit_of(exc: BaseException | None) -> str:
    """The limit of a request's head that was met, if that is why it cannot be read."""
    if isinstance(exc, LineTooLong):
        return Limit.HEAD
    return Limit.HEADERS if isinstance(exc, BadHttpMessage) and exc.message.startswith("Too many") else ""
