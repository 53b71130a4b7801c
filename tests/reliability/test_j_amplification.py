"""Rows J6 and J7 of docs/reliability.md: what a hostile byte costs, beside a byte of an ordinary answer.

`make test ARGS='-s tests/reliability/test_j_amplification.py'` prints what each input costs.
"""

import asyncio
import functools
import gzip
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.driver import WORDS, answer, chunk
from tests.fakes import RawUpstream, ScriptedUpstream
from tests.reliability.apart import Server, Servers
from tests.reliability.hostile import CORPUS, PLAIN, Input
from tests.sockets import connected, http_request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells of another process")

IS_LONG = "WEIR_LONG" in os.environ
KIB, MIB = 1 << 10, 1 << 20
SMALL, LARGE = 10 * KIB, 3 * MIB if IS_LONG else 200 * KIB
# The bars of Envoy's developers for what a peer may cost that is not trusted are a hundred times what it sends, and a
# MiB for 10 KiB. These are ours.
MOST_BYTES_A_BYTE = 60
MOST_TIMES_THE_CPU = 50
WAITING, UNREAD = (1000, 200) if IS_LONG else (100, 20)


@dataclass(frozen=True)
class Cost:
    size: int
    cpu: float  # seconds
    memory: int  # bytes, at the most
    heard: bytes


async def hear(url: str, request: bytes) -> bytes:
    """All of the reply."""
    async with asyncio.timeout(300 if IS_LONG else 60), connected(url) as client:
        await client.send(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        parts = []
        while part := await client._more():
            parts.append(part)
        return b"".join(parts)


async def cost_of(servers: Servers, one: Input) -> Cost:
    """For a server that has answered before."""
    async with RawUpstream(PLAIN).running() as upstream:
        with servers.one(upstream__base_url=upstream.url, **one.settings) as server:
            for _ in range(3):
                await hear(server.url, http_request(stream=True))
            upstream.reply = one.answer
            return await cost_to(server, one.size, lambda: hear(server.url, one.request))


async def cost_to(server: Server, size: int, use: Callable[[], Awaitable[bytes]]) -> Cost:
    await asyncio.sleep(0.02)
    server.forget()
    cpu, memory = server.cpu, server.memory
    heard = await use()
    return Cost(size, server.cpu - cpu, server.most_memory - memory, heard)


KNOWN: dict[tuple[str, int], Cost] = {}


async def known(servers: Servers, name: str, size: int) -> Cost:
    if (name, size) not in KNOWN:
        KNOWN[name, size] = await cost_of(servers, CORPUS[name](size))
    return KNOWN[name, size]


@pytest.mark.parametrize("name", CORPUS)
async def test_j6_little_input_takes_little_memory(servers: Servers, name: str) -> None:
    small, large = await known(servers, name, SMALL), await known(servers, name, LARGE)
    print(f"{name}: {small.memory / KIB:.0f} KiB, {large.memory / large.size:.1f} bytes a byte")
    assert small.heard.startswith(b"HTTP/1.1 ")
    assert small.memory < MIB
    assert large.memory < MIB + MOST_BYTES_A_BYTE * large.size


@pytest.mark.parametrize("name", CORPUS)
async def test_j7_little_input_takes_little_cpu(servers: Servers, name: str) -> None:
    usual, found = await known(servers, "words", LARGE), await known(servers, name, LARGE)
    times = (found.cpu / found.size) / (usual.cpu / usual.size)
    print(f"{name}: {found.cpu / found.size * 1e6:.2f} us a byte, {times:.1f} times the usual")
    assert usual.heard.count(b"data: ") > LARGE / 300
    assert times < MOST_TIMES_THE_CPU


async def test_j6_many_small_questions_take_no_more_than_their_answers(servers: Servers) -> None:
    """A moderation answers five bytes with one and a half thousand."""
    data = {"model": "m", "input": ["x"] * 1000}
    found = await cost_of(servers, Input(http_request(data, path="/v1/moderations")))
    print(f"{found.memory / MIB:.1f} MiB, {len(found.heard) / MIB:.1f} MiB of answer, {found.cpu * 1e3:.0f} ms")
    assert len(json.loads(found.heard.partition(b"\r\n\r\n")[2])["results"]) == 1000
    assert found.memory < 6 * len(found.heard)


async def test_j7_many_small_questions_cost_less_than_as_many_requests(servers: Servers) -> None:
    path = "/v1/moderations"
    one = await cost_of(servers, Input(http_request({"model": "m", "input": ["x"]}, path=path)))
    many = await cost_of(servers, Input(http_request({"model": "m", "input": ["x"] * 1000}, path=path)))
    assert many.cpu < 1000 * one.cpu


async def test_j7_a_compressed_request_is_not_expanded(servers: Servers) -> None:
    bomb = http_request(gzip.compress(b" " * (50 * MIB)), headers={"Content-Encoding": "gzip"})
    found = await cost_of(servers, Input(bomb))
    print(f"{found.cpu * 1e3:.1f} ms, {found.memory / KIB:.0f} KiB")
    assert found.heard.startswith(b"HTTP/1.1 415 ")
    assert found.cpu < 0.05
    assert found.memory < MIB


async def test_j7_a_compressed_answer_costs_what_it_holds(servers: Servers) -> None:
    """Nobody has asked for it, and 40 times the CPU a byte is still the usual for each that it expands to."""
    events = b"".join(answer([" word"] * (LARGE // 200 * 10)))
    packed = gzip.compress(events)
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}"
    )
    found = await cost_of(servers, Input(http_request(stream=True), head.encode() + b"\r\n\r\n" + packed))
    usual = await known(servers, "words", LARGE)
    assert found.heard.count(b"data: ") > LARGE // 20
    assert found.cpu / len(events) < 3 * usual.cpu / usual.size
    assert found.memory < MIB + MOST_BYTES_A_BYTE * len(packed)


ENDLESS = ScriptedUpstream([chunk({"content": " word" * 2000})] * 2000)


@pytest.mark.parametrize(
    ("count", "upstream", "mark"),
    [(WAITING, ScriptedUpstream(answer(WORDS), stall_at=4), b"two"), (UNREAD, ENDLESS, b"word")],
    ids=["for an upstream", "for clients that do not read"],
)
async def test_j6_streams_that_wait_take_little_memory(
    servers: Servers, count: int, upstream: ScriptedUpstream, mark: bytes
) -> None:
    async with upstream.running(), AsyncExitStack() as stack:
        server = stack.enter_context(servers.one(upstream__base_url=upstream.url, server__send_seconds=100))

        async def begin(count: int) -> bytes:
            for _ in range(count):
                client = await stack.enter_async_context(connected(server.url, receive_buffer=4096))
                await client.send(http_request(stream=True))
                await client.read_until(mark)
            await asyncio.sleep(1)
            return b""

        await begin(10)
        found = await cost_to(server, 0, functools.partial(begin, count))
    print(f"{found.memory / count / KIB:.0f} KiB each")
    assert found.memory / count < 512 * KIB
