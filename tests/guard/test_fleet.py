"""Many engines as one guard, over real sockets; with Ray it is tests/ray/."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.guard.answer import classify
from proxy.guard.client import Address
from proxy.guard.fleet import FleetGuard, FleetStream, fewer_of_two
from proxy.guard.model import GuardModel
from proxy.guard.places import FixedPlaces
from proxy.guard.protocol import GuardError, GuardFault, GuardInfo, GuardUnavailable, SequenceTooLong
from proxy.guard.settings import Canary
from proxy.risk import Risk, RiskLevel
from tests.guard.conformance import settings_of, words
from tests.guard.driver import Small, distance, rows_of
from tests.guard.engines import TOKEN, Listed, LiveEngine

INFO = GuardInfo("small", "1", 256)
LONG = {"verdict_seconds": 60.0, "open_seconds": 60.0, "health_seconds": 60.0}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


class World:
    """A fleet and its engines."""

    def __init__(self, guard: FleetGuard, engines: list[LiveEngine], listed: Listed) -> None:
        self.guard, self.engines, self.listed = guard, engines, listed

    def engine_of(self, stream: FleetStream) -> LiveEngine:
        return next(engine for engine in self.engines if engine.name == stream.engine)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Looking again all the while."""
        async with asyncio.timeout(60):
            while not is_so():
                self.listed.look()
                await asyncio.sleep(0.01)

    def is_without(self, engine: LiveEngine) -> bool:
        return engine.name not in self.guard.loads

    def held(self) -> int:
        """Streams that the engines hold."""
        return sum(engine.engine.metrics().streams for engine in self.engines if engine.engine and engine.listener)


@asynccontextmanager
async def fleet_of(
    small: Small, path: Path, count: int, model: GuardModel | None = None, **settings: Any
) -> AsyncIterator[World]:
    engines = [
        LiveEngine(model or small.loaded.model, path, f"guard-{number}", INFO).start() for number in range(count)
    ]
    listed = Listed(engines)
    guard = FleetGuard(listed, settings_of(**LONG | settings))
    try:
        await guard.start(60)
        world = World(guard, engines, listed)
        await world.until(lambda: len(guard.loads) == count)
        yield world
    finally:
        await guard.close()
        for engine in engines:
            engine.go()


async def judge(stream: FleetStream, ids: list[int], dice: random.Random) -> list[Risk]:
    risks: list[Risk] = []
    while stream.position < len(ids):
        chunk = ids[stream.position :][: dice.choice([1, 2, 5])]
        risks += await classify(stream, stream.position, chunk)
        await asyncio.sleep(dice.random() * 0.01)
    return risks


async def test_streams_are_spread_and_judged_as_by_one_engine(small: Small, tmp_path: Path) -> None:
    texts = [words(40, seed) for seed in range(30)]
    async with fleet_of(small, tmp_path, 3) as world:
        assert world.guard.info == INFO
        streams = [(await world.guard.open(text[:20], owner="key"))[0] for text in texts]
        shares = Counter(stream.engine for stream in streams)
        # What an engine tells of itself is a second old, with canaries in it that have long gone.
        assert len(shares) == 3
        assert max(shares.values()) - min(shares.values()) <= 6
        found = await asyncio.gather(
            *(judge(stream, text, random.Random(1)) for stream, text in zip(streams, texts, strict=True))
        )
        for text, risks in zip(texts, found, strict=True):
            assert distance(rows_of(risks), small.reference.rows(text)[20:]) < 1e-4
        for stream in streams:
            await stream.close()
        await world.until(lambda: world.held() == 0)
        assert world.guard.streams == 0
        assert (await world.guard.health()).detail.startswith("3 of 3 engines judged")
        await world.until(lambda: world.guard.metrics().steps >= 3)  # engines tell every second


