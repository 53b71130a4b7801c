"""Loads and questions at the door of a small guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.benchmark.arrivals import Load, make_load
from proxy.benchmark.door import Door, measure_speed, median_of
from proxy.benchmark.figures import DoorSpeed
from proxy.benchmark.ways import LIMITS, NoRoom
from proxy.guard.random_weights import random_guard
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings

TINY = random_guard("tiny", dtype="float32")
VOCABULARY = 1024


@asynccontextmanager
async def a_guard(kv_bytes: int | None = None, window: int | None = None) -> AsyncIterator[LocalGuard]:
    guard = LocalGuard(TINY, GuardSettings(threads=1, limits=LIMITS, kv_bytes=kv_bytes, window=window))
    try:
        yield guard
    finally:
        await guard.close()


async def test_every_token_of_a_load_gets_its_verdict() -> None:
    async with a_guard() as guard:
        door = Door(guard, VOCABULARY, 30)
        load = make_load(4, 0.5, 0)
        before = 0
        for times in (1, 2):  # the streams are used again
            lags = await door.play(load, limit=60.0)  # no machine is too busy for this test
            assert 0 < lags.percentile(0.01) <= lags.percentile(1.0) < 60
            assert [stream.position for stream in door.streams] == [30 + max(1, len(a)) for a in load.arrivals]
            now = guard.metrics().tokens
            assert now - before >= load.tokens + 4 + (4 * 30 if times == 1 else 0)
            before = now
        assert len(door.streams) == guard.streams == 4
        await door.close()
        assert guard.streams == 0


async def test_tokens_that_came_together_are_asked_together() -> None:
    async with a_guard() as guard:
        door = Door(guard, VOCABULARY, 30)
        await door.open(1)
        before = guard.metrics().steps
        lags = await door.play(Load(((0.0,) * 50,)))
        assert guard.metrics().steps == before + 2  # one to warm up
        assert lags.percentile(1.0) == lags.percentile(0.01)


async def test_a_full_memory_is_no_room() -> None:
    async with a_guard(kv_bytes=512 << 10, window=256) as guard:
        door = Door(guard, VOCABULARY, 200)
        with pytest.raises(NoRoom):
            await door.open(100)
        await door.close()


async def test_speeds_count_tokens_and_their_time() -> None:
    async with a_guard() as guard:
        speed = await measure_speed(guard, VOCABULARY, streams=3, chunk=2, rounds=4)
        assert (speed.streams, speed.chunk) == (3, 2)
        assert 0 < speed.p50_ms <= speed.p95_ms <= speed.p99_ms
        assert speed.tokens_a_second > 0
        assert speed.tokens_a_core_second is not None
        assert speed.tokens_a_core_second > 0
        assert guard.streams == 0


def test_the_median_speed_is_one_that_was_measured() -> None:
    speeds = [DoorSpeed(1, 1, rate, 1.0, 1.0, 1.0, 1.0) for rate in (3.0, 1.0, 2.0)]
    assert median_of(speeds) is speeds[2]
