"""What a client gets over a socket of an answer that the writer sends. How answers end: e2e/test_streams.py."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from proxy.client_writer import ClientWriter, SlowClient
from tests.fakes import listening
from tests.sockets import Client, connected, http_request

Script = Callable[[ClientWriter], Awaitable[None]]


@asynccontextmanager
async def client_of(
    script: Script, *, send_seconds: float = 30.0, keeps_open: bool = True, receive_buffer: int | None = None
) -> AsyncIterator[Client]:
    """A connection to a server that begins each answer and has `script` write the rest."""

    async def answer(request: web.Request) -> web.StreamResponse:
        writer = ClientWriter(request, send_seconds)
        response = writer.begin({"content-type": "text/plain"}, keeps_open=keeps_open)
        try:
            await script(writer)
        finally:
            writer.close()
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with asyncio.timeout(30), listening(app) as url, connected(url, receive_buffer=receive_buffer) as client:
        yield client


async def three(writer: ClientWriter) -> None:
    for data in (b"one", b"\r\n0\r\n\r\n", b"x" * 300):
        writer.chunks.write(data)
        await asyncio.sleep(0)


async def test_an_answer_comes_in_chunks_and_the_connection_serves_again() -> None:
    async with client_of(three) as client:
        for _ in range(3):
            await client.send(http_request())
            reply = await client.reply()
            assert (reply.status, reply.is_complete) == (200, True)
            assert reply.body == b"one" + b"\r\n0\r\n\r\n" + b"x" * 300
            assert reply.headers["content-type"] == "text/plain"
            assert reply.headers["date"].endswith("GMT")
            assert "connection" not in reply.headers
            client.received = b""


@pytest.mark.parametrize(("keeps_open", "asked"), [(False, "keep-alive"), (True, "close")])
async def test_a_connection_that_is_not_to_serve_again_says_so_and_closes(keeps_open: bool, asked: str) -> None:
    async with client_of(three, keeps_open=keeps_open) as client:
        await client.send(http_request(headers={"Connection": asked}))
        raw = await client.closed()
        assert b"connection: close\r\n" in raw
        assert raw.endswith(b"\r\n0\r\n\r\n")


async def test_an_older_client_gets_the_bytes_alone_and_then_the_end() -> None:
    async with client_of(three) as client:
        old = http_request(headers={"Connection": "keep-alive"}).replace(b"HTTP/1.1", b"HTTP/1.0")
        await client.send(old)
        head, _, body = (await client.closed()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"chunked" not in head
        assert body == b"one" + b"\r\n0\r\n\r\n" + b"x" * 300


async def test_a_head_that_would_hold_another_is_refused() -> None:
    raised: list[ValueError] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        for headers in ({"a": "b\r\nc: d"}, {"a\n": "b"}, {"a": "\0"}):
            with pytest.raises(ValueError, match="control character") as caught:
                ClientWriter(request, 1.0).begin(headers, keeps_open=True)
            raised.append(caught.value)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", answer)
    async with asyncio.timeout(30), listening(app) as url, connected(url) as client:
        await client.send(http_request(path="/"))
        assert (await client.reply()).status == 200
    assert len(raised) == 3


async def test_a_client_that_does_not_read_fills_the_writer_and_is_hung_up_on() -> None:
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def endless(writer: ClientWriter) -> None:
        try:
            while True:
                writer.chunks.write(b"x" * 65536)
                if writer.chunks.is_full:
                    await writer.drain()
        except ConnectionError as exc:
            ended.set_result(exc)
            with pytest.raises(ConnectionResetError):
                writer.chunks.write(b"more")
            raise

    async with client_of(endless, send_seconds=0.2, receive_buffer=4096) as client:
        await client.send(http_request())
        assert isinstance(await ended, SlowClient)


async def test_a_client_that_reads_again_is_written_to_again() -> None:
    written: list[bytes] = []

    async def until_full_twice(writer: ClientWriter) -> None:
        for _ in range(2):
            while not writer.chunks.is_full:
                written.append(b"x" * 65536)
                writer.chunks.write(written[-1])
            await writer.drain()
            assert not writer.chunks.is_full

    async with client_of(until_full_twice, keeps_open=False) as client:
        await client.send(http_request())
        raw = await client.closed()
    assert raw.partition(b"\r\n\r\n")[2].count(b"x") == 65536 * len(written)
    assert raw.endswith(b"\r\n0\r\n\r\n")


async def test_a_client_that_left_is_told_of_by_the_next_write() -> None:
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def until_lost(writer: ClientWriter) -> None:
        try:
            while True:
                writer.chunks.write(b"more")
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.CancelledError) as exc:
            ended.set_result(exc)
            raise

    async with client_of(until_lost) as client:
        await client.send(http_request())
        await client.read_until(b"more")
        client.leave(reset=True)
        assert isinstance(await ended, ConnectionError | asyncio.CancelledError)
