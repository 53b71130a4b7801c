"""Timing counts the calls that it says it counts."""

import time
from collections.abc import Mapping

from proxy.benchmark.timing import time_steps, time_tokens
from proxy.benchmark.ways import LIMITS, EngineWay
from proxy.guard.random_weights import random_guard
from proxy.guard.settings import GuardSettings


class Sleeper:
    def __init__(self, name: str, seconds: float) -> None:
        self.name, self._seconds = name, seconds
        self.calls = 0

    def open(self, streams: int) -> None:
        assert streams == 1

    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        assert waiting == {0: 1}
        self.calls += 1
        time.sleep(self._seconds)
        return {0: 1}

    def close(self) -> None: ...


def test_a_tokens_time_is_that_of_a_call() -> None:
    quick, slow = Sleeper("quick", 0.001), Sleeper("slow", 0.004)
    found = time_tokens([quick, slow], 64, rounds=3)
    assert found.history == 64
    assert 1 <= found.ms["quick"] < found.ms["slow"]
    assert found.ms["slow"] >= 4
    assert quick.calls == slow.calls == 12
    assert found.core_ms["slow"] < found.ms["slow"]  # sleeping costs no CPU time


def test_a_call_that_takes_long_is_not_repeated() -> None:
    slow = Sleeper("slow", 0.51)
    assert time_tokens([slow], 64, rounds=1).ms["slow"] >= 510
    assert slow.calls == 1


def test_steps_are_timed_from_the_same_history_on() -> None:
    way = EngineWay(random_guard("tiny", dtype="float32"), GuardSettings(threads=1, limits=LIMITS), 30)
    found = time_steps(way, streams=4, chunk=3, history=30, rounds=5)
    assert (found.streams, found.chunk, found.history) == (4, 3, 30)
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms
    assert found.tokens_a_core_second > 0
    assert 0 < found.tokens_a_second < 4 * 3 / (found.p50_ms / 2e3)
    way.close()
