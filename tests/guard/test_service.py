import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.guard.answer import classify
from proxy.guard.limits import Limits
from proxy.guard.loader import CheckpointError, LoadedGuard
from proxy.guard.model import GuardModel
from proxy.guard.protocol import GuardFault, GuardOverloaded, GuardTimeout, GuardUnavailable
from proxy.guard.service import LocalGuard, start_guard
from proxy.guard.settings import Canary, GuardSettings
from proxy.guard.streams import KeptStream
from proxy.risk import RiskLevel, Role
from tests.guard.checkpoints import random_ids, small_checkpoint
from tests.guard.driver import Crashing, Held, Poisoned, Small, distance, rows_of, with_nan
from tests.sockets import PATIENCE_SECONDS

TIGHT = 1e-5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


@asynccontextmanager
async def guard_of(small: Small, model: GuardModel | None = None, **settings: object) -> AsyncIterator[LocalGuard]:
    loaded = LoadedGuard(model or small.loaded.model, small.loaded.info)
    patient = {"verdict_seconds": PATIENCE_SECONDS, "health_seconds": PATIENCE_SECONDS}
    guard = LocalGuard(loaded, GuardSettings(threads=1, **(patient | settings)))  # type: ignore[arg-type]
    try:
        yield guard
    finally:
        await guard.close()


async def is_empty(guard: LocalGuard) -> bool:
    """Nothing left at the door or in the engine. A health check's verdict is behind all earlier closes."""
    await guard.health()
    while guard.metrics().queue_depth or guard.metrics().streams:  # noqa: ASYNC110 (metrics are only numbers)
        await asyncio.sleep(0.001)
    return guard.streams == 0 and guard.metrics().kv_held_bytes == 0


async def test_a_stream_judges_prompt_answer_and_fork_like_one_forward(small: Small) -> None:
    ids = random_ids(120)
    expected, prompt = small.reference.rows(ids), small.reference.rows(ids[:50], "query_")
    async with guard_of(small) as guard:
        stream, risks = await guard.open(ids[:50], read=[49, 10])
        assert distance(rows_of(risks), [prompt[49], prompt[10]]) < TIGHT
        child = stream.fork()
        assert child.position == stream.position == 50
        for tail in (stream, child):
            found = []
            for at in range(50, 120, 7):
                found += await classify(tail, tail.position, ids[at : at + 7])
            assert distance(rows_of(found), expected[50:]) < TIGHT
        found = await classify(child, 60, ids[60:70])
        assert distance(rows_of(found), expected[60:70]) < TIGHT
        assert child.position == 70
        await stream.close()
        await child.close()
        assert await is_empty(guard)


async def test_open_reads_the_response_heads_when_asked(small: Small) -> None:
    ids = random_ids(20)
    async with guard_of(small) as guard:
        _, risks = await guard.open(ids, read=[19], role=Role.ASSISTANT)
        assert distance(rows_of(risks), small.reference.rows(ids)[19:]) < TIGHT
        assert len(risks[0].categories) == 8


async def test_many_streams_at_once_are_batched_and_stay_apart(small: Small) -> None:
    texts = [random_ids(60, seed) for seed in range(48)]

    async def judge(guard: LocalGuard, text: list[int]) -> list[list[float]]:
        stream, _ = await guard.open(text[:20])
        found = []
        while stream.position < len(text):
            found += rows_of(await classify(stream, stream.position, text[stream.position :][:4]))
        await stream.close()
        return found

    async with guard_of(small) as guard:
        rows = await asyncio.gather(*(judge(guard, text) for text in texts))
        for text, found in zip(texts, rows, strict=True):
            assert distance(found, small.reference.rows(text)[20:]) < TIGHT
        assert guard.metrics().steps < 48 * 5
        assert await is_empty(guard)


async def test_tokens_are_taken_back_by_asking_for_no_more(small: Small) -> None:
    """What is refused before anything is fed: see test_conformance.py."""
    async with guard_of(small) as guard:
        stream, _ = await guard.open([1, 2, 3])
        assert await classify(stream, 1, []) == []
        assert stream.position == 1
        await stream.close()
        assert await is_empty(guard)


