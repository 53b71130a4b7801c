"""Streams of doors as their ids alone, over a guard that is a script."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.protocol import GuardFault, GuardOverloaded, SequenceTooLong, UnknownStream
from proxy.guard.sessions import Disconnected
from proxy.guard.texts import TextLink, Texts, Verdicts
from proxy.risk import Role

GONE, FULL, RAISES, HANGS, WRONG = 90, 91, 92, 93, 94
ERRORS = {GONE: Disconnected(), FULL: GuardOverloaded("full"), RAISES: ValueError("the text"), WRONG: GuardFault("no")}


class Script:
    """Says of each token which one it is; the first three times it meets a token that it minds, that is an error."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], str]] = []
        self.minded = 0
        self.is_free = asyncio.Event()
        self.cancelled = 0

    async def read(self, ids: Sequence[int], reads: Sequence[int], role: Role, salt: str) -> Verdicts:
        self.asked.append((list(ids), salt))
        try:
            await (self.is_free.wait() if HANGS in ids else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for token in ids:
            if token in ERRORS and self.minded < 3:
                self.minded += 1
                raise ERRORS[token]
        return Verdicts(bytes(ids[at] for at in reads), len(ids))


class World:
    def __init__(self) -> None:
        self.script = Script()
        self.deaths = 0
        self.texts = Texts(self.script, 10, 100, self.die)
        self.outcomes: dict[int, Outcome] = {}
        self.link: TextLink = self.texts.link(self.deliver)

    def die(self) -> None:
        self.deaths += 1

    def deliver(self, outcomes: list[Outcome]) -> None:
        self.outcomes |= {outcome.ticket: outcome for outcome in outcomes}

    async def do(self, *commands: Command) -> list[Outcome | None]:
        """Outcomes by then of the questions among them."""
        self.link.submit(list(commands))
        for _ in range(4):
            await asyncio.sleep(0)
        return [self.outcomes.get(one.ticket) for one in commands if isinstance(one, Open | Feed)]

    async def ask(self, command: Open | Feed) -> bytes | Exception:
        (outcome,) = await self.do(command)
        assert outcome is not None
        return outcome.error or outcome.rows


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    found = World()
    try:
        yield found
    finally:
        found.link.close()
        await asyncio.sleep(0)
        assert found.texts.metrics().streams == 0
        assert found.texts.silent_seconds == 0


def opening(ticket: int, stream: int, ids: list[int], reads: list[int], *, is_replay: bool = False) -> Open:
    return Open(ticket, stream, ids, reads, Role.USER, "key", is_replay)


async def test_every_question_tells_the_whole_text_and_gets_the_rows_it_asked_for() -> None:
    async with world() as one:
        assert await one.ask(opening(1, 7, [1, 2, 3], [0, 2])) == b"\x01\x03"
        assert await one.ask(Feed(2, 7, 3, [4, 5])) == b"\x04\x05"
        assert await one.ask(Feed(3, 7, 4, [6])) == b"\x06"  # the 5 is taken back
        assert [ids for ids, _ in one.script.asked] == [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 6]]
        found = one.texts.metrics()
        assert (found.streams, found.tokens, found.steps, found.replayed_tokens) == (1, 6, 3, 3 + 4)
        assert (found.open_seconds.count, found.lag_seconds.count) == (1, 2)


async def test_a_fork_goes_its_own_way_in_the_cache_of_its_stream() -> None:
    async with world() as one:
        await one.ask(opening(1, 7, [1, 2, 3], []))
        await one.do(Fork(7, 8, 2), Close(7))
        assert await one.ask(Feed(2, 8, 2, [9])) == b"\x09"
        assert one.script.asked[1][0] == [1, 2, 9]
        assert len({salt for _, salt in one.script.asked}) == 1
        await one.ask(opening(3, 9, [1, 2, 3], []))
        assert len({salt for _, salt in one.script.asked}) == 2
        assert one.texts.metrics().streams == 2


