"""Streams of the door as sessions that only grow, over a guard that is a script."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from proxy.guard.answer import classify
from proxy.guard.door import GuardDoor
from proxy.guard.protocol import GuardFault, GuardInfo, GuardOverloaded, GuardTimeout, GuardUnavailable
from proxy.guard.rows import winner_row, write_rows
from proxy.guard.sessions import SessionLink, SessionLost
from proxy.guard.settings import GuardSettings
from proxy.risk import RISK_LEVELS, Risk, Role

LOST, FULL, RAISES, HANGS = 90, 91, 92, 93


class Script:
    """A session that remembers what it has read; of each token the level is how many came before it, by three."""

    def __init__(self, made: list["Script"]) -> None:
        self.made = made
        made.append(self)
        self.ids: list[int] = []
        self.calls = 0
        self.is_closed = False
        self.is_cancelled = False

    async def extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        assert not self.is_closed
        self.calls += 1
        await asyncio.sleep(0)
        if HANGS in ids:
            try:
                await asyncio.Event().wait()
            finally:
                self.is_cancelled = True
        errors = {LOST: SessionLost(), FULL: GuardOverloaded("full"), RAISES: ValueError("the text")}
        for token in ids:
            if token in errors and len(self.made) < 3:
                raise errors[token]
        start = len(self.ids)
        self.ids += ids
        return write_rows([winner_row((start + at) % 3, 0.9, 0, 0.9, role) for at in reads], role)

    async def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


@asynccontextmanager
async def opened(**settings: float) -> AsyncIterator[tuple[GuardDoor, list[Script], SessionLink]]:
    made: list[Script] = []
    door = GuardDoor(GuardSettings(**settings))  # type: ignore[arg-type]
    link = SessionLink(lambda: Script(made), door.receive)
    door.connected(link, GuardInfo("script", "1", 100), 100)
    try:
        yield door, made, link
    finally:
        await door.close()
        await link.close()
        assert all(session.is_closed for session in made), "a session was left open"


def places(risks: Sequence[Risk]) -> list[int]:
    return [RISK_LEVELS.index(risk.level) for risk in risks]


async def test_a_stream_is_one_session_that_is_fed_what_is_new() -> None:
    async with opened() as (door, made, link):
        stream, risks = await door.open([1, 2, 3], read=[2, 0])
        assert places(risks) == [2, 0]
        assert places(await classify(stream, 3, [4, 5])) == [0, 1]
        assert [session.ids for session in made] == [[1, 2, 3, 4, 5]]
        assert (link.metrics().streams, link.metrics().tokens) == (1, 5)
        await stream.close()
        await asyncio.sleep(0)  # a tick's commands go at its end
        assert link.metrics().streams == 0


async def test_the_first_fork_takes_the_session_over_and_others_read_all_again() -> None:
    async with opened() as (door, made, _):
        stream, _ = await door.open([1, 2, 3])
        one, two = stream.fork(), stream.fork()
        await classify(one, 3, [4])
        await classify(two, 3, [5])
        await classify(stream, 3, [6])
        assert [session.ids for session in made] == [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6]]


async def test_what_is_taken_back_needs_a_session_of_its_own() -> None:
    async with opened() as (door, made, _):
        stream, _ = await door.open([1, 2, 3])
        await classify(stream, 3, [4, 5])
        assert places(await classify(stream, 4, [6])) == [1]
        assert [session.ids for session in made] == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]
        assert made[0].is_closed


async def test_a_session_that_was_lost_is_made_again_once() -> None:
    async with opened() as (door, made, _):
        stream, _ = await door.open([1])
        with pytest.raises(GuardUnavailable):
            await classify(stream, 1, [LOST])
        assert len(made) == 2
        assert places(await classify(stream, 1, [LOST])) == [1], "the third session takes it"


@pytest.mark.parametrize(("token", "error"), [(FULL, GuardOverloaded), (RAISES, GuardFault)])
async def test_an_error_ends_its_session_and_its_text_is_not_told(token: int, error: type[Exception]) -> None:
    async with opened() as (door, made, link):
        stream, _ = await door.open([1])
        with pytest.raises(error) as caught:
            await classify(stream, 1, [token])
        assert "the text" not in str(caught.value)
        assert made[0].is_closed
        assert places(await classify(stream, 1, [2])) == [1]
        assert link.metrics().faults == (error is GuardFault)


async def test_a_deadline_ends_the_call_under_way() -> None:
    async with opened(verdict_seconds=0.1) as (door, made, _):
        stream, _ = await door.open([1])
        with pytest.raises(GuardTimeout):
            await classify(stream, 1, [HANGS])
        door.settings = replace(door.settings, verdict_seconds=60.0)
        async with asyncio.timeout(60):
            while not made[0].is_closed:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert made[0].is_cancelled
        assert places(await classify(stream, 1, [2])) == [1]


async def test_closing_a_stream_ends_its_question() -> None:
    async with opened() as (door, made, _):
        stream, _ = await door.open([1])
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(failure_of(classify(stream, 1, [HANGS])))
            while made[0].calls < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await stream.close()
        assert isinstance(asking.result(), GuardUnavailable)


async def failure_of(work: object) -> BaseException | None:
    try:
        await work  # type: ignore[misc]
    except Exception as exc:
        return exc
    return None
