"""A relay on one link, and what may be wrong with the link: the eight toxics of Shopify's toxiproxy, in this process.

A toxic acts on what the server says from a place in its bytes on; from the very start, it acts on both directions.
"""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from proxy.guard.wire import LENGTH

TOXICS = ("latency", "bandwidth", "slicer", "reset", "slow close", "timeout", "limit data", "down")
LATENCY_SECONDS = 0.03
CLOSE_SECONDS = 0.3
LIMIT_BYTES = 40


class Place(Protocol):
    """Finds where a toxic begins to act."""

    def find(self, chunk: bytes) -> int | None:
        """How many bytes of the chunk come before that; None: all of them do."""


@dataclass
class Start:
    """From the first byte of an answer on."""

    def find(self, chunk: bytes) -> int | None:
        return 0


@dataclass
class Text:
    """Behind the n-th match of a pattern."""

    pattern: bytes
    count: int = 1
    _seen: bytes = b""

    def find(self, chunk: bytes) -> int | None:
        before = len(self._seen)
        self._seen += chunk
        ends = [match.end() for match in re.finditer(self.pattern, self._seen)]
        return max(0, ends[self.count - 1] - before) if len(ends) >= self.count else None


@dataclass
class Frames:
    """Behind the n-th frame of the guard's wire."""

    count: int
    _seen: bytes = b""

    def find(self, chunk: bytes) -> int | None:
        before, at = len(self._seen), 0
        self._seen += chunk
        for _ in range(self.count):
            if len(self._seen) < at + LENGTH.size:
                return None
            at += LENGTH.size + LENGTH.unpack_from(self._seen, at)[0]
        return max(0, at - before) if len(self._seen) >= at else None


@dataclass
class Toxic:
    kind: str
    place: Place | None = None  # None: from the connection's first moment on
    once: bool = False  # only the first connection is ill
    closes: bool = True  # "timeout": close after a while, or never


@dataclass
class Relay:
    """Between whoever connects to `address` and the server at `target`: (host, port), or the path of a unix socket."""

    target: tuple[str, int] | str
    toxic: Toxic | None = None
    connections: int = 0
    address: tuple[str, int] | str = ""
    _first: int = 1  # the number of the first connection that is ill
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        assert not isinstance(self.address, str)
        return f"http://127.0.0.1:{self.address[1]}"

    @asynccontextmanager
    async def running(self, path: str | None = None) -> AsyncIterator["Relay"]:
        if path is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.address = self._server.sockets[0].getsockname()[:2]
        else:
            self._server, self.address = await asyncio.start_unix_server(self._serve, path), path
        try:
            if self.toxic is not None and self.toxic.kind == "down" and self.toxic.place is None:
                self._server.close()
            yield self
        finally:
            self._server.close()
            await self.cut()

    async def arm(self, toxic: Toxic) -> None:
        """Make the link ill from now on: what is connected, or for a toxic without a place what comes next."""
        self.toxic, self._first = toxic, max(1, self.connections + (toxic.place is None))
        if toxic.place is None:
            if toxic.kind == "down":
                self._stop()
            await self.cut()

    def _illness(self, number: int) -> Toxic | None:
        """What the connection of this number suffers from."""
        if self.toxic is None or number < self._first or (self.toxic.once and number > self._first):
            return None
        return self.toxic

    async def cut(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer, self.connections)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        toxic = self._illness(number)
        if toxic is not None and toxic.place is None and toxic.kind in ("reset", "timeout", "down"):
            await self._end(toxic, writer)
            return
        if isinstance(self.target, str):
            there_reader, there_writer = await asyncio.open_unix_connection(self.target)
        else:
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._copy(reader, there_writer, number, is_question=True))
                down = group.create_task(self._copy(there_reader, writer, number))
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                if down.done():
                    up.cancel()
                else:
                    there_writer.transport.abort()  # who asked is gone
        finally:
            there_writer.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, is_question: bool = False
    ) -> None:
        """Pass bytes on until they end or a toxic ends them. Questions suffer only from toxics without a place."""
        toxic = None
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                toxic = self._illness(number)
                if toxic is not None and is_question and toxic.place is not None:
                    toxic = None
                at = None if toxic is None else 0 if toxic.place is None else toxic.place.find(chunk)
                if toxic is None or at is None:
                    writer.write(chunk)
                    await writer.drain()
                    continue
                writer.write(chunk[:at])
                await writer.drain()
                toxic.place = toxic.place and Start()
                if not await self._poison(chunk[at:], writer, toxic):
                    return
            if toxic is not None and toxic.kind == "slow close":
                await asyncio.sleep(CLOSE_SECONDS)
        await _close(writer)

    async def _poison(self, data: bytes, writer: asyncio.StreamWriter, toxic: Toxic) -> bool:
        """Pass what the toxic lets pass; false where it ended the connection."""
        if toxic.kind in ("reset", "timeout", "down"):
            await self._end(toxic, writer)
            return False
        if toxic.kind == "limit data":
            writer.write(data[:LIMIT_BYTES])
            await _close(writer)
            return False
        if toxic.kind == "latency":
            await asyncio.sleep(LATENCY_SECONDS)
        size = {"slicer": 7, "bandwidth": 512}.get(toxic.kind, 1 << 16)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.002 if toxic.kind == "bandwidth" else 0)
        return True

    async def _end(self, toxic: Toxic, writer: asyncio.StreamWriter) -> None:
        if toxic.kind == "timeout":
            await asyncio.sleep(CLOSE_SECONDS if toxic.closes else 3600)
        if toxic.kind == "down":
            self._stop()
        if toxic.kind == "reset":
            found: socket.socket = writer.get_extra_info("socket")
            if found.family != socket.AF_UNIX:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let what was written leave, then close."""
    with suppress(ConnectionError):
        await writer.drain()
        writer.close()
        await writer.wait_closed()