def test_an_engine_that_tells_of_fewer_streams_gets_more_of_the_new_ones_and_not_all() -> None:
    @dataclass
    class Told:
        load: int

    members = [Told(load) for load in (10, 50, 50, 50, 90)]
    shares = Counter(fewer_of_two(members).load for _ in range(2000))
    assert 0.35 < shares[10] / 2000 < 0.45  # in two pairs of five
    assert shares[90] == 0
    assert fewer_of_two(members[:1]) is members[0]
    assert {fewer_of_two(members[:2]).load for _ in range(50)} == {10}


async def test_engines_that_are_written_down_may_be_away_and_come_back(small: Small, tmp_path: Path) -> None:
    text = words(40)
    engines = [LiveEngine(small.loaded.model, tmp_path, f"guard-{number}", INFO) for number in range(3)]
    guard = FleetGuard(FixedPlaces([Address(path=engine.path) for engine in engines], TOKEN), settings_of(**LONG))
    try:
        engines[0].start()
        await guard.start(60)
        stream, _ = await guard.open(text[:20])
        assert stream.engine == f"unix:{engines[0].path}"
        engines[1].start()
        async with asyncio.timeout(60):
            while len(guard.loads) < 2:  # noqa: ASYNC110 (a number)
                await asyncio.sleep(0.02)
        await asyncio.to_thread(engines[0].go)
        assert distance(rows_of(await judge(stream, text, random.Random(1))), small.reference.rows(text)[20:]) < 1e-4
        assert stream.engine == f"unix:{engines[1].path}"
        await stream.close()
    finally:
        await guard.close()
        for engine in engines:
            engine.go()


async def test_the_streams_of_an_engine_that_goes_move_and_lose_nothing(small: Small, tmp_path: Path) -> None:
    texts = [words(120, seed) for seed in range(24)]
    dice = random.Random(1)

    async def talk(guard: FleetGuard, text: list[int]) -> None:
        stream, _ = await guard.open(text[:20])
        fork = stream.fork()
        risks = await judge(fork, text, dice)
        assert distance(rows_of(risks), small.reference.rows(text)[20:]) < 1e-4
        await fork.close()
        await stream.close()

    async with fleet_of(small, tmp_path, 3) as world:
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(talk(world.guard, text)) for text in texts]
            for engine in world.engines[:2]:
                await asyncio.sleep(0.05)
                await asyncio.to_thread(engine.go)
                await world.until(partial(world.is_without, engine))
        assert all(task.done() for task in talking)
        assert world.guard.moves > 0
        await world.until(lambda: world.held() == 0)
        assert world.guard.streams == 0
        # They come back, and get streams again.
        for engine in world.engines[:2]:
            engine.start()
        await world.until(lambda: list(world.guard.loads.values()) == [0, 0, 0])  # what they tell is a second old
        streams = [(await world.guard.open(words(5)))[0] for _ in range(20)]
        assert {stream.engine for stream in streams} == {engine.name for engine in world.engines}


async def test_an_engine_that_dies_in_its_place_keeps_its_streams(small: Small, tmp_path: Path) -> None:
    text = words(60)
    async with fleet_of(small, tmp_path, 2) as world:
        stream, _ = await world.guard.open(text[:20])
        risks = await classify(stream, 20, text[20:30])
        await asyncio.to_thread(world.engine_of(stream).die)
        risks += await classify(stream, 30, text[30:])
        assert distance(rows_of(risks), small.reference.rows(text)[20:]) < 1e-4
        assert world.guard.moves == 0


