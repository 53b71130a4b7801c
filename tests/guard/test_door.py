"""The door with an engine that is a script: what is asked of it, and what becomes of questions when it goes."""

import asyncio
from collections.abc import Sequence

import pytest

from proxy.guard.answer import classify
from proxy.guard.commands import Cancel, Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.door import GuardDoor
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardFault, GuardInfo, GuardTimeout, GuardUnavailable, UnknownStream
from proxy.guard.rows import write_rows
from proxy.guard.settings import GuardSettings
from proxy.guard.streams import KeptStream
from proxy.risk import RiskLevel, Role

INFO = GuardInfo("scripted", "1", 1000)
SAFE = {Role.ASSISTANT: [1.0, 0.0, 0.0, 1.0, *[0.0] * 7], Role.USER: [1.0, 0.0, 0.0, 1.0, *[0.0] * 8]}


class ScriptedLink:
    """Keeps what it is told; answers when it is told to."""

    def __init__(self, door: GuardDoor, suspects: Sequence[int] = ()) -> None:
        self.door = door
        self.batches: list[list[Command]] = []
        door.connected(self, INFO, 500, suspects)

    @property
    def commands(self) -> list[Command]:
        return [command for batch in self.batches for command in batch]

    def submit(self, commands: list[Command]) -> None:
        self.batches.append(commands)

    def metrics(self) -> Metrics:
        return Metrics(streams=7)

    def answer(self, *commands: Command) -> None:
        self.door.receive([outcome_of(command) for command in commands])

    def answer_all(self) -> None:
        self.answer(*(command for command in self.commands if isinstance(command, Open | Feed)))


def outcome_of(command: Command) -> Outcome:
    assert isinstance(command, Open | Feed)
    count = len(command.reads) if isinstance(command, Open) else len(command.ids)
    return Outcome(command.ticket, write_rows([SAFE[command.role]] * count, command.role))


def door_of(**settings: float) -> GuardDoor:
    return GuardDoor(GuardSettings(**settings))  # type: ignore[arg-type]


async def opened(door: GuardDoor, link: ScriptedLink, ids: list[int]) -> KeptStream:
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(door.open(ids, read=[0], owner="key"))
        await tick()
        link.answer_all()
    return opening.result()[0]


async def tick() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_questions_of_one_tick_travel_together() -> None:
    door = door_of()
    link = ScriptedLink(door)
    async with asyncio.TaskGroup() as group:
        for size in (2, 3, 4):
            group.create_task(door.open([1] * size, read=[0, 1]))
        await tick()
        assert [len(batch) for batch in link.batches] == [3]
        link.answer_all()
    assert door.streams == 3
    assert door.metrics().streams == 7


async def test_the_doors_lag_is_the_whole_wait_whatever_the_engine_says_of_its_own() -> None:
    door = door_of()
    link = ScriptedLink(door)
    stream = await opened(door, link, [1, 2])
    asking = classify(stream, 2, [3])
    await asyncio.sleep(0.05)  # as if a step of another batch had kept the engine from its sockets
    link.answer_all()
    assert len(await asking) == 1
    found = door.metrics()
    assert (found.door_open_seconds.count, found.door_lag_seconds.count) == (1, 1)
    assert 0.045 < found.door_lag_seconds.highest < 60.0
    assert found.lag_seconds.count == 0


async def test_open_questions_are_asked_again_of_the_next_engine_with_all_their_tokens() -> None:
    door = door_of()
    first = ScriptedLink(door)
    stream = await opened(door, first, [1, 2, 3])
    async with asyncio.TaskGroup() as group:
        asking = classify(stream, 3, [4, 5])
        opening = group.create_task(door.open([9, 9], read=[1]))
        await tick()
        feed, new = first.commands[-2:]
        assert isinstance(feed, Feed)
        door.disconnected()
        second = ScriptedLink(door)
        await tick()
        replay, again = second.commands
        assert replay == Open(
            feed.ticket, feed.stream, [1, 2, 3, 4, 5], [3, 4], Role.ASSISTANT, "key", is_replay=True, is_alone=False
        )
        assert again == new, "a stream that was not let in yet is no replay"
        second.answer_all()
        second.answer_all()  # verdicts that come twice count once
    assert [risk.level for risk in asking.result()] == [RiskLevel.SAFE] * 2
    assert stream.position == 5
    assert len(opening.result()[1]) == 1


async def test_a_silent_stream_is_replayed_when_it_speaks_and_its_fork_too() -> None:
    door = door_of()
    stream = await opened(door, ScriptedLink(door), [1, 2, 3])
    door.disconnected()
    child = stream.fork()
    link = ScriptedLink(door)
    await tick()
    assert link.commands == []
    asked = classify(child, 3, [4]), classify(stream, 2, [7])
    await tick()
    assert [command.ids for command in link.commands if isinstance(command, Open)] == [[1, 2, 3, 4], [1, 2, 7]]
    link.answer_all()
    assert [len(await risks) for risks in asked] == [1, 1]
    asking = classify(child, 4, [5])
    await tick()
    assert isinstance(link.commands[-1], Feed), "the engine has it now"
    link.answer(link.commands[-1])
    assert len(await asking) == 1


