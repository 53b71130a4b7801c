"""Guards with real processes: they die, hang and come back, and no stream notices more than a pause."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.guard.answer import classify
from proxy.guard.client import Address
from proxy.guard.loader import load_guard
from proxy.guard.process import Config, ProcessGuard, attach_guard, start_process_guard
from proxy.guard.protocol import GuardFault, GuardTimeout, GuardUnavailable
from proxy.guard.service import LocalGuard
from proxy.guard.settings import Canary, GuardSettings
from proxy.risk import RiskLevel
from tests.crews import children, until_dead
from tests.guard.checkpoints import random_ids, small_checkpoint
from tests.guard.deadly import HANGS, KILLS
from tests.guard.driver import distance, rows_of
from tests.sockets import PATIENCE_SECONDS

ENGINE_KILLS = 100
STREAMS = 50


class DeadlyGuard(ProcessGuard):
    module = "tests.guard.deadly"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_checkpoint(tmp_path_factory.mktemp("guard") / "small"))


def settings_of(**changes: object) -> GuardSettings:
    return GuardSettings(**{"threads": 1, "verdict_seconds": 60.0, "health_seconds": 60.0} | changes)  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    folder: str, kind: type[ProcessGuard] = ProcessGuard, **settings: object
) -> AsyncIterator[ProcessGuard]:
    guard = kind(Config(folder, settings_of(**settings)))
    await guard.start()
    try:
        yield guard
    finally:
        await guard.close()


async def engine_of(guard: ProcessGuard) -> int:
    """The process id of the engine, as soon as there is one."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := children(guard.pid)):  # noqa: ASYNC110 (nobody tells of another's child)
            await asyncio.sleep(0.005)
    [engine] = found
    return engine


async def expected_rows(folder: str, texts: list[list[int]], prompt: int) -> list[list[list[float]]]:
    """Verdicts behind the prompt, of an engine in a thread that nothing happens to."""
    guard = LocalGuard(load_guard(folder), settings_of())
    found = []
    for text in texts:
        stream, _ = await guard.open(text[:prompt])
        found.append(rows_of(await classify(stream, prompt, text[prompt:])))
    await guard.close()
    return found


async def test_a_process_judges_like_a_thread_and_ends_with_its_guard(folder: str) -> None:
    text = [token % 398 for token in random_ids(120)]
    async with running(folder) as guard:
        assert guard.info.model == "small"
        stream, risks = await guard.open(text[:40], read=[39], owner="key")
        assert len(risks) == 1
        child = stream.fork()
        rows = []
        for start in range(40, 120, 8):
            rows += rows_of(await classify(child, start, text[start : start + 8]))
        assert distance(rows, (await expected_rows(folder, [text], 40))[0]) < 1e-5
        assert (await guard.health()).is_ready
        engine, process, socket = await engine_of(guard), guard.pid, guard.path
        assert socket.stat().st_mode & 0o777 == 0o600
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()
    await until_dead([engine, process])


class Talkers:
    """Streams that talk, one after another, and compare every verdict with what it must be."""

    def __init__(self, texts: list[list[int]], expected: list[list[list[float]]], dice: random.Random) -> None:
        self.texts, self.expected, self.dice = texts, expected, dice
        self.is_over = False
        self.rounds = 0

    async def talk(self, guard: ProcessGuard, number: int) -> None:
        while not self.is_over:
            await self.stream(guard, number)
            self.rounds += 1

    async def stream(self, guard: ProcessGuard, number: int) -> None:
        text = self.texts[number]
        stream, _ = await guard.open(text[:30], owner=str(number % 3))
        rows: list[list[float]] = []
        while stream.position < len(text):
            chunk = text[stream.position :][: self.dice.choice([1, 2, 3, 8, 40])]
            rows += rows_of(await classify(stream, stream.position, chunk))
            await asyncio.sleep(self.dice.random() * 0.01)
        assert distance(rows, self.expected[number]) < 1e-4
        await stream.close()


async def kill_and_wait(guard: ProcessGuard, seconds: float) -> None:
    """Kill the engine after so long; back when the next one has answered those who were in the step that died."""
    await asyncio.sleep(seconds)
    epoch = guard.epoch
    os.kill(await engine_of(guard), signal.SIGKILL)
    # Who was in that step runs alone now; an engine that dies of it once more is the fault it looks like.
    async with asyncio.timeout(3 * PATIENCE_SECONDS):
        while guard.epoch == epoch or guard.has_suspects:  # noqa: ASYNC110 (numbers that the loop changes)
            await asyncio.sleep(0.002)


