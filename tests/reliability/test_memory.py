"""Rows of docs/reliability.md that ask how much memory or CPU little input takes: traced, or counted by turns."""

import asyncio
import gzip
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.driver import WORDS, answer
from tests.fakes import QuickGuard, RawUpstream, ScriptedUpstream, framed
from tests.servers import weir
from tests.sockets import ask, connected, http_request
from tests.turns import watched

IS_LONG = "WEIR_LONG" in os.environ
MIB = 1 << 20
DRIP = b"x-long: " + b"x" * 992


@asynccontextmanager
async def traced(at_most: float) -> AsyncIterator[None]:
    """Fails where more than so many bytes are held at once, by client, server and upstream together."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        most = tracemalloc.get_traced_memory()[1] - before
        print(f"{most / MIB:.2f} MiB at the most")
        assert most < at_most
    finally:
        tracemalloc.stop()


async def test_a6_a_head_and_trailers_without_measure_take_no_memory() -> None:
    begin = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    body = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    trailers = body + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    async with weir(ScriptedUpstream(answer(WORDS))) as server, traced(4 * MIB):
        for start, piece in ((begin, DRIP), (begin, b"x: x\r\n"), (trailers, b"x: x\r\n")):
            async with asyncio.timeout(20), connected(server.url) as client:
                await client.send(start)
                try:
                    for _ in range(200):
                        await client.send(piece * 50)
                except ConnectionError:
                    pass  # it has had enough
                assert b" 200 " not in await client.closed()


async def test_a7_a_flood_of_pipelined_requests_takes_little_memory() -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with weir() as server, connected(server.url) as client, traced(2 * MIB):
        for _ in range(100):
            await client.send(one * 100)
            await client.read_until(b"ok")
            client.received = b""
        assert (await ask(server.url, one)).status == 200


async def test_a11_a_body_in_chunks_of_one_byte_is_read_in_short_turns() -> None:
    head, _, content = http_request(stream=True).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    drops = b"".join(b"1\r\n%c\r\n" % byte for byte in content + b" " * 200_000) + b"0\r\n\r\n"
    async with watched(ScriptedUpstream(answer(WORDS))) as server:
        raw = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + drops
        assert (await ask(server.url, raw)).status == 200
        assert server.longest < 0.02  # 2 to 4 ms: a part of what one read of the socket brings, parsed


async def test_e6_a_compressed_bomb_takes_no_memory() -> None:
    """50 MB of one event in 50 kB."""
    bomb = framed(gzip.compress(b"data: " + b"x" * (50 * MIB)), "length")
    raw = bomb.replace(b"\r\n", b"\r\ncontent-encoding: gzip\r\n", 1)
    async with weir(RawUpstream(raw), upstream__max_event_bytes=MIB) as server, traced(4 * MIB):
        reply = await ask(server.url, stream=True)
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreadable")


async def test_e9_very_many_streams_at_once_find_a_connection_each() -> None:
    count = 1000 if IS_LONG else 100
    upstream = ScriptedUpstream(answer(WORDS), first_byte_delay=5.0 if IS_LONG else 1.0)
    async with weir(upstream, QuickGuard()) as server, asyncio.timeout(300), asyncio.TaskGroup() as group:

        async def one() -> bool:
            async with connected(server.url) as client:
                await client.send(http_request(stream=True))
                return (await client.reply()).is_complete

        tasks = [group.create_task(one()) for _ in range(count)]
        while len(upstream.requests) < count and not any(task.done() for task in tasks):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print(f"{len(upstream.requests)} of {count} at once")
    assert all(task.result() for task in tasks)