async def test_a_machine_that_falls_silent_loses_its_streams(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.guard.fleet.PATIENCE_SECONDS", 0.2)
    text = words(60)
    async with fleet_of(small, tmp_path, 2, verdict_seconds=8.0) as world:
        stream, _ = await world.guard.open(text[:20])
        first = world.engine_of(stream)
        first.fall_silent()
        risks = await classify(stream, 20, text[20:])
        assert distance(rows_of(risks), small.reference.rows(text)[20:]) < 1e-4
        assert world.engine_of(stream) is not first
        first.wake()


async def test_a_drained_engine_keeps_its_streams_and_gets_no_more(small: Small, tmp_path: Path) -> None:
    async with fleet_of(small, tmp_path, 2) as world:
        stream, _ = await world.guard.open(words(20))
        drained = world.engine_of(stream)
        drained.is_draining = True
        looks = world.listed.looks
        await world.until(lambda: world.listed.looks > looks + 1)
        others = [(await world.guard.open(words(5)))[0] for _ in range(4)]
        assert drained.name not in {one.engine for one in others}
        assert len(await classify(stream, 20, [1])) == 1
        assert stream.engine == drained.name
        drained.is_draining = False
        looks = world.listed.looks
        await world.until(lambda: world.listed.looks > looks + 1)
        assert (await world.guard.open(words(5)))[0].engine == drained.name


async def test_an_engine_of_another_guard_gets_no_streams(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fleet_of(small, tmp_path, 1) as world:
        other = LiveEngine(small.loaded.model, tmp_path, "guard-7", replace(INFO, revision="2")).start()
        world.engines.append(other)
        said = ""
        async with asyncio.timeout(60):
            while "guard-7 runs another guard" not in said:
                world.listed.look()
                await asyncio.sleep(0.01)
                said += capsys.readouterr().err
        assert list(world.guard.loads) == ["guard-0"]


async def test_the_fleet_may_be_empty_for_a_while_and_says_so_after_it(small: Small, tmp_path: Path) -> None:
    text = words(30)
    async with fleet_of(small, tmp_path, 1) as world:
        stream, _ = await world.guard.open(text[:20])
        await asyncio.to_thread(world.engines[0].go)
        asking = classify(stream, 20, text[20:])
        await world.until(lambda: not world.guard.loads)
        assert not (await world.guard.health()).is_ready
        world.engines[0].start()
        await world.until(lambda: bool(world.guard.loads))
        assert distance(rows_of(await asking), small.reference.rows(text)[20:]) < 1e-4
    listed = Listed([])
    guard = FleetGuard(listed, settings_of())
    with pytest.raises(GuardUnavailable, match="no engine of the fleet is there: a list of tests"):
        await guard.start(0.05)
    listed.error = GuardUnavailable("no cluster")
    with pytest.raises(GuardUnavailable, match="no cluster"):
        await FleetGuard(listed, settings_of()).start(1)


async def test_a_question_that_outlives_three_engines_is_given_up(small: Small, tmp_path: Path) -> None:
    async with fleet_of(small, tmp_path, 4) as world:
        stream, _ = await world.guard.open(words(20))
        for engine in world.engines:
            engine.fall_silent()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(failure_of(stream, 20))
            for _ in range(3):
                await asyncio.sleep(0.02)
                engine = world.engine_of(stream)
                await asyncio.to_thread(engine.go)
                await world.until(partial(world.is_without, engine))
        assert isinstance(asking.result(), GuardFault)


async def failure_of(stream: FleetStream, position: int) -> BaseException | None:
    try:
        await classify(stream, position, [1])
    except GuardError as exc:
        return exc
    return None


async def test_what_is_refused_is_refused_as_by_one_engine(small: Small, tmp_path: Path) -> None:
    async with fleet_of(small, tmp_path, 2) as world:
        with pytest.raises(SequenceTooLong):
            await world.guard.open([1] * 257)
        stream, _ = await world.guard.open([1])
        with pytest.raises(ValueError, match="position"):
            await classify(stream, 2, [1])
        await stream.close()
        with pytest.raises(GuardUnavailable, match="closed"):
            await classify(stream, 1, [1])
        with pytest.raises(GuardUnavailable, match="closed"):
            stream.fork()
        await world.guard.close()
        with pytest.raises(GuardUnavailable):
            await world.guard.open([1])
        assert not (await world.guard.health()).is_ready


async def test_a_guard_that_fails_its_canaries_does_not_start(small: Small, tmp_path: Path) -> None:
    failing = tuple(Canary([1, 2, 3], 2, level) for level in RiskLevel)
    with pytest.raises(GuardUnavailable, match="did not pass its first check"):
        async with fleet_of(small, tmp_path, 1, canaries=failing):
            pass