async def test_who_was_in_the_step_that_died_is_asked_alone_and_only_once() -> None:
    door = door_of()
    link = ScriptedLink(door)
    guilty, innocent = await opened(door, link, [1, 2]), await opened(door, link, [3, 4])
    async with asyncio.TaskGroup() as group:
        poison = group.create_task(failure_of(guilty, [5]))
        question = group.create_task(failure_of(innocent, [6]))
        await tick()
        for suspects in ([guilty.id, innocent.id], [guilty.id]):
            door.disconnected()
            link = ScriptedLink(door, suspects)
            await tick()
        assert isinstance(poison.result(), GuardFault)
        assert "died twice" in str(poison.result())
        (left,) = link.commands
        assert isinstance(left, Open)
        assert (left.stream, left.is_alone) == (innocent.id, True)
        link.answer(left)
    assert question.result() is None
    assert guilty.position == 2, "the stream lives; its question does not"


async def test_an_engine_that_does_not_know_a_stream_is_told_once() -> None:
    door = door_of()
    link = ScriptedLink(door)
    stream = await opened(door, link, [1, 2])
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(failure_of(stream, [3]))
        for _ in range(2):
            await tick()
            command = link.commands[-1]
            assert isinstance(command, Open | Feed)
            door.receive([Outcome(command.ticket, error=UnknownStream("who?"))])
    assert isinstance(link.commands[-1], Open)
    assert isinstance(asking.result(), UnknownStream)


async def test_without_an_engine_questions_wait_for_their_deadline_and_no_longer() -> None:
    door = door_of(verdict_seconds=0.1, open_seconds=0.1)
    stream = await opened(door, ScriptedLink(door), [1, 2])
    door.disconnected()
    assert isinstance(await failure_of(stream, [3]), GuardTimeout)
    with pytest.raises(GuardTimeout):
        await door.open([1, 2])
    assert not (await door.health()).is_ready
    assert door.metrics().steps == 0
    assert door.metrics().door_lag_seconds.count == 0  # only an answer ends a wait
    assert door.streams == 1


async def test_a_late_question_is_cancelled_at_the_engine() -> None:
    door = door_of(verdict_seconds=0.1)
    link = ScriptedLink(door)
    stream = await opened(door, link, [1, 2])
    assert isinstance(await failure_of(stream, [3]), GuardTimeout)
    await tick()
    feed, cancel = link.commands[-2:]
    assert isinstance(feed, Feed)
    assert cancel == Cancel(stream.id, feed.ticket)
    link.answer(feed)  # too late: nobody waits, nothing happens
    assert stream.position == 2


async def test_forks_and_closes_reach_the_engine_in_order() -> None:
    door = door_of()
    link = ScriptedLink(door)
    stream = await opened(door, link, [1, 2])
    child = stream.fork()
    await stream.close()
    await tick()
    assert link.commands[1:] == [Fork(stream.id, child.id, 2), Close(stream.id)]


async def test_rows_too_few_too_many_or_mad_are_faults() -> None:
    door = door_of()
    link = ScriptedLink(door)
    stream = await opened(door, link, [1, 2])
    nan = write_rows([[float("nan"), *[0.0] * 10]], Role.ASSISTANT)
    safe = write_rows([SAFE[Role.ASSISTANT]], Role.ASSISTANT)
    for rows in (b"", safe[:-1], safe * 2, nan):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(failure_of(stream, [3]))
            await tick()
            command = link.commands[-1]
            assert isinstance(command, Feed)
            door.receive([Outcome(command.ticket, rows)])
        assert isinstance(asking.result(), GuardFault)
        assert stream.position == 2


async def test_a_door_that_has_failed_says_why_to_everyone() -> None:
    door = door_of()
    stream = await opened(door, ScriptedLink(door), [1, 2])
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(failure_of(stream, [3]))
        await tick()
        door.failed(GuardUnavailable("refused"))
    assert "refused" in str(asking.result())
    with pytest.raises(GuardUnavailable, match="refused"):
        await door.open([1])
    with pytest.raises(GuardUnavailable, match="refused"):
        await classify(stream.fork(), 2, [3])
    assert "refused" in str(await failure_of(stream, [4]))


async def failure_of(stream: KeptStream, ids: list[int]) -> BaseException | None:
    try:
        await classify(stream, stream.position, ids)
    except Exception as exc:
        return exc
    return None


@pytest.mark.parametrize("end", ["an answer", "a failure", "a deadline"])
async def test_who_is_told_may_take_back_what_another_asked(end: str) -> None:
    """Both hear in one turn, so the second question is gone by the time that it would be told of."""
    door = door_of(verdict_seconds=0.01 if end == "a deadline" else 60.0)
    link = ScriptedLink(door)
    first, second = [await opened(door, link, [1, 2]) for _ in range(2)]
    heard: list[object] = []

    def hear(found: object) -> None:
        heard.append(found)
        second.give_up()
        second.ask(2, [4], later.append)

    later: list[object] = []
    first.ask(2, [3], hear)
    second.ask(2, [3], heard.append)
    await tick()
    asked = link.batches[-1]
    if end == "an answer":
        link.answer(*asked)
    elif end == "a failure":
        door.failed(GuardUnavailable("gone"))
    async with asyncio.timeout(10):
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(heard) == 1
    assert [type(one) for one in later] == ([GuardUnavailable] if end == "a failure" else [])
    if end == "an answer":
        await tick()
        link.answer(*(command for command in link.batches[-1] if isinstance(command, Feed)))
        assert len(later) == 1
        assert second.position == 3
