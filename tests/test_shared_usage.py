"""What keys use, counted in memory of several processes."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from proxy.errors import ApiError
from proxy.key_limits import KeyLimits
from proxy.shared_usage import PLACES, SharedMemory, SharedUsages

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="several workers need SO_REUSEPORT")


@contextmanager
def workers(count: int) -> Iterator[tuple[SharedMemory, list[SharedUsages]]]:
    memory = SharedMemory(count)
    try:
        yield memory, [SharedUsages(memory.fd, count, row) for row in range(count)]
    finally:
        memory.close()


def limits_of(usages: SharedUsages, name: str, **given: int) -> KeyLimits:
    limits = KeyLimits(usages.of(name))
    limits.adopt(**given)
    return limits


def is_let_in(limits: KeyLimits) -> bool:
    try:
        with limits.enter():
            return True
    except ApiError:
        return False


def test_what_one_worker_counts_the_other_knows() -> None:
    with workers(3) as (_, found), ExitStack() as running:
        mine, theirs = (limits_of(one, "alice", max_streams=2) for one in found[:2])
        other = limits_of(found[0], "bob", max_streams=2)
        running.enter_context(mine.enter())
        running.enter_context(theirs.enter())
        assert (mine.running, theirs.running, other.running) == (2, 2, 0)
        assert not is_let_in(mine)
        assert not is_let_in(theirs)
        assert is_let_in(other)
        running.close()
        assert is_let_in(mine)


def test_minutes_are_shared_too() -> None:
    with workers(2) as (_, found):
        limits = [limits_of(one, "alice", requests_per_minute=10, tokens_per_minute=100) for one in found]
        # Both are emptied faster than they refill: one place comes back in 6 s.
        begin = time.monotonic()
        let_in = sum(is_let_in(limits[number % 2]) for number in range(100))
        assert 10 <= let_in <= 10 + (time.monotonic() - begin) / 6 + 1
        limits = [limits_of(one, "bob", tokens_per_minute=100) for one in found]
        assert is_let_in(limits[1])
        limits[0].charge(10_000)
        assert not is_let_in(limits[1])


def test_the_row_of_a_worker_that_died_is_cleared_and_no_other() -> None:
    with workers(2) as (memory, found), ExitStack() as running:
        mine, theirs = (limits_of(one, "alice", max_streams=2) for one in found)
        running.enter_context(mine.enter())
        running.enter_context(theirs.enter())
        memory.clear(1)
        assert mine.running == 1
        mine.adopt(max_streams=1)
        assert not is_let_in(mine)
        running.pop_all()  # the one that died counts nothing down


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_dies_with_the_lock_holds_nobody_up() -> None:
    with workers(2) as (_, found):
        limits = [limits_of(one, "alice", max_streams=1) for one in found]
        child = os.fork()
        if child == 0:
            found[1].of("alice").lock().__enter__()
            os._exit(0)
        os.waitpid(child, 0)
        assert is_let_in(limits[0])


def test_names_find_their_places_again_until_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PLACES >= 10_000
    monkeypatch.setattr("proxy.shared_usage.PLACES", 8)
    with workers(1) as (_, [found]):
        for round_of in range(2):
            for number in range(8):
                with limits_of(found, str(number), max_streams=1).enter():
                    assert not is_let_in(limits_of(found, str(number), max_streams=1)), round_of
        with pytest.raises(RuntimeError, match="too many names"):
            found.of("one more")
