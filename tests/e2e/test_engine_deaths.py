"""The guard's engine dies under open streams: the client sees a pause, and the very same answer (I5)."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.guard.fleet import FleetGuard
from proxy.guard.loader import load_guard
from proxy.guard.process import Config, ProcessGuard
from proxy.guard.settings import GuardSettings
from tests.crews import children
from tests.driver import DONE, chunk
from tests.fakes import ScriptedUpstream
from tests.guard.engines import Listed, LiveEngine
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, ask
from tests.wire import finish_reason_of, text_of
from training.probes import TURNING_ANSWERS

CLIENTS, ENGINE_DEATHS = (50, 10) if "WEIR_LONG" in os.environ else (20, 5)
PATIENT: dict[str, Any] = {"policy__notice": "", "guard__verdict_seconds": 60.0, "guard__admission_seconds": 60.0}


@asynccontextmanager
async def embedded() -> AsyncIterator[ProcessGuard]:
    guard = ProcessGuard(Config("embedded", GuardSettings(threads=1, verdict_seconds=60.0, health_seconds=60.0)))
    await guard.start()
    try:
        yield guard
    finally:
        await guard.close()


def turning(rng: random.Random, pause: float) -> ScriptedUpstream:
    """An answer that turns, in pieces of any size."""
    probe = TURNING_ANSWERS[2]
    text, pieces = probe.answer + probe.turn, []
    while text:
        size = rng.randint(1, 12)
        pieces.append(chunk({"content": text[:size]}))
        text = text[size:]
    return ScriptedUpstream([*pieces, chunk({}, "stop"), DONE], pause=pause)


async def test_i5_clients_get_the_same_answer_though_the_engine_dies_again_and_again() -> None:
    rng = random.Random(5)
    async with embedded() as guard, weir(turning(rng, 0.02), guard, **PATIENT) as server:
        expected = await ask(server.url, stream=True)
        cut = text_of(expected.body)
        assert finish_reason_of(expected.body) == "content_filter"
        assert cut.startswith(TURNING_ANSWERS[2].answer[:40])
        async with asyncio.TaskGroup() as group:
            replies = [group.create_task(ask(server.url, stream=True)) for _ in range(CLIENTS)]
            for _ in range(ENGINE_DEATHS):
                await asyncio.sleep(rng.random() * 0.15)
                await kill_engine(guard)
        for reply in (task.result() for task in replies):
            assert reply.is_complete
            assert text_of(reply.body) == cut
            assert finish_reason_of(reply.body) == "content_filter"
        assert guard.streams == 0
        assert guard.epoch > ENGINE_DEATHS


async def test_clients_get_the_same_answer_though_engines_of_a_fleet_go_for_good(tmp_path: Path) -> None:
    rng = random.Random(6)
    loaded = load_guard("embedded")
    info = replace(loaded.info, window=2048)
    engines = [LiveEngine(loaded.model, tmp_path, f"guard-{number}", info).start() for number in range(3)]
    guard = FleetGuard(Listed(engines), GuardSettings(threads=1, verdict_seconds=60.0, health_seconds=60.0))
    try:
        await guard.start(60)
        async with weir(turning(rng, 0.02), guard, **PATIENT) as server:
            expected = await ask(server.url, stream=True)
            async with asyncio.TaskGroup() as group:
                replies = [group.create_task(ask(server.url, stream=True)) for _ in range(CLIENTS)]
                for engine in engines[:2]:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        while not has_streams(guard, engine.name):  # noqa: ASYNC110 (numbers)
                            await asyncio.sleep(0.005)
                    await asyncio.to_thread(engine.go)
            for reply in (task.result() for task in replies):
                assert reply.is_complete
                assert text_of(reply.body) == text_of(expected.body)
                assert finish_reason_of(reply.body) == "content_filter"
            assert guard.streams == 0
            assert guard.moves > 0
    finally:
        await guard.close()
        for engine in engines:
            await asyncio.to_thread(engine.go)


def has_streams(guard: FleetGuard, name: str) -> bool:
    return any(member.place.name == name and member.door.streams for member in guard.members)


async def kill_engine(guard: ProcessGuard) -> None:
    """Back when the next engine has answered those who were in the step that died."""
    epoch = guard.epoch
    [engine] = await asyncio.to_thread(children, guard.pid)
    os.kill(engine, signal.SIGKILL)
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        while guard.epoch == epoch or guard.has_suspects:  # noqa: ASYNC110 (numbers that the loop changes)
            await asyncio.sleep(0.005)
