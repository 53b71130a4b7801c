"""A server of links on an event loop, with peers that are plain sockets; a guard behind it: test_vllm_reader.py."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.guard.commands import Close, Command, Feed, Outcome
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardInfo
from proxy.guard.wire import (
    LENGTH,
    VERSION,
    Answers,
    Hello,
    Pulse,
    Refusal,
    Welcome,
    decode_greeting,
    decode_news,
    encode,
    frame,
)
from proxy.guard.wire_server import WireServer
from tests.sockets import PATIENCE_SECONDS

INFO = GuardInfo("script", "1", 100)


class Echo:
    """A link that answers at once, each question with its ids."""

    def __init__(self, world: "World", deliver: Callable[[list[Outcome]], None]) -> None:
        self.world, self.deliver = world, deliver
        world.links.append(self)

    def submit(self, commands: list[Command]) -> None:
        self.world.batches.append(commands)
        for command in commands:
            if isinstance(command, Feed):
                self.deliver([Outcome(command.ticket, bytes(command.ids))])

    def metrics(self) -> Metrics:
        return Metrics(streams=len(self.world.links))

    def close(self) -> None:
        self.world.links.remove(self)


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, message: object) -> None:
        self.writer.write(frame(encode(message)))

    async def body(self) -> bytes:
        """Raises IncompleteReadError where the server has hung up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            (length,) = LENGTH.unpack(await self.reader.readexactly(LENGTH.size))
            return await self.reader.readexactly(length)

    async def news(self) -> Answers | Pulse:
        return decode_news(await self.body())

    async def hears_the_end(self) -> None:
        try:
            while True:
                await self.body()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return


class World:
    def __init__(self) -> None:
        self.links: list[Echo] = []
        self.batches: list[list[Command]] = []
        self.peers: list[Peer] = []
        self.server = WireServer(INFO, 400, lambda deliver: Echo(self, deliver))
        self.port = 0

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def greeted(self) -> Peer:
        peer = await self.connect()
        peer.send(Hello(VERSION, 1, "secret"))
        assert decode_greeting(await peer.body()) == Welcome(INFO, 400, [])
        return peer

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_so():  # noqa: ASYNC110 (whatever is asked)
                await asyncio.sleep(0.002)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    found = World()
    listener = socket.create_server(("127.0.0.1", 0))
    found.port = listener.getsockname()[1]
    await found.server.listen({listener: "secret"})
    try:
        yield found
    finally:
        await found.server.close()
        await found.until(lambda: not found.links)
        assert not found.server.peers
        for peer in found.peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)


async def test_a_door_is_greeted_and_its_questions_of_a_tick_are_answered_together() -> None:
    async with world() as one:
        peer = await one.greeted()
        assert await peer.news() == Pulse(Metrics(streams=1))
        peer.send([Feed(1, 7, 0, [1, 2]), Feed(2, 8, 0, [3]), Close(8)])
        news = await peer.news()
        assert isinstance(news, Answers)
        assert [(answer.ticket, answer.rows) for answer in news.answers] == [(1, b"\x01\x02"), (2, b"\x03")]
        assert one.batches == [[Feed(1, 7, 0, [1, 2]), Feed(2, 8, 0, [3]), Close(8)]]


async def test_it_says_every_second_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.guard.wire_server.PULSE_SECONDS", 0.01)
    async with world() as one:
        peer = await one.greeted()
        assert [type(await peer.news()) for _ in range(3)] == [Pulse] * 3


async def test_a_door_that_goes_takes_its_link_along_and_no_other() -> None:
    async with world() as one:
        first, second = await one.greeted(), await one.greeted()
        first.writer.close()
        await one.until(lambda: len(one.links) == 1)
        second.send([Feed(1, 7, 0, [9])])
        await one.until(lambda: bool(one.batches))


@pytest.mark.parametrize(
    ("hello", "reason"), [(Hello(VERSION, 1), "token"), (Hello(VERSION + 1, 1, "secret"), "version")]
)
async def test_who_may_not_come_in_is_told_why_and_sent_away(hello: Hello, reason: str) -> None:
    async with world() as one:
        peer = await one.connect()
        peer.writer.write(frame(encode(hello)) + frame(encode([Close(1)])))
        greeting = decode_greeting(await peer.body())
        assert isinstance(greeting, Refusal)
        assert reason in greeting.reason
        await peer.hears_the_end()
        assert not one.links


@pytest.mark.parametrize("data", [b"\xff" * 8, frame(b"no msgpack"), frame(encode([Close(1)])), LENGTH.pack(5000)])
async def test_who_speaks_something_else_is_cut_off(data: bytes) -> None:
    async with world() as one:
        stranger, friend = await one.connect(), await one.greeted()
        stranger.writer.write(data)
        await stranger.hears_the_end()
        friend.writer.write(frame(b"no msgpack"))
        await friend.hears_the_end()


async def test_who_says_nothing_or_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.guard.wire_server.HELLO_SECONDS", 0.05)
    monkeypatch.setattr("proxy.guard.wire_server.MAX_UNSENT_BYTES", 1 << 16)
    async with world() as one:
        silent = await one.connect()
        await silent.hears_the_end()
        deaf = await one.greeted()
        asked = [Feed(number, 7, 0, [1] * 250) for number in range(4000)]
        for _ in range(40):
            deaf.send(asked)
        await one.until(lambda: not one.links)
