"""Rows of docs/reliability.md where something runs out: descriptors, a guard's time, a disk."""

import asyncio
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.driver import WORDS, answer, chunk
from tests.e2e.test_streams import events
from tests.fakes import RawUpstream, ScriptedUpstream, framed
from tests.reliability.apart import Servers
from tests.reliability.test_j_load import TEXT, Held
from tests.sockets import PATIENCE_SECONDS, Client, ask, connected, http_request, timed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are set")

KIB, MIB = 1 << 10, 1 << 20
# More than the buffers of two sockets and of a connection hold.
MOST_UNJUDGED_BYTES = 16 * MIB
IS_LONG = "WEIR_LONG" in os.environ


async def begun(stack: AsyncExitStack, url: str) -> Client:
    client = await stack.enter_async_context(connected(url))
    await client.send(http_request(stream=True))
    await client.read_until(b"one")
    return client


@pytest.mark.parametrize("quick_loop", [True, False])
async def test_j5_without_descriptors_the_admitted_are_served_and_all_is_well_again_with_them(
    servers: Servers, *, quick_loop: bool
) -> None:
    """uvloop closes who finds none at once; with asyncio's own loop they wait until there are."""
    upstream = Held(answer(WORDS))
    async with upstream.running(), AsyncExitStack() as stack:
        server = stack.enter_context(servers.one(upstream__base_url=upstream.url, quick_loop=quick_loop))
        admitted = [await begun(stack, server.url) for _ in range(10)]
        server.allow(server.files + 3)
        servers.said()
        cpu = server.cpu
        others = [await stack.enter_async_context(connected(server.url)) for _ in range(200)]
        for other in others:
            with suppress(ConnectionError):
                await other.send(http_request(stream=True))
        await asyncio.sleep(3)
        print(f"{server.cpu - cpu:.2f} s of CPU in 3 s, {len(said := servers.said())} bytes of log")
        assert server.cpu - cpu < 0.5
        assert said.count(b"\n") <= 10
        upstream.goes_on.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [events(await client.reply()).content for client in admitted] == [TEXT] * 10
        server.allow(1000)
        begin = time.monotonic()
        assert events(await ask(server.url, stream=True)).content == TEXT
        print(f"well again after {time.monotonic() - begin:.2f} s")
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            told = Counter([(await other.reply()).status for other in others])
        print(told)
        assert set(told) <= {0, 200, 502}  # closed, served late, or without a connection to the upstream


@dataclass
class Endless(RawUpstream):
    """As quick as it can."""

    sent: int = 0

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(framed(b"", "close"))
        data = chunk({"content": " word"}) * 100
        while True:
            writer.write(data)
            await writer.drain()
            self.sent += len(data)


async def test_i13_while_a_guard_does_not_answer_the_upstream_waits_and_memory_is_flat(servers: Servers) -> None:
    upstream = Endless()
    settings = {"upstream__base_url": upstream.url, "guard__verdict_seconds": 4}
    async with upstream.running(), AsyncExitStack() as stack:
        settings["upstream__base_url"] = upstream.url
        server = stack.enter_context(servers.one(delay=3600, **settings))
        memory = server.memory
        client = await stack.enter_async_context(connected(server.url))
        await client.send(http_request(stream=True))
        await asyncio.sleep(2)
        sent = upstream.sent
        await asyncio.sleep(1)
        print(f"{sent / MIB:.1f} MiB sent, {(server.memory - memory) / KIB:.0f} KiB held")
        assert 0 < sent == upstream.sent < MOST_UNJUDGED_BYTES
        assert server.memory - memory < 2 * MIB
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (503, "guard_unavailable")
            await upstream.closed.wait()


async def test_i13_a_guard_that_is_slower_than_the_upstream_sets_the_pace(servers: Servers) -> None:
    """The answer is whole, and of what waits no more than a batch is in memory."""
    count = 20_000 if IS_LONG else 5_000
    upstream = ScriptedUpstream(answer([" word"] * count))
    async with upstream.running(), AsyncExitStack() as stack:
        server = stack.enter_context(servers.one(upstream__base_url=upstream.url, delay=0.05))
        await ask(server.url, stream=True)
        server.forget()
        memory = server.memory
        reply = await ask(server.url, stream=True)
        print(f"{(server.most_memory - memory) / KIB:.0f} KiB for {len(reply.raw) / KIB:.0f} KiB")
        assert events(reply).content == " word" * count
        assert server.most_memory - memory < MIB


async def served(url: str, count: int) -> None:
    for _ in range(count):
        assert events(await ask(url, stream=True)).content == TEXT


async def test_j10_on_a_full_disk_all_are_served_it_is_told_and_written_again_when_there_is_room(
    servers: Servers, tmp_path: Path
) -> None:
    log, records = tmp_path / "weir.log", tmp_path / "records.db"
    settings = {"log__file": str(log), "log__level": "info", "records__file": str(records)}
    async with ScriptedUpstream(answer(WORDS)).running() as upstream:
        with servers.one(upstream__base_url=upstream.url, **settings) as server:
            await served(server.url, 2)
            await until(lambda: log.read_bytes().count(b"\n") == 2)
            servers.said()
            server.fill_disk(is_full=True)
            await served(server.url, 50)
            await asyncio.sleep(1)
            said = servers.said()
            assert log.read_bytes().count(b"\n") == 2
            assert said.splitlines() == [b"weir: the log cannot be written: File too large; lines are lost"]
            server.fill_disk(is_full=False)
            await served(server.url, 1)
            await until(lambda: b" lines could not be written" in log.read_bytes())
            await until(lambda: kept(records) == 53)  # they have waited for the disk


async def test_j10_a_log_that_is_never_taken_holds_up_nobody(servers: Servers, tmp_path: Path) -> None:
    """A pipe that nobody reads stands for a disk that hangs: what it holds is full after 70 lines."""
    path = tmp_path / "weir.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with ScriptedUpstream(answer(WORDS)).running() as upstream:
            settings = {"log__file": str(path), "log__level": "info"}
            with servers.one(upstream__base_url=upstream.url, **settings) as server, timed():
                await served(server.url, 200)
        assert len(os.read(reader, 1 << 20)) >= 60_000
    finally:
        os.close(reader)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 (a disk tells nobody)
            await asyncio.sleep(0.02)


def kept(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        count: int = database.execute("SELECT count(*) FROM records").fetchone()[0]
        return count
