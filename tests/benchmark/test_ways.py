"""The engine as a way: all streams at once, their contexts kept."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy.benchmark.ways import LIMITS, EngineWay, NoRoom, some_ids
from proxy.guard.loader import LoadedGuard
from proxy.guard.random_weights import random_guard
from proxy.guard.settings import GuardSettings


@pytest.fixture(scope="module")
def tiny() -> LoadedGuard:
    return random_guard("tiny", dtype="float32")


@pytest.fixture
def way(tiny: LoadedGuard) -> Iterator[EngineWay]:
    with closing(EngineWay(tiny, GuardSettings(threads=1, limits=LIMITS), 40)) as found:
        yield found


def test_one_step_judges_what_waits_in_every_stream(way: EngineWay) -> None:
    way.open(5)
    way.step_seconds.clear()
    assert way.work({0: 1, 1: 3, 4: 2}) == {0: 1, 1: 3, 4: 2}
    assert len(way.step_seconds) == 1
    assert way.work({1: 2}) == {1: 2}


def test_a_question_that_takes_steps_is_asked_once(way: EngineWay) -> None:
    way.open(1)
    waiting, answered, calls = 1300, dict[int, int](), 0
    while not answered:
        answered = way.work({0: waiting})
        waiting += 1  # comes while the first ones are judged: not for this question
        calls += 1
    assert (answered, calls) == ({0: 1300}, 3)


def test_streams_stay_and_go_back_to_their_context(way: EngineWay) -> None:
    way.open(2)
    way.work({0: 30, 1: 30})
    way.step_seconds.clear()
    way.open(3)
    steps = len(way.step_seconds)
    assert steps == 2  # the new stream's prompt, and one token of each
    way.rewind()
    assert way.work({0: 2000}) == {}  # from position 40 on, in pieces


def test_a_full_memory_is_no_room(tiny: LoadedGuard) -> None:
    settings = GuardSettings(threads=1, limits=LIMITS, kv_bytes=512 << 10, window=256)
    with closing(EngineWay(tiny, settings, 200)) as way:
        way.open(2)
        with pytest.raises(NoRoom, match="no room"):
            way.open(100)
        way.open(2)
        assert way.work({0: 1, 1: 1}) == {0: 1, 1: 1}


def test_ids_are_the_same_each_time() -> None:
    assert some_ids(5, 100, 1) == some_ids(5, 100, 1) != some_ids(5, 100, 2)
