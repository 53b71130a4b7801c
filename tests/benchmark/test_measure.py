"""A whole benchmark of a tiny guard, with tiny sizes."""

import asyncio
import sys

import pytest

from proxy.benchmark.figures import Figures
from proxy.benchmark.measure import DOOR, Bench, first_guess
from proxy.benchmark.sizes import Pace, Sizes
from proxy.benchmark.ways import LIMITS, EngineWay
from proxy.guard.protocol import Guard
from proxy.guard.random_weights import random_guard
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings

TINY = random_guard("tiny", dtype="float32")
SIZES = Sizes(
    streams=(1, 3), chunks=(2,), history=20, histories=(10, 50), contexts=(40,), pace=Pace(0.2, 1), most_streams=4
)


def measured(sizes: Sizes, settings: GuardSettings | None = None) -> tuple[Figures, list[str]]:
    running = settings or GuardSettings(threads=1, limits=LIMITS)
    heard: list[str] = []

    async def open_guard() -> Guard:
        return LocalGuard(TINY, running)

    with asyncio.Runner() as loop:
        figures = Bench(TINY, running, sizes, open_guard, lambda what, *_: heard.append(what)).run(loop)
    return figures, heard


def test_all_tables_and_all_ways() -> None:
    figures, heard = measured(SIZES)
    ways = ["weir", "cache", "re-feed"]
    assert [(row.history, list(row.ms)) for row in figures.tokens] == [(10, ways), (50, ways)]
    assert [(row.streams, row.chunk) for row in figures.steps] == [(1, 2), (3, 2)]
    assert [(row.streams, row.chunk) for row in figures.door] == [(1, 1), (64, 2)]
    assert [row.way for row in figures.capacity] == ["weir", DOOR, "cache", "re-feed"]
    assert all(0 <= row.streams <= 4 for row in figures.capacity)
    assert figures.about["guard"] == "random-tiny@seed-0"
    assert not figures.skipped
    assert any(what.startswith("capacity at 40: re-feed, ") for what in heard)


def test_without_transformers_weir_alone_is_measured_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    figures, _ = measured(Sizes(tables=("tokens",), histories=(10,)))
    assert list(figures.tokens[0].ms) == ["weir"]
    assert "pip install transformers" in figures.skipped[0]


def test_steps_that_find_no_room_are_left_out_and_said() -> None:
    settings = GuardSettings(threads=1, limits=LIMITS, kv_bytes=512 << 10, window=256)
    figures, _ = measured(Sizes(tables=("steps",), streams=(2, 50), chunks=(1,), history=200), settings)
    assert [row.streams for row in figures.steps] == [2]
    assert figures.skipped[0].startswith("steps of 50 streams: no room")


def test_the_first_guess_is_a_count() -> None:
    way = EngineWay(TINY, GuardSettings(threads=1, limits=LIMITS), 10)
    assert 1 <= first_guess(way) <= 64
    way.close()