async def test_a_deadline_ends_the_wait_and_the_stream_goes_on_after_it(small: Small) -> None:
    model = Held(small.loaded.model)
    ids = random_ids(40)
    async with guard_of(small, model) as guard:
        stream, _ = await guard.open(ids[:30])
        usual, guard.settings = guard.settings, replace(guard.settings, verdict_seconds=0.1)
        with model.held(), pytest.raises(GuardTimeout):
            await classify(stream, 30, ids[:10])
        guard.settings = usual
        assert stream.position == 30
        found = await classify(stream, 30, ids[30:])
        assert distance(rows_of(found), small.reference.rows(ids)[30:]) < TIGHT


async def test_a_cancelled_question_leaves_nothing(small: Small) -> None:
    model = Held(small.loaded.model)
    ids = random_ids(200)
    async with guard_of(small, model) as guard:
        stream, _ = await guard.open(ids[:30])
        for _ in range(3):
            with model.held(), pytest.raises(TimeoutError):
                await asyncio.wait_for(classify(stream, 30, random_ids(150, seed=9)), 0.02)
            with model.held(), pytest.raises(TimeoutError):
                await asyncio.wait_for(guard.open(random_ids(300)), 0.02)
        assert guard.streams == 1
        found = await classify(stream, 30, ids[30:])
        assert distance(rows_of(found), small.reference.rows(ids)[30:]) < TIGHT
        await stream.close()
        assert await is_empty(guard)


async def test_closing_frees_at_once_and_ends_the_question_under_way(small: Small) -> None:
    model = Held(small.loaded.model)
    async with guard_of(small, model) as guard:
        stream, _ = await guard.open([1, 2, 3])
        with model.held():
            async with asyncio.TaskGroup() as group:
                question = group.create_task(failure_of(stream, [4]))
                await asyncio.sleep(0.02)
                with pytest.raises(RuntimeError, match="still classifying"):
                    await classify(stream, 3, [5])
                await stream.close()
        assert isinstance(question.result(), GuardUnavailable)
        await stream.close()
        with pytest.raises(GuardUnavailable, match="closed"):
            await classify(stream, 3, [4])
        with pytest.raises(GuardUnavailable):
            stream.fork()
        assert await is_empty(guard)


async def failure_of(stream: KeptStream, ids: list[int]) -> BaseException | None:
    try:
        await classify(stream, stream.position, ids)
    except Exception as exc:
        return exc
    return None


async def test_not_finite_and_poison_fail_their_stream_and_no_other(small: Small) -> None:
    model = Poisoned(with_nan(small.loaded.model, 7), 8, lambda: RuntimeError("kernel died"))
    clean = [token for token in random_ids(60) if token not in (7, 8)]
    async with guard_of(small, model) as guard:
        streams = [(await guard.open(clean[:30]))[0] for _ in range(16)]
        bad = {3: [7], 9: [8]}
        answers = await asyncio.gather(
            *(classify(stream, 30, bad.get(n, clean[30:])) for n, stream in enumerate(streams)), return_exceptions=True
        )
        for n, (stream, answer) in enumerate(zip(streams, answers, strict=True)):
            if n in bad:
                assert isinstance(answer, GuardFault)
                assert stream.position == 30
                answer = await classify(stream, 30, clean[30:])
            assert not isinstance(answer, BaseException)
            assert distance(rows_of(answer), small.reference.rows(clean)[30:]) < TIGHT


async def test_a_crash_restarts_the_engine_and_replays_the_streams(small: Small) -> None:
    model = Crashing(small.loaded.model)
    ids = random_ids(300)
    async with guard_of(small, model) as guard:
        streams = [(await guard.open(ids[:100]))[0] for _ in range(4)]
        model.crashes = 1
        answers = await asyncio.gather(*(classify(stream, 100, ids[100:]) for stream in streams))
        for answer in answers:
            assert distance(rows_of(answer), small.reference.rows(ids)[100:]) < TIGHT
        assert guard.metrics().restarts == 1


