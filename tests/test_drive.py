"""What happens to an answer on the event loop: bytes, verdicts, room, time. A client that is gone is alone in it."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from proxy.classifier import Classifier
from proxy.collected import Collected
from proxy.drive import MAX_TURN_BYTES, Client, Drive
from proxy.errors import TOO_LONG, UPSTREAM_BROKE, UPSTREAM_SILENT, Fault
from proxy.settings import UpstreamSettings
from proxy.stream import ModeratedStream, Outcome
from tests.driver import DONE, WORDS, answer, chunk, read, stream_of
from tests.fakes import ScriptedGuard

TEXT = "".join(WORDS)


class Source:
    """An upstream's answer, as a test lets it come."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = list(chunks)
        self.more: Callable[[], None] | None = None
        self.taken = 0

    def take(self) -> bytes | None:
        if not self.chunks:
            return None
        found = self.chunks.pop(0)
        if isinstance(found, Exception):
            raise found
        self.taken += 1
        return found

    def listen(self, more: Callable[[], None] | None) -> None:
        self.more = more

    def come(self, *chunks: bytes | Exception) -> None:
        self.chunks += chunks
        if self.more is not None:
            self.more()


class Slow(Collected):
    """A client that is full after each write, until it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = self.is_fast = False
        self.waits = asyncio.Event()
        self.room = asyncio.Event()
        self.error: Exception | None = None

    def write(self, data: bytes) -> None:
        assert not self.is_full
        super().write(data)
        self.is_full = not self.is_fast

    async def drain(self) -> None:
        self.waits.set()
        await self.room.wait()
        self.room.clear()
        if self.error is not None:
            raise self.error
        self.is_full = False


class Beaten(Collected):
    def __init__(self) -> None:
        super().__init__()
        self.beats = 0
        self.beaten = asyncio.Event()

    def beat(self) -> None:
        self.beats += 1
        self.beaten.set()


async def classifier_of(guard: ScriptedGuard, seconds: float = 20.0) -> Classifier:
    stream, _ = await guard.open([1, 2, 3])
    return Classifier(stream, seconds)


def drive_of(
    stream: ModeratedStream, source: Source, classifier: Classifier | None, client: Client, **limits: Any
) -> Drive:
    beat_seconds = limits.pop("beat_seconds", 60.0)
    return Drive(stream, source, classifier, client, UpstreamSettings(**limits), beat_seconds, fails_open=False)


async def run(
    source: Source, guard: ScriptedGuard | None = None, client: Client | None = None, **limits: float
) -> ModeratedStream:
    """An answer from its first byte to its end."""
    stream, _ = stream_of()
    guard = guard or ScriptedGuard()
    verdict_seconds = limits.pop("verdict_seconds", 20.0)
    async with asyncio.timeout(20), await classifier_of(guard, verdict_seconds) as classifier:
        await drive_of(stream, source, classifier, client or Collected(), **limits).run()
    assert guard.slots == 0
    assert source.more is None
    return stream


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


async def test_a_client_that_is_full_stops_all_until_it_has_room() -> None:
    client, source = Slow(), Source(*answer(WORDS))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(source, client=client))
        while not task.done():
            ended = group.create_task(client.waits.wait())
            await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            client.waits.clear()
            taken = source.taken
            source.come()
            await asyncio.sleep(0)
            assert source.taken == taken or task.done()
            client.room.set()
    assert read(b"".join(client.chunks)).content == TEXT


async def test_a_client_that_does_not_read_ends_the_answer_even_at_its_end() -> None:
    for parts in (answer(WORDS)[:3], [chunk({"content": "one"}, "stop") + DONE]):
        client = Slow()
        client.error = ConnectionAbortedError("the client does not read")
        client.room.set()
        with pytest.raises(ConnectionAbortedError):
            await run(Source(*parts), client=client)


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


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    for guard in (ScriptedGuard(), ScriptedGuard(delay=3600)):
        source = Source(*answer(WORDS)[:3])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(source, guard))
            await guard.judging.wait()
            await asyncio.sleep(0.01)
            task.cancel()
        assert guard.slots == 0
        assert source.more is None
        source.come(*answer(WORDS)[3:])  # it is too late


# Time.


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


async def test_a_guard_that_hangs_is_given_up() -> None:
    stream = await run(Source(*answer(WORDS)), ScriptedGuard(delay=3600), verdict_seconds=0.05)
    assert stream.error == "GuardTimeout: no verdict within the deadline"
    assert stream.outcome is Outcome.FAILED


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


async def test_an_answer_does_not_wait_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        stream, _ = stream_of()
        async with await classifier_of(ScriptedGuard()) as classifier:
            drive = drive_of(stream, Source(*answer(WORDS)), classifier, Collected())
            await drive.run()
        kept = weakref.ref(drive)
        del drive, classifier
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()