async def test_streams_live_through_kills_at_random_moments(folder: str) -> None:
    """50 streams; their verdicts are those of an engine that never died, each exactly once."""
    dice = random.Random(1)
    texts = [[token % 398 for token in random_ids(400, seed)] for seed in range(STREAMS)]
    talkers = Talkers(texts, await expected_rows(folder, texts, 30), dice)
    async with running(folder) as guard, asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(talkers.talk(guard, number))
        for _ in range(ENGINE_KILLS):
            await kill_and_wait(guard, dice.random() * 0.1)
        talkers.is_over = True
    assert talkers.rounds >= STREAMS
    assert guard.streams == 0


async def test_a_poison_ends_as_its_streams_error_and_the_others_go_on(folder: str) -> None:
    async with running(folder, DeadlyGuard) as guard:
        streams = [(await guard.open([1, 2, 3], owner=str(number)))[0] for number in range(32)]
        answers = await asyncio.gather(
            *(classify(stream, 3, [KILLS] if number == 13 else [4, 5]) for number, stream in enumerate(streams)),
            return_exceptions=True,
        )
        for number, answer in enumerate(answers):
            assert isinstance(answer, GuardFault) == (number == 13), (number, answer)
        assert guard.epoch == 3, "the first engine and two that died of it"
        assert len(await classify(streams[13], 3, [4, 5])) == 2


async def test_an_engine_that_hangs_is_killed_and_replaced(folder: str) -> None:
    async with running(folder, DeadlyGuard, hang_seconds=1.2) as guard:
        good, bad = (await guard.open([1, 2, 3]))[0], (await guard.open([1, 2, 3]))[0]
        answers = await asyncio.gather(classify(good, 3, [4]), classify(bad, 3, [HANGS]), return_exceptions=True)
        assert isinstance(answers[0], list)
        assert isinstance(answers[1], GuardFault)


async def test_an_engine_that_is_stopped_is_replaced_and_health_is_red_meanwhile(folder: str) -> None:
    async with running(folder, hang_seconds=1.5) as guard:
        stream, _ = await guard.open([1, 2, 3])
        usual, guard.settings = guard.settings, replace(guard.settings, health_seconds=0.3)
        os.kill(await engine_of(guard), signal.SIGSTOP)
        assert not (await guard.health()).is_ready
        guard.settings = usual
        assert len(await classify(stream, 3, [4])) == 1
        assert (await guard.health()).is_ready


async def test_a_deadline_ends_the_wait_for_an_engine_that_hangs(folder: str) -> None:
    async with running(folder, DeadlyGuard, verdict_seconds=0.3) as guard:
        stream, _ = await guard.open([1, 2, 3])
        with pytest.raises(GuardTimeout):
            await classify(stream, 3, [HANGS])


async def test_the_process_itself_is_started_again(folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with running(folder) as guard:
        stream, _ = await guard.open([1, 2, 3])
        engine = await engine_of(guard)
        os.kill(guard.pid, signal.SIGKILL)
        assert len(await classify(stream, 3, [4])) == 1
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            while guard.epoch == 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert len(await classify(stream, 4, [5])) == 1
        await until_dead([engine])  # an orphan ends by itself, in its own time
    assert "started again" in capfd.readouterr().err


async def test_a_guard_that_cannot_be_loaded_says_why_and_leaves_nothing(folder: str, tmp_path: Path) -> None:
    with pytest.raises(GuardUnavailable, match="no such folder"):
        await start_process_guard(Config(str(tmp_path / "none"), settings_of()))
    failing = tuple(Canary([1, 2, 3], 2, level) for level in RiskLevel)
    with pytest.raises(GuardUnavailable, match="did not pass its first check"):
        await start_process_guard(Config(folder, settings_of(canaries=failing)))


async def test_several_proxies_share_one_engine(folder: str) -> None:
    async with running(folder) as guard:
        others = [await attach_guard(Address(path=str(guard.path)), "", settings_of()) for _ in range(2)]
        streams = [(await one.open([1, 2, 3], owner="key"))[0] for one in (guard, *others)]
        found = await asyncio.gather(*(classify(stream, 3, [4, 5]) for stream in streams))
        assert distance(rows_of(found[0]), rows_of(found[1])) < 1e-5
        await others[0].close()
        os.kill(await engine_of(guard), signal.SIGKILL)
        assert len(await classify(streams[2], 5, [6])) == 1
        assert len(await classify(streams[0], 5, [6])) == 1
        with pytest.raises(GuardUnavailable):
            await classify(streams[1], 5, [6])
        await others[1].close()
