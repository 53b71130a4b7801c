from collections import deque

import pytest

from proxy.guard.commands import Command, Feed, Open, Outcome
from proxy.guard.engine import Engine
from proxy.guard.engine_loop import BLOCKED_SECONDS, CRASHES_A_MINUTE, EngineDead, EngineLoop
from proxy.guard.protocol import UnknownStream
from proxy.guard.runner import Runner
from proxy.risk import Role
from tests.guard.driver import Small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


class Crashing(Engine):
    """Crashes as often as it is told, behind its commands."""

    crashes = 0

    def step(self, now: float) -> list[Outcome]:
        if self.crashes:
            self.crashes -= 1
            raise MemoryError("no more")
        return super().step(now)


def loop_of(small: Small) -> EngineLoop:
    return EngineLoop(Crashing(Runner(small.loaded.model), window=1024, budget_bytes=1 << 24))


def test_a_loop_without_work_sleeps_as_long_as_it_may(small: Small) -> None:
    loop = loop_of(small)
    assert loop.seconds_to_sleep(None) is None
    assert loop.seconds_to_sleep(2.0) == 2.0
    loop.engine.apply(Open(1, 1, [1, 2], [1], Role.USER, ""), 0.0)
    assert loop.seconds_to_sleep(2.0) == 0.0
    assert 0 < BLOCKED_SECONDS < 1


def test_commands_and_answers_that_stand_beside_a_crash_are_kept(small: Small) -> None:
    loop = loop_of(small)
    assert isinstance(loop.engine, Crashing)
    loop.engine.crashes = 1
    commands: deque[Command] = deque([Feed(1, 99, 0, [1]), Open(2, 1, [1, 2], [1], Role.USER, "")])
    (unknown,) = loop.turn(commands)
    assert isinstance(unknown.error, UnknownStream)
    assert loop.engine.metrics().restarts == 1
    (answer,) = loop.turn(commands)
    assert (answer.ticket, answer.error) == (2, None)


def test_an_engine_that_keeps_crashing_is_dead_and_says_why(small: Small) -> None:
    loop = loop_of(small)
    assert isinstance(loop.engine, Crashing)
    loop.engine.crashes = 100
    opening: Command = Open(1, 1, [1, 2], [1], Role.USER, "")
    for _ in range(CRASHES_A_MINUTE):
        assert loop.turn(deque([opening])) == []
    with pytest.raises(EngineDead, match="MemoryError: no more"):
        loop.turn(deque([opening]))