async def test_what_is_not_there_has_to_be_opened_again() -> None:
    async with world() as one:
        await one.do(Fork(5, 6, 0), Close(5), Cancel(5, 1))
        for question in (Feed(1, 6, 0, [1]), Feed(2, 5, 0, [1])):
            assert isinstance(await one.ask(question), UnknownStream)
        await one.ask(opening(3, 7, [1, 2], []))
        assert isinstance(await one.ask(Feed(4, 7, 3, [1])), UnknownStream)
        assert await one.ask(opening(5, 7, [1, 2, 3], [2], is_replay=True)) == b"\x03"
        assert (one.texts.metrics().replays, one.texts.metrics().replayed_tokens) == (1, 2)


@pytest.mark.parametrize(
    ("token", "error", "said"),
    [
        (FULL, GuardOverloaded, "full"),
        (WRONG, GuardFault, "no"),
        (RAISES, GuardFault, "failed on this input: ValueError"),
        (100, GuardFault, "does not have"),
        (-1, GuardFault, "does not have"),
    ],
)
async def test_an_error_leaves_the_text_as_it_was(token: int, error: type[Exception], said: str) -> None:
    async with world() as one:
        await one.ask(opening(1, 7, [1, 2], []))
        found = await one.ask(Feed(2, 7, 2, [3, token]))
        assert isinstance(found, error)
        assert said in str(found)
        assert "the text" not in str(found)
        assert await one.ask(Feed(3, 7, 2, [3])) == b"\x03"
        assert one.script.asked[-1][0] == [1, 2, 3]


async def test_no_text_is_longer_than_the_window_and_an_empty_one_needs_no_guard() -> None:
    async with world() as one:
        assert isinstance(await one.ask(opening(1, 7, [1] * 11, [])), SequenceTooLong)
        assert await one.ask(opening(2, 8, [], [])) == b""
        assert not one.script.asked
        assert await one.ask(Feed(3, 8, 0, [1] * 10)) == b"\x01" * 10


async def test_a_guard_that_is_gone_answers_nothing() -> None:
    async with world() as one:
        assert await one.do(opening(1, 7, [GONE], [0])) == [None]
        assert one.deaths == 1


async def test_a_question_under_way_can_be_cancelled_closed_or_asked_twice() -> None:
    async with world() as one:
        await one.ask(opening(1, 7, [1, 2], []))
        assert await one.do(Feed(2, 7, 2, [HANGS])) == [None]
        assert isinstance(await one.ask(Feed(3, 7, 2, [4])), UnknownStream)
        assert one.texts.metrics().queue_depth == 1
        assert one.texts.silent_seconds > 0
        await one.do(Cancel(7, 9))
        assert one.script.cancelled == 0
        await one.do(Cancel(7, 2))
        assert one.script.cancelled == 1
        assert one.texts.metrics().queue_depth == 0
        assert await one.ask(Feed(4, 7, 2, [4])) == b"\x04"
        await one.do(Feed(5, 7, 3, [HANGS]), Close(7))
        # One that was closed before it began has not asked.
        assert one.texts.metrics().queue_depth == 0
        assert one.texts.metrics().streams == 0


async def test_doors_have_numbers_of_their_own_and_leave_nothing() -> None:
    async with world() as one:
        other: dict[int, Outcome] = {}
        link = one.texts.link(lambda outcomes: other.update({outcome.ticket: outcome for outcome in outcomes}))
        await one.ask(opening(1, 7, [1, 2], []))
        link.submit([opening(1, 7, [3, HANGS], [0])])
        await asyncio.sleep(0)
        assert one.link.metrics().streams == 2
        assert await one.ask(Feed(2, 7, 2, [5])) == b"\x05"
        assert one.script.asked[-1][0] == [1, 2, 5]
        link.close()
        await asyncio.sleep(0)
        assert (one.script.cancelled, other) == (1, {})
        assert one.link.metrics().streams == 1


async def test_silence_is_counted_over_those_who_gave_up_and_ends_with_an_answer() -> None:
    async with world() as one:
        for stream in (1, 2):
            await one.do(opening(stream, stream, [HANGS], []))
            await asyncio.sleep(0.03)
        assert one.texts.silent_seconds >= 0.055  # a sleep may end early
        await one.do(Cancel(1, 1), Cancel(2, 2))
        assert one.texts.silent_seconds == 0, "nobody waits"
        await one.do(opening(3, 3, [HANGS], []))
        assert one.texts.silent_seconds >= 0.055
        await one.ask(opening(4, 4, [1], []))
        assert one.texts.silent_seconds < 0.03
        assert one.texts.metrics().queue_depth == 1