async def test_an_engine_that_keeps_crashing_stays_down_and_says_so(small: Small) -> None:
    model = Crashing(small.loaded.model)
    async with guard_of(small, model) as guard:
        model.crashes = 1000
        for _ in range(20):
            with pytest.raises(GuardUnavailable, match="crashed: OutOfMemory"):
                await guard.open(random_ids(300))
        health = await guard.health()
        assert not health.is_ready
        assert "OutOfMemory" in health.detail


async def test_no_room_is_refused_in_time_and_the_admitted_finish(small: Small) -> None:
    limits = Limits(admission_seconds=0.4)
    budget = 1024 * small.loaded.model.architecture.kv_bytes_per_token(4)
    ids = random_ids(250)
    async with guard_of(small, kv_bytes=budget, window=512, limits=limits) as guard:
        opened = await asyncio.gather(*(guard.open(ids[:200]) for _ in range(12)), return_exceptions=True)
        admitted = [answer[0] for answer in opened if not isinstance(answer, BaseException)]
        refused = [answer for answer in opened if isinstance(answer, BaseException)]
        assert len(admitted) == 4
        assert all(isinstance(error, GuardOverloaded) for error in refused)
        assert guard.streams == 4
        answers = await asyncio.gather(*(classify(stream, 200, ids[200:]) for stream in admitted))
        for answer in answers:
            assert distance(rows_of(answer), small.reference.rows(ids)[200:]) < TIGHT
        for stream in admitted:
            await stream.close()
        assert await is_empty(guard)


async def test_health_is_a_verdict_within_its_deadline(small: Small) -> None:
    model = Held(small.loaded.model)
    async with guard_of(small, model) as guard:
        health = await guard.health()
        assert health.is_ready
        assert 0 < health.seconds < PATIENCE_SECONDS
        guard.settings = replace(guard.settings, health_seconds=0.2)
        with model.held():
            health = await guard.health()
        assert not health.is_ready
        assert "within 0.2 s" in health.detail


async def test_health_knows_the_verdict_it_wants(small: Small) -> None:
    seen = set()
    for level in RiskLevel:
        async with guard_of(small, canaries=(Canary([1, 2, 3], 2, level),)) as guard:
            health = await guard.health()
            seen.add(health.is_ready)
            assert health.is_ready or f"not {level}" in health.detail
    assert seen == {True, False}


async def test_a_closed_guard_fails_open_streams_and_new_ones(small: Small) -> None:
    model = Held(small.loaded.model)
    async with guard_of(small, model) as guard:
        stream, _ = await guard.open([1, 2, 3])
        async with asyncio.TaskGroup() as group:
            with model.held():
                question = group.create_task(failure_of(stream, [4]))
                closing = group.create_task(guard.close())  # which waits for the engine
                while not question.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            await closing
        assert isinstance(question.result(), GuardUnavailable)
        with pytest.raises(GuardUnavailable, match="guard is closed"):
            await guard.open([1])
        assert isinstance(await failure_of(stream, [4]), GuardUnavailable)
        await stream.close()
        assert not (await guard.health()).is_ready


async def test_ten_times_as_many_streams_leave_nothing_more(small: Small) -> None:
    async with guard_of(small) as guard:
        for count in (20, 200):
            for seed in range(count):
                stream, _ = await guard.open(random_ids(30, seed))
                await classify(stream, 30, [seed])
                await stream.close()
            assert await is_empty(guard)
        assert guard.metrics().kv_slab_bytes <= 32 << 20


async def test_start_guard_loads_checks_and_closes(tmp_path: Path) -> None:
    folder = str(small_checkpoint(tmp_path / "good"))
    guard = await start_guard(folder, settings=GuardSettings(threads=1))
    assert guard.info.model == "good"
    await guard.close()
    with pytest.raises(CheckpointError):
        await start_guard(str(tmp_path / "nothing"))
    failing = GuardSettings(threads=1, canaries=tuple(Canary([1, 2, 3], 2, level) for level in RiskLevel))
    with pytest.raises(GuardUnavailable, match="did not pass its first check"):
        await start_guard(folder, settings=failing)
