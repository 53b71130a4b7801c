"""The client against an engine that is a script behind a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.guard.answer import classify
from proxy.guard.client import Address, EngineClient
from proxy.guard.commands import Command, Feed, Open, Outcome
from proxy.guard.door import GuardDoor
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardInfo, GuardTimeout, GuardUnavailable
from proxy.guard.rows import write_rows
from proxy.guard.settings import GuardSettings
from proxy.guard.wire import (
    LENGTH,
    VERSION,
    Hello,
    Pulse,
    Refusal,
    Welcome,
    answers_of,
    decode_commands,
    decode_hello,
    encode,
    frame,
)
from proxy.risk import Role
from tests.sockets import PATIENCE_SECONDS

ROW = {Role.ASSISTANT: [1.0, 0.0, 0.0, 1.0, *[0.0] * 7], Role.USER: [1.0, 0.0, 0.0, 1.0, *[0.0] * 8]}


class ScriptedEngine:
    """Greets, and answers questions, until it is told to do otherwise."""

    greeting: Welcome | Refusal | None = Welcome(GuardInfo("scripted", "1", 1000), 500, [])
    is_silent = False
    garbage: bytes | None = None  # instead of the next answer

    def __init__(self) -> None:
        self.hellos: list[Hello] = []
        self.commands: list[Command] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            self.hellos.append(decode_hello(await self._frame(reader)))
            if self.greeting is None:
                await reader.read()
            writer.write(frame(encode(self.greeting)))
            writer.write(frame(encode(Pulse(Metrics(steps=len(self.hellos))))))
            while True:
                self._answer(decode_commands(await self._frame(reader)), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, commands: list[Command], writer: asyncio.StreamWriter) -> None:
        self.commands += commands
        questions = [command for command in commands if isinstance(command, Open | Feed)]
        if self.is_silent or not questions:
            return
        if self.garbage is not None:
            garbage, self.garbage = self.garbage, None
            writer.write(garbage)
            return
        writer.write(frame(encode(answers_of([outcome_of(question) for question in questions]))))

    @staticmethod
    async def _frame(reader: asyncio.StreamReader) -> bytes:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return await reader.readexactly(length)

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


def outcome_of(question: Open | Feed) -> Outcome:
    count = len(question.reads) if isinstance(question, Open) else len(question.ids)
    return Outcome(question.ticket, write_rows([ROW[question.role]] * count, question.role))


@asynccontextmanager
async def connected(engine: ScriptedEngine, path: Path, **settings: float) -> AsyncIterator[GuardDoor]:
    server = await asyncio.start_unix_server(engine.serve, path)
    door = GuardDoor(GuardSettings(**settings))  # type: ignore[arg-type]
    client = EngineClient(door, Address(path=str(path)), "secret")
    client.start()
    try:
        await client.greeted(PATIENCE_SECONDS)
        yield door
    finally:
        await door.close()
        await client.close()
        server.close()
        engine.cut()


async def test_the_first_words_name_version_door_and_token(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with connected(engine, tmp_path / "s") as door:
        (hello,) = engine.hellos
        assert (hello.version, hello.token) == (VERSION, "secret")
        stream, risks = await door.open([1, 2, 3], read=[2])
        assert len(risks) == 1
        assert len(await classify(stream, 3, [4, 5])) == 2
        assert door.metrics().steps == 1
    assert len(engine.commands) >= 2


async def test_a_broken_connection_is_made_again_under_the_same_name_and_nothing_is_lost(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with connected(engine, tmp_path / "s") as door:
        stream, _ = await door.open([1, 2, 3])
        engine.is_silent = True
        asking = classify(stream, 3, [4, 5])
        while not any(isinstance(command, Feed) for command in engine.commands):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        engine.is_silent = False
        engine.cut()
        assert len(await asking) == 2
        assert engine.hellos[0].door == engine.hellos[1].door
        replay = engine.commands[-1]
        assert isinstance(replay, Open)
        assert replay.ids == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", frame(b"\xc1"), frame(encode([1, 2])), frame(b"")])
async def test_an_engine_that_talks_garbage_is_asked_again_over_a_new_connection(
    tmp_path: Path, garbage: bytes
) -> None:
    engine = ScriptedEngine()
    async with connected(engine, tmp_path / "s") as door:
        engine.garbage = garbage
        _, risks = await door.open([1, 2, 3], read=[0])
        assert len(risks) == 1
        assert len(engine.hellos) == 2


async def test_a_refusal_is_final_and_says_why(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.greeting = Refusal("the token is not the engine's")
    with pytest.raises(GuardUnavailable, match=r"unix:.* refused: the token is not"):
        async with connected(engine, tmp_path / "s"):
            pass
    assert len(engine.hellos) == 1


async def test_nobody_there_is_said_after_the_wait(tmp_path: Path) -> None:
    client = EngineClient(GuardDoor(GuardSettings()), Address(path=str(tmp_path / "none")))
    client.start()
    with pytest.raises(GuardUnavailable, match="no guard engine answers at unix:"):
        await client.greeted(0.1)
    await client.close()


async def test_an_engine_that_comes_late_is_found(tmp_path: Path) -> None:
    engine, path = ScriptedEngine(), tmp_path / "s"
    door = GuardDoor(GuardSettings())
    client = EngineClient(door, Address(path=str(path)))
    client.start()
    await asyncio.sleep(0.1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        server = await asyncio.start_unix_server(engine.serve, path)
        await client.greeted(PATIENCE_SECONDS)
        await door.open([1])
    await client.close()
    server.close()
    engine.cut()


async def test_an_engine_that_has_gone_silent_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.guard.client.SILENT_SECONDS", 0.2)
    engine = ScriptedEngine()
    async with connected(engine, tmp_path / "s", verdict_seconds=60, open_seconds=60) as door:
        engine.is_silent = True
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(door.open([1, 2], read=[1]))
            while not engine.commands:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            engine.is_silent = False  # what was asked stays unanswered: the engine has lost it
        assert len(asking.result()[1]) == 1
        assert len(engine.hellos) >= 2


async def test_an_engine_that_is_gone_for_longer_than_the_patience_fails_its_door(tmp_path: Path) -> None:
    """At once where nobody listens, else when the time is over; one that is replaced in between is not gone."""
    engine, path = ScriptedEngine(), tmp_path / "s"
    server = await asyncio.start_unix_server(engine.serve, path)
    doors = [GuardDoor(GuardSettings()) for _ in range(2)]
    clients = [
        EngineClient(door, Address(path=str(path)), patience_seconds=seconds)
        for door, seconds in zip(doors, (0.2, 600.0), strict=True)
    ]
    for client in clients:
        client.start()
        await client.greeted(30)
    streams = [(await door.open([1]))[0] for door in doors]
    engine.cut()
    await asyncio.gather(*(classify(stream, 1, [2]) for stream in streams))
    assert [client.refusal for client in clients] == [None, None]
    # It listens, and greets nobody.
    engine.greeting = None
    engine.cut()
    with pytest.raises(GuardUnavailable, match="is gone"):
        await classify(streams[0], 2, [3])
    assert clients[1].refusal is None
    server.close()
    path.unlink()
    engine.cut()
    with pytest.raises(GuardUnavailable, match="is gone"):
        await classify(streams[1], 2, [3])
    for client in clients:
        await client.close()


async def test_questions_without_an_engine_end_at_their_deadline(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    async with connected(engine, tmp_path / "s", verdict_seconds=0.2, open_seconds=60) as door:
        stream, _ = await door.open([1, 2, 3])
        engine.is_silent = True
        engine.cut()
        with pytest.raises(GuardTimeout):
            await classify(stream, 3, [4])


def test_addresses_are_shown_as_they_are_written() -> None:
    assert str(Address(path="/run/g.sock")) == "unix:/run/g.sock"
    assert str(Address(host="10.0.0.1", port=9)) == "tcp://10.0.0.1:9"
    assert str(Address(host="::1", port=9)) == "tcp://[::1]:9"
