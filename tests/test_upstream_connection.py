"""One connection: what it takes for an answer, what it refuses, and when it may serve again."""

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import brotli  # type: ignore[import-untyped]
import pytest
from backports import zstd

from proxy.errors import BrokenAnswer
from proxy.upload import send
from proxy.upstream_connection import BUFFER_BYTES, MAX_READ_BYTES, UpstreamConnection
from proxy.upstream_route import protocol
from tests.fakes import framed

# Far above what two sockets hold.
MOST_BYTES = 200 << 20
REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


class Peer:
    """The upstream's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def asked(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[UpstreamConnection, Peer]]:
    """A connection, and the peer to which it has just sent a request."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    server = await asyncio.start_server(lambda *ends: peers.put_nowait(Peer(*ends)), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, found = await asyncio.get_running_loop().create_connection(protocol, "127.0.0.1", port)
    connection = cast(UpstreamConnection, found)
    peer = await peers.get()
    try:
        async with asyncio.timeout(20):
            connection.send(REQUEST)
            assert await peer.asked() == REQUEST
            yield connection, peer
    finally:
        connection.abort()
        peer.writer.transport.abort()
        server.close()


async def body_of(connection: UpstreamConnection) -> bytes:
    parts = []
    while part := await next_part(connection):
        parts.append(part)
    return b"".join(parts)


async def next_part(connection: UpstreamConnection) -> bytes:
    while (part := connection.take()) is None:
        await connection.more()
    return part


async def settled(connection: UpstreamConnection) -> None:
    """Once the connection has heard of what its peer did."""
    await until(lambda: not connection.is_open)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_an_answer_cut_anywhere_is_read_whole(framing: str) -> None:
    raw = framed(b"x" * 100, framing, size=7)
    for size in (1, 7, 1000):
        async with linked() as (connection, peer):
            for at in range(0, len(raw), size):
                await peer.send(raw[at : at + size])
                await asyncio.sleep(0)
            if framing == "close":
                peer.writer.write_eof()
            assert (await connection.head()).code == 200
            assert await body_of(connection) == b"x" * 100
            assert connection.is_clean is (framing != "close")


async def test_an_exchange_follows_another() -> None:
    async with linked() as (connection, peer):
        for number in range(3):
            await peer.send(OK.replace(b"abc", b"ab%d" % number))
            await connection.head()
            assert await body_of(connection) == b"ab%d" % number
            assert connection.is_clean
            connection.end()
            assert not connection.is_clean
            connection.send(REQUEST)
            await peer.asked()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/2.0 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/0.9 200 OK\r\n\r\nabc",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"",
    ],
)  # fmt: skip
async def test_an_answer_that_cannot_be_read_for_certain_is_none(head: bytes) -> None:
    async with linked() as (connection, peer):
        await peer.send(head)
        peer.writer.write_eof()
        with pytest.raises(BrokenAnswer):
            await connection.head()
        assert not connection.is_clean
        await settled(connection)


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\nabc\r\n-1\r\n",
        b"3\r\nabc\r\nffffffffffffffffffff\r\n",
        b"3\r\nabc\r\nzz\r\n",
        b"3\r\nabcdef\r\n",
        b"3\r\nabc\r\n",
    ],
)
async def test_what_came_before_a_broken_chunk_is_read_and_then_the_break_is_told(body: bytes) -> None:
    async with linked() as (connection, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await connection.head()
        await peer.send(body)
        peer.writer.write_eof()
        assert await next_part(connection) == b"abc"
        for _ in range(2):
            with pytest.raises(BrokenAnswer):
                await next_part(connection)
        assert not connection.is_clean


async def test_a_reset_is_no_end_of_a_body_without_a_length() -> None:
    async with linked() as (connection, peer):
        await peer.send(framed(b"abc", "close"))
        await connection.head()
        assert await next_part(connection) == b"abc"
        peer.writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: abort resets
        peer.writer.transport.abort()
        with pytest.raises(BrokenAnswer):
            await next_part(connection)


@pytest.mark.parametrize(
    "early", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3]
)
async def test_interim_answers_are_passed_over(early: bytes) -> None:
    async with linked() as (connection, peer):
        await peer.send(early + OK)
        assert (await connection.head()).code == 200
        assert await body_of(connection) == b"abc"
        assert connection.is_clean


@pytest.mark.parametrize("more", [OK, OK[:12], b"x", b"connection: close"])
@pytest.mark.parametrize("is_late", [False, True])
async def test_what_comes_behind_an_answer_spoils_the_connection(more: bytes, is_late: bool) -> None:
    async with linked() as (connection, peer):
        await peer.send(OK[:-3])
        await connection.head()
        await peer.send(OK[-3:] + (b"" if is_late else more))
        if is_late:
            assert await body_of(connection) == b"abc"
            await peer.send(more)
            await settled(connection)
            return
        assert await body_of(connection) == b"abc"
        assert not connection.is_clean


