"""One answer from its first byte to its end, and who is told when it breaks."""

import asyncio
import gc
import weakref

import pytest

from proxy.collected import Collected
from proxy.stream import Outcome
from tests.driver import DONE, WORDS, answer, chunk, read, stream_of
from tests.drives import TEXT, Slow, Source, classifier_of, drive_of, run
from tests.fakes import ScriptedGuard


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


async def test_a_guard_that_hangs_is_given_up() -> None:
    stream = await run(Source(*answer(WORDS)), ScriptedGuard(delay=3600), verdict_seconds=0.05)
    assert stream.error == "GuardTimeout: no verdict within the deadline"
    assert stream.outcome is Outcome.FAILED


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
