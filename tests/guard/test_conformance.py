"""What every backend of the guard does, whatever runs the model."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from proxy.guard.answer import classify
from proxy.guard.protocol import GuardStream, GuardTimeout, GuardUnavailable, SequenceTooLong
from proxy.guard.settings import Canary
from proxy.risk import Risk, RiskLevel, Role
from tests.guard.conformance import BACKENDS, WINDOW, AnyGuard, Backend, Text, settings_of, words


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text(tmp_path_factory.mktemp("guard") / "small")


@pytest.fixture(scope="module", params=BACKENDS, ids=str)
def backend(request: pytest.FixtureRequest, text: Text) -> Iterator[Backend]:
    chosen: Backend = request.param
    with chosen.place(text) as place:
        yield replace(chosen, start=lambda _, settings: chosen.start(place, settings))


@asynccontextmanager
async def running(backend: Backend, text: Text, **settings: Any) -> AsyncIterator[AnyGuard]:
    async with backend.start(text, settings_of(**settings)) as guard:
        yield guard


async def feed(stream: GuardStream, ids: list[int], step: int = 3) -> list[Risk]:
    risks: list[Risk] = []
    for at in range(0, len(ids), step):
        risks += await classify(stream, stream.position, ids[at : at + step])
    return risks


async def is_empty(guard: AnyGuard) -> bool:
    """Nothing left at the door; behind it what was closed goes in its own time."""
    await guard.health()
    async with asyncio.timeout(30):
        while guard.metrics().streams:  # noqa: ASYNC110 (numbers)
            await asyncio.sleep(0.01)
    return guard.streams == 0


async def test_prompt_answer_forks_and_what_is_taken_back(backend: Backend, text: Text) -> None:
    ids, other = words(40), words(12, seed=1)
    expected = text.reference.rows(ids)
    prompt = text.reference.rows(ids[:24], "query_")
    async with running(backend, text) as guard:
        stream, risks = await guard.open(ids[:24], read=[20, 7], owner="key")
        assert backend.agrees(risks, [prompt[20], prompt[7]], Role.USER)
        assert stream.position == 24
        one, two = stream.fork(), stream.fork()
        assert backend.agrees(await feed(one, ids[24:]), expected[24:])
        assert backend.agrees(await feed(two, other), text.reference.rows(ids[:24] + other)[24:])
        assert backend.agrees(await feed(stream, ids[24:30]), expected[24:30])
        # The end of a channel, taken back for more of its text.
        changed = ids[:30] + other
        assert backend.agrees(await classify(two, 24, ids[24:30]), expected[24:30])
        assert backend.agrees(await classify(one, 30, other), text.reference.rows(changed)[30:])
        assert (one.position, two.position) == (42, 30)
        for each in (stream, one, two, one):
            await each.close()
        assert await is_empty(guard)


async def test_the_answers_heads_read_a_prompt_when_asked(backend: Backend, text: Text) -> None:
    ids = words(12)
    async with running(backend, text) as guard:
        stream, risks = await guard.open(ids, read=[11], role=Role.ASSISTANT)
        assert backend.agrees(risks, text.reference.rows(ids)[11:])
        await stream.close()


async def test_streams_at_once_stay_apart(backend: Backend, text: Text) -> None:
    texts = [words(20, seed) for seed in range(12)]

    async def judge(guard: AnyGuard, ids: list[int]) -> list[Risk]:
        stream, _ = await guard.open(ids[:8], owner=str(ids[0] % 3))
        try:
            return await feed(stream, ids[8:], 4)
        finally:
            await stream.close()

    async with running(backend, text) as guard:
        found = await asyncio.gather(*(judge(guard, ids) for ids in texts))
        for ids, risks in zip(texts, found, strict=True):
            assert backend.agrees(risks, text.reference.rows(ids)[8:])
        assert await is_empty(guard)


async def test_what_cannot_be_asked_is_refused_and_feeds_nothing(backend: Backend, text: Text) -> None:
    async with running(backend, text) as guard:
        assert guard.info.window == WINDOW
        assert guard.info.model == "small"
        stream, _ = await guard.open([1, 2, 3])
        for position, ids in ((4, [1]), (-1, [1]), (3, [400]), (3, [-1])):
            with pytest.raises(ValueError, match=r"position|ids"):
                await classify(stream, position, ids)
        with pytest.raises(ValueError, match="read positions"):
            await guard.open([1, 2], read=[2])
        with pytest.raises(SequenceTooLong):
            await guard.open([1] * (WINDOW + 1))
        assert stream.position == 3
        assert backend.agrees(await classify(stream, 3, [4]), text.reference.rows([1, 2, 3, 4])[3:])
        await stream.close()
        with pytest.raises(GuardUnavailable, match="closed"):
            await classify(stream, 4, [5])
        assert await is_empty(guard)


async def test_a_text_that_outgrows_the_window_is_judged_to_its_end(backend: Backend, text: Text) -> None:
    ids = words(160)
    async with running(backend, text) as guard:
        stream, _ = await guard.open(ids[:20])
        assert len(await feed(stream, ids[20:], 20)) == 140
        assert stream.slides >= 1
        await stream.close()


async def test_memory_that_is_lost_is_replayed(backend: Backend, text: Text) -> None:
    if backend.lose is None:
        pytest.skip("its crashes are in test_service.py")
    ids = words(30)
    async with running(backend, text) as guard:
        stream, _ = await guard.open(ids[:10])
        child = stream.fork()
        risks = await feed(child, ids[10:16])
        await backend.lose(guard)
        risks += await feed(child, ids[16:])
        assert backend.agrees(risks, text.reference.rows(ids)[10:])
        assert backend.agrees(await classify(stream, 10, ids[10:12]), text.reference.rows(ids)[10:12])
        for each in (stream, child):
            await each.close()
        assert await is_empty(guard)


async def test_a_deadline_ends_the_wait_and_the_stream_goes_on_after_it(backend: Backend, text: Text) -> None:
    if backend.stall is None:
        pytest.skip("its deadlines are in test_service.py")
    ids = words(12)
    async with running(backend, text, verdict_seconds=0.5) as guard:
        stream, _ = await guard.open(ids[:8])
        async with backend.stall(guard):
            with pytest.raises(GuardTimeout):
                await classify(stream, 8, ids[8:])
        assert stream.position == 8
        # The machine may be slower than the deadline.
        for _ in range(100):
            try:
                risks = await classify(stream, 8, ids[8:])
                break
            except GuardTimeout:
                continue
        assert backend.agrees(risks, text.reference.rows(ids)[8:])
        await stream.close()


async def test_who_gives_up_hears_nothing_and_may_ask_again(backend: Backend, text: Text) -> None:
    ids = words(12)
    heard: asyncio.Queue[list[Risk] | Exception] = asyncio.Queue()
    async with running(backend, text) as guard:
        stream, _ = await guard.open(ids[:8])
        stream.give_up()  # there is nothing yet
        stream.ask(8, words(4, seed=1), heard.put_nowait)
        stream.give_up()
        assert stream.position == 8
        stream.ask(8, ids[8:], heard.put_nowait)
        found = await heard.get()
        assert not isinstance(found, Exception)
        assert backend.agrees(found, text.reference.rows(ids)[8:])
        stream.give_up()  # too late
        assert stream.position == 12
        await stream.close()
        assert await is_empty(guard)
        assert heard.empty()


async def test_health_is_a_verdict(backend: Backend, text: Text) -> None:
    async with running(backend, text) as guard:
        health = await guard.health()
        assert health.is_ready
        assert "judged" in health.detail
        assert "canary" in health.detail
        assert await is_empty(guard)


async def test_a_wrong_verdict_on_the_canary_is_no_health(backend: Backend, text: Text) -> None:
    failing = tuple(Canary([1, 2, 3], 2, level) for level in RiskLevel)
    if backend.name == "thread":
        async with running(backend, text, canaries=failing) as guard:
            assert not (await guard.health()).is_ready
        return
    with pytest.raises(GuardUnavailable, match="did not pass its first check"):
        async with running(backend, text, canaries=failing):
            pass


async def test_a_closed_guard_fails_streams_and_new_ones(backend: Backend, text: Text) -> None:
    async with running(backend, text) as guard:
        stream, _ = await guard.open([1, 2, 3])
        await guard.close()
        with pytest.raises(GuardUnavailable):
            await classify(stream, 3, [4])
        with pytest.raises(GuardUnavailable):
            await guard.open([1])
        await stream.close()
        assert not (await guard.health()).is_ready