async def test_what_nobody_asked_for_spoils_an_idle_connection() -> None:
    async with linked() as (connection, peer):
        await peer.send(OK)
        await connection.head()
        assert await body_of(connection) == b"abc"
        connection.end()
        await peer.send(OK)
        await settled(connection)


@pytest.mark.parametrize(
    "raw", [OK.replace(b"\r\n", b"\r\nconnection: close\r\n", 1), OK.replace(b"HTTP/1.1", b"HTTP/1.0")]
)
async def test_a_connection_that_its_peer_means_to_close_serves_no_more(raw: bytes) -> None:
    async with linked() as (connection, peer):
        await peer.send(raw)
        await connection.head()
        assert await body_of(connection) == b"abc"
        assert not connection.is_clean


async def test_who_stops_waiting_for_a_head_has_not_had_an_answer() -> None:
    async with linked() as (connection, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.head()
        assert not connection.is_clean
        await peer.send(OK)
        await settled(connection)
        connection.end()
        with pytest.raises(BrokenAnswer):
            connection.take()


async def test_who_waits_for_a_connection_that_is_given_up_is_told() -> None:
    for after_head in (False, True):
        async with linked() as (connection, peer), asyncio.TaskGroup() as group:
            if after_head:
                await peer.send(OK[:-1])
                await connection.head()
                assert await next_part(connection) == b"ab"
            task = group.create_task(outcome_of(connection))
            await asyncio.sleep(0)
            connection.abort()
            assert await task == "BrokenAnswer"


async def outcome_of(connection: UpstreamConnection) -> str:
    try:
        await connection.head()
        return str(await next_part(connection))
    except BrokenAnswer as exc:
        return type(exc).__name__


def packed(name: str, data: bytes) -> bytes:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}[name]
    found: bytes = pack(data)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n" % (name.encode(), len(found)) + found
    )


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_compressed_body_is_unpacked_in_steps(name: str, has_length: bool) -> None:
    data = b"x" * 2_000_000
    async with linked() as (connection, peer):
        raw = packed(name, data)
        await peer.send(raw if has_length else raw.replace(b"content-length", b"x-length"))
        if not has_length:
            peer.writer.write_eof()
        await connection.head()
        size = 0
        while part := await next_part(connection):
            assert len(part) <= MAX_READ_BYTES
            size += len(part)
        assert size == len(data)
        assert connection.is_clean is has_length


async def test_a_body_that_is_not_packed_as_it_says_is_broken() -> None:
    async with linked() as (connection, peer):
        await peer.send(OK.replace(b"\r\n", b"\r\ncontent-encoding: gzip\r\n", 1))
        await connection.head()
        with pytest.raises(BrokenAnswer):
            await next_part(connection)
        assert not connection.is_clean


async def test_an_upstream_waits_for_a_reader_that_does_not_read() -> None:
    """It can send what we hold and what the sockets hold, and no more."""
    sent = 0
    async with linked() as (connection, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        await connection.head()
        with suppress(TimeoutError):
            while sent < MOST_BYTES:
                async with asyncio.timeout(1):
                    await peer.send(b"x" * BUFFER_BYTES)
                sent += BUFFER_BYTES
        assert sent < MOST_BYTES
        while sent > 0:
            sent -= len(await next_part(connection))


async def test_a_body_is_sent_as_it_comes_and_an_early_answer_is_heard() -> None:
    goes_on = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"
        await goes_on.wait()
        yield b"de"

    async with linked() as (connection, peer):
        connection.upload(send(chunks(), connection, is_chunked=True))
        assert await peer.reader.readexactly(8) == b"3\r\nabc\r\n"
        await peer.send(OK)
        await connection.head()
        assert await body_of(connection) == b"abc"
        assert not connection.is_clean  # half of a request is still to be sent
        goes_on.set()
        assert await peer.reader.readexactly(12) == b"2\r\nde\r\n0\r\n\r\n"
        await until(lambda: connection.is_clean)


async def test_a_body_that_breaks_breaks_the_exchange() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ValueError("the client's body")

    async with linked() as (connection, peer):
        connection.upload(send(chunks(), connection, is_chunked=False))
        with pytest.raises(BrokenAnswer):
            await connection.head()
        assert await peer.reader.read() == b"abc"


async def test_it_says_since_when_the_oldest_byte_of_what_is_taken_was_there() -> None:
    clock = time.monotonic
    async with linked() as (connection, peer):
        begin = clock()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await connection.head()
        assert connection.take() is None  # a head is no body
        between = clock()
        await peer.send(b"abc")
        await connection.more()
        came = clock()
        await peer.send(b"def")
        await connection.more()
        assert connection.take() == b"abcdef"
        assert begin < between <= connection.arrived <= came
        await peer.send(b"ghi")
        await connection.more()
        assert connection.take() == b"ghi"
        assert came <= connection.arrived <= clock()
