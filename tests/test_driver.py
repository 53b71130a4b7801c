"""What happens to an answer on the event loop: bytes, verdicts, room, time. A client that is gone is alone in it."""

import asyncio
from typing import Any

from proxy.collected import Collected
from proxy.driver import MAX_TURN_BYTES, Client
from proxy.errors import TOO_LONG, UPSTREAM_BROKE, UPSTREAM_SILENT, Fault
from proxy.stream import Outcome
from tests.driver import DONE, WORDS, answer, chunk, read, stream_of
from tests.drives import TEXT, Beaten, Slow, Source, classifier_of, drive_of, run
from tests.fakes import ScriptedGuard


async def test_an_answer_that_is_there_and_one_that_comes_are_the_same() -> None:
    for is_there in (True, False):
        source, client = Source(*(answer(WORDS) if is_there else ())), Collected()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(source, client=client))
            for part in () if is_there else answer(WORDS):
                await asyncio.sleep(0)
                source.come(part)
        assert task.result().outcome is Outcome.COMPLETE
        assert read(b"".join(client.chunks)).content == TEXT


async def test_while_the_guard_judges_bytes_wait_and_then_come_at_once() -> None:
    guard, source = ScriptedGuard(delay=0.05), Source(*answer(WORDS)[:2])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, guard))
        await guard.judging.wait()
        source.come(*answer(WORDS)[2:])
        assert source.chunks  # nothing is taken yet
    assert task.result().outcome is Outcome.COMPLETE


async def test_an_upstream_that_has_much_lets_others_have_their_turn() -> None:
    big = [chunk({"content": "one two three " * (MAX_TURN_BYTES // 16)}) for _ in range(20)]
    source = Source(*big, chunk({}, "stop"), DONE)
    turns: list[int] = []
    stream, _ = stream_of()
    stream.open_gate()

    async def other() -> None:
        while len(turns) < 5:
            turns.append(source.taken)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(drive_of(stream, source, None, Collected()).run())
        group.create_task(other())
    assert turns[-1] < len(big)


async def test_a_client_that_is_gone_disturbs_nobody_else() -> None:
    """Verdicts of many streams come in one turn of the loop; one client among them has left."""

    class Gone(Collected):
        def write(self, data: bytes) -> None:
            raise ConnectionResetError("gone")

    guard = ScriptedGuard(delay=0.01)
    clients = [Gone() if number % 3 == 1 else Collected() for number in range(30)]
    loop = asyncio.get_running_loop()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(Source(*answer(WORDS)), guard, client)) for client in clients]
    for task, client in zip(tasks, clients, strict=True):
        if isinstance(client, Gone):
            assert task.result() == "ConnectionResetError"
        else:
            assert task.result() == "complete"
            assert read(b"".join(client.chunks)).content == TEXT
    assert complaints == []
    assert guard.slots == 0


async def outcome(source: Source, guard: ScriptedGuard, client: Client) -> str:
    stream, _ = stream_of()
    try:
        async with await classifier_of(guard) as classifier:
            await drive_of(stream, source, classifier, client).run()
    except ConnectionResetError as exc:
        return type(exc).__name__
    return stream.outcome.value


async def test_silence_ends_at_the_idle_deadline_and_bytes_put_it_off() -> None:
    source, loop = Source(), asyncio.get_running_loop()
    newest = loop.time()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, idle_seconds=0.3))
        for part in answer(WORDS)[:8]:
            await asyncio.sleep(0.05)
            taken = source.taken
            source.come(part)
            newest = loop.time() if source.taken > taken else newest
    assert loop.time() - newest >= 0.29
    assert task.result().failure == UPSTREAM_SILENT


async def test_an_answer_ends_at_the_total_deadline_whether_bytes_wait_or_not() -> None:
    class Endless(Source):
        def take(self) -> bytes | None:
            return b": \n"

    for source in (Source(), Endless()):
        stream = await run(source, total_seconds=0.05)
        assert stream.failure == TOO_LONG


async def test_a_client_that_gets_nothing_gets_signs_of_life() -> None:
    client, source = Beaten(), Source(chunk({"role": "assistant"}))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, client=client, beat_seconds=0.02))
        while client.beats < 3:
            await client.beaten.wait()
            client.beaten.clear()
            source.come(b": the upstream is busy, and nothing of it reaches the client\n\n")
        source.come(*answer(WORDS))
    assert task.result().outcome is Outcome.COMPLETE
    assert read(b"".join(client.chunks)).content == TEXT


async def test_a_client_that_takes_no_sign_of_life_is_waited_for() -> None:
    class Full(Slow):
        def beat(self) -> None:
            self.is_full = True

    client, source = Full(), Source()
    client.is_fast = True
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, client=client, beat_seconds=0.02))
        await client.waits.wait()
        source.come(*answer(WORDS))
        await asyncio.sleep(0)
        assert source.chunks
        client.room.set()
    assert task.result().outcome is Outcome.COMPLETE


async def test_what_the_client_takes_slowly_is_not_the_upstreams_silence() -> None:
    client, source = Slow(), Source(*answer(WORDS)[:2])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, client=client, idle_seconds=0.5))
        await client.waits.wait()
        await asyncio.sleep(1)
        assert not task.done()
        source.come(Fault(UPSTREAM_BROKE, 502, "reset"))
        client.is_fast = True
        client.room.set()
    assert task.result().failure == UPSTREAM_BROKE
