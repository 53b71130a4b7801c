"""Questions without waiting: told at once, later, or when they are given up."""

import asyncio
from collections.abc import Sequence

import pytest

from adapters.base import Key, Kind
from proxy.guard.protocol import GuardError, GuardFault, GuardTimeout, GuardUnavailable, Heard
from proxy.guard.streams import KeptStream
from proxy.inquiry import MAX_LAGS, Inquiry, Lags, Opened, Verdicts
from proxy.risk import Risk, RiskLevel
from proxy.structs import Batch
from tests.fakes import risk
from tests.guard.test_streams import ScriptedDoor, opened

SAFE, UNSAFE = risk(RiskLevel.SAFE), risk(RiskLevel.UNSAFE)
KEY = Key(0, "content")


class Script:
    """A guard stream, and what opens it: the test says what is heard."""

    slides = 0

    def __init__(self, position: int = 100) -> None:
        self.inquiry = Inquiry(self.opened)
        self.position = position
        self.streams: dict[int, Script] = {}  # by view
        self.asked: list[object] = []
        self.at_once: list[Risk] | Exception | None = None
        self.heard: Heard | None = None
        self.told: asyncio.Queue[Verdicts] = asyncio.Queue()

    def opened(self, batch: Batch) -> Opened:
        found = self.inquiry.streams[batch.key, batch.view] = self.streams.get(batch.view, self), [7, 8], 102
        return found

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        self.asked.append((position, ids))
        if self.at_once is not None:
            heard(self.at_once)
        else:
            self.heard = heard

    def give_up(self) -> None:
        self.heard = None

    def hear(self, found: list[Risk] | Exception) -> None:
        heard, self.heard = self.heard, None
        assert heard is not None
        self.position = 104
        heard(found)

    def put(self, *batches: Batch) -> None:
        self.inquiry.put(batches, self.told.put_nowait)

    def fork(self) -> "Script":
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def batch(position: int = 0, view: int = 0) -> Batch:
    return Batch(KEY, Kind.CONTENT, view, position, [1, 2])


def test_a_stream_is_opened_once_with_its_frame_and_then_fed_at_its_place() -> None:
    script = Script()
    script.put(batch())
    script.hear([UNSAFE, UNSAFE, SAFE, SAFE])
    assert script.told.get_nowait() == [[SAFE, SAFE]]
    script.put(batch(position=2))
    assert script.told.empty()
    script.hear([SAFE, SAFE])
    assert script.told.get_nowait() == [[SAFE, SAFE]]
    assert script.asked == [(100, [7, 8, 1, 2]), (104, [1, 2])]
    assert script.inquiry.lags.count == 2
    assert script.inquiry.lags.last is not None


def two() -> tuple[Script, Script]:
    """The streams of two views, of which both have been asked."""
    script, other = Script(), Script()
    script.streams[1] = other
    script.put(batch(), batch(view=1))
    return script, other


@pytest.mark.parametrize("is_in_order", [True, False])
def test_several_batches_are_asked_together(is_in_order: bool) -> None:
    script, other = two()
    answers = [(script, [SAFE] * 4), (other, [UNSAFE] * 4)]
    for stream, found in answers if is_in_order else reversed(answers):
        assert script.told.empty()
        stream.hear(found)
    assert script.told.get_nowait() == [[SAFE, SAFE], [UNSAFE, UNSAFE]]
    assert script.asked == other.asked == [(100, [7, 8, 1, 2])]


def test_where_one_of_several_fails_the_others_are_given_up() -> None:
    script, other = two()
    other.hear(GuardFault("NaN"))
    assert isinstance(script.told.get_nowait(), GuardFault)
    assert script.heard is None
    script.inquiry.give_up()  # there is nothing more to give up
    assert script.told.empty()


def test_where_one_fails_at_once_no_other_is_asked_and_more_may_be_put() -> None:
    script, other = two()
    script.hear([SAFE] * 4)
    other.hear([SAFE] * 4)
    told: list[Verdicts] = []

    def tell(verdicts: Verdicts) -> None:
        told.append(verdicts)
        script.at_once = None
        script.put(batch(position=2))

    script.at_once = GuardUnavailable("gone")
    script.inquiry.put([batch(position=2), batch(2, view=1)], tell)
    assert [type(one) for one in told] == [GuardUnavailable]
    assert len(other.asked) == 1
    script.hear([SAFE, SAFE])
    assert script.told.get_nowait() == [[SAFE, SAFE], [SAFE, SAFE]]
    assert script.told.get_nowait() == [[SAFE, SAFE]]


def test_what_is_known_at_once_is_told_at_once() -> None:
    script = Script()
    script.inquiry.streams[KEY, 0] = (script, (), 100)
    script.at_once = [SAFE, SAFE]
    script.put(batch())
    assert script.told.get_nowait() == [[SAFE, SAFE]]


def test_what_hangs_is_given_up_and_then_is_late() -> None:
    script = Script()
    script.put(batch())
    assert script.told.empty()
    script.inquiry.give_up()
    assert isinstance(script.told.get_nowait(), GuardTimeout)
    script.inquiry.give_up()  # there is nothing more to give up
    assert script.told.empty()
    assert script.heard is None
    assert script.inquiry.lags.last is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([SAFE], GuardFault),
        ([SAFE] * 3, GuardFault),
        ([SAFE] * 5, GuardFault),
        (TimeoutError(), GuardTimeout),
        (ConnectionResetError(), GuardUnavailable),
        (GuardFault("NaN"), GuardFault),
        (KeyError("a fault of ours"), KeyError),
    ],
)
def test_whatever_else_comes_is_no_verdict(
    found: list[Risk] | Exception, expected: type[GuardError] | type[KeyError]
) -> None:
    script = Script()
    script.put(batch())
    script.hear(found)
    assert isinstance(script.told.get_nowait(), expected)
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


# A stream at a door.


async def kept(door: ScriptedDoor) -> tuple[Inquiry, asyncio.Queue[Verdicts], KeptStream]:
    def opened_already(_: Batch) -> Opened:
        raise AssertionError("it has a stream")

    inquiry, told, stream = Inquiry(opened_already), asyncio.Queue[Verdicts](), await opened(door, [7, 8, 9])
    inquiry.streams[KEY, 0] = (stream, (), 3)
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
