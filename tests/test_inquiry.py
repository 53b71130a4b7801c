"""Questions without waiting: told at once, later, or when they are given up."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from adapters.base import Key, Kind
from proxy.guard.protocol import GuardError, GuardFault, GuardTimeout, GuardUnavailable
from proxy.guard.streams import KeptStream
from proxy.inquiry import MAX_LAGS, Inquiry, Lags, Verdicts
from proxy.risk import Risk, RiskLevel
from proxy.structs import Batch
from tests.fakes import risk
from tests.guard.test_streams import ScriptedDoor, opened

SAFE = risk(RiskLevel.SAFE)
KEY = Key(0, "content")


class Script:
    """A guard stream, and what opens it: the next answer is what the test says."""

    slides = position = 0

    def __init__(self) -> None:
        self.inquiry = Inquiry(self.ask)
        self.asked: list[object] = []
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.told: asyncio.Queue[Verdicts] = asyncio.Queue()

    async def ask(self, batches: Sequence[Batch]) -> Any:
        self.asked.append(batches)
        for one in batches:
            self.inquiry.streams[one.key, one.view] = (self, 100)
        return await self.answer

    def classify(self, position: int, ids: Sequence[int]) -> Awaitable[list[Risk]]:
        self.asked.append((position, ids))
        return self.answer

    def put(self, *batches: Batch) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        self.inquiry.put(batches, self.told.put_nowait)

    async def fork(self) -> "Script":
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def batch(position: int = 0, view: int = 0) -> Batch:
    return Batch(KEY, Kind.CONTENT, view, position, [1, 2])


async def test_a_stream_is_opened_once_and_then_fed_at_its_place() -> None:
    script = Script()
    script.put(batch())
    script.answer.set_result([SAFE, SAFE])
    assert await script.told.get() == [[SAFE, SAFE]]
    script.put(batch(position=2))
    script.answer.set_result([SAFE, SAFE])
    assert script.told.empty()
    assert await script.told.get() == [[SAFE, SAFE]]
    assert script.asked == [(batch(),), (102, [1, 2])]
    assert script.inquiry.lags.count == 2
    assert script.inquiry.lags.last is not None


async def test_several_batches_are_asked_together() -> None:
    script = Script()
    script.put(batch(), batch(view=1))
    script.answer.set_result([[SAFE, SAFE], [SAFE, SAFE]])
    assert await script.told.get() == [[SAFE, SAFE], [SAFE, SAFE]]
    assert script.asked == [(batch(), batch(view=1))]


async def test_what_is_known_at_once_is_told_at_once() -> None:
    script = Script()
    script.inquiry.streams[KEY, 0] = (script, 100)
    script.answer.set_result([SAFE, SAFE])
    script.inquiry.put([batch()], script.told.put_nowait)
    assert script.told.get_nowait() == [[SAFE, SAFE]]


async def test_what_hangs_is_given_up_and_then_is_late() -> None:
    script = Script()
    script.put(batch())
    await asyncio.sleep(0.01)
    assert script.told.empty()
    script.inquiry.give_up()
    assert isinstance(await script.told.get(), GuardTimeout)
    script.inquiry.give_up()  # there is nothing more to give up
    assert script.inquiry.lags.last is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([SAFE], GuardFault),
        ([SAFE] * 3, GuardFault),
        (TimeoutError(), GuardTimeout),
        (ConnectionResetError(), GuardUnavailable),
        (GuardFault("NaN"), GuardFault),
        (KeyError("a fault of ours"), KeyError),
    ],
)
async def test_whatever_else_comes_is_no_verdict(
    found: list[Risk] | Exception, expected: type[GuardError] | type[KeyError]
) -> None:
    script = Script()
    script.put(batch())
    if isinstance(found, Exception):
        script.answer.set_exception(found)
    else:
        script.answer.set_result(found)
    assert isinstance(await script.told.get(), expected)
    assert script.inquiry.lags.last is None


def test_lags_are_bounded_and_keep_the_worst() -> None:
    lags = Lags()
    assert (lags.median, lags.max) == (None, None)
    for seconds in (9.0, *[1.0] * MAX_LAGS):
        lags.begin(5.0)
        lags.add(5.0, 5.0 + seconds)
    assert (lags.median, lags.max) == (1.0, 9.0)
    assert (lags.count, lags.first, lags.last) == (MAX_LAGS + 1, 5.0, 6.0)
    lags.begin(7.0)
    assert (lags.count, lags.first, lags.last) == (MAX_LAGS + 2, 5.0, None)


# A stream at a door is asked without a future.


async def kept(door: ScriptedDoor) -> tuple[Inquiry, asyncio.Queue[Verdicts], KeptStream]:
    async def ask(batches: Sequence[Batch]) -> Any:
        raise AssertionError("it has a stream")

    inquiry, told, stream = Inquiry(ask), asyncio.Queue[Verdicts](), await opened(door, [7, 8, 9])
    inquiry.streams[KEY, 0] = (stream, 3)
    return inquiry, told, stream


async def test_a_kept_stream_is_asked_at_its_place_and_heard_once() -> None:
    door = ScriptedDoor()
    inquiry, told, stream = await kept(door)
    for position in (0, 2):
        inquiry.put([batch(position)], told.put_nowait)
        assert told.empty()
        found = await told.get()
        assert not isinstance(found, Exception)
        assert [one.levels[1] * 2**20 for one in found[0]] == [1, 2]
    assert door.seen[-1] == [7, 8, 9, 1, 2, 1, 2]
    assert (inquiry.lags.count, told.empty(), stream.position) == (2, True, 7)
    assert inquiry.lags.last is not None


async def test_a_kept_stream_that_hangs_is_given_up_and_may_be_asked_again() -> None:
    door = ScriptedDoor()
    inquiry, told, stream = await kept(door)
    inquiry.put([batch()], told.put_nowait)
    inquiry.give_up()
    assert isinstance(told.get_nowait(), GuardTimeout)
    assert (door.told, stream.position) == ({}, 3)
    inquiry.give_up()  # there is nothing more to give up
    await asyncio.sleep(0)
    assert told.empty()
    inquiry.put([batch()], told.put_nowait)
    assert not isinstance(await told.get(), Exception)


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_what_a_kept_stream_cannot_answer_is_no_verdict(is_at_once: bool) -> None:
    door = ScriptedDoor()
    inquiry, told, stream = await kept(door)
    if is_at_once:
        await stream.close()
    else:
        door.error = GuardUnavailable("gone")
    inquiry.put([batch()], told.put_nowait)
    assert told.empty() is not is_at_once
    assert isinstance(await told.get(), GuardUnavailable)
    assert inquiry.lags.last is None
