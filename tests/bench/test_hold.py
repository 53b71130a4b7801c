"""The bench of hold times: every character once, its parts add up, and each part is where its cause is."""

from bench.hold import ENGINE, PARTS, Marks, Waits, play
from proxy.guard.metrics import Metrics
from proxy.policy import Policy
from tests.fakes import ScriptedGuard


async def waits_of(guard: ScriptedGuard, seconds: float = 1.0) -> Waits:
    warm: list[bool] = []
    found = await play(
        guard, Policy(), streams=2, rate=20.0, seconds=seconds, warm=0.2, on_warm=lambda: warm.append(True)
    )
    assert warm == [True]
    return found


async def test_every_character_is_timed_once_and_its_parts_add_up() -> None:
    waits = await waits_of(ScriptedGuard())
    assert len(waits) == len(PARTS)
    assert {len(part) for part in waits} == {len(waits[0])}
    assert 0 < len(waits[0]) <= 2 * 4 * 24
    whole, *parts = (sum(part) for part in waits)
    assert abs(whole - sum(parts)) < 1e-6
    assert all(part[0] >= 0 for part in waits)


async def test_a_slow_guard_is_seen_in_its_part() -> None:
    waits = await waits_of(ScriptedGuard(delay=0.1))
    assert waits[list(PARTS).index("guard")][0] >= 0.09  # a sleep may end early


def test_marks_say_when_a_character_was_there() -> None:
    marks = Marks()
    for end, at in ((4, 1.0), (4, 2.0), (8, 3.0)):
        marks.add(end, at)
    assert [marks.time_of(character) for character in (0, 3, 4, 7)] == [1.0, 1.0, 3.0, 3.0]


def test_the_engine_keeps_the_histograms_that_are_shown() -> None:
    assert {*ENGINE} <= {*Metrics.__struct_fields__}
