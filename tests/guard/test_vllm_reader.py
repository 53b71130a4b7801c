"""Texts on vLLM, which is a script here; `make vllm` runs the real one. What every guard does: test_conformance.py."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy.guard.answer import classify
from proxy.guard.architecture import read_architecture
from proxy.guard.client import Address
from proxy.guard.fleet import FleetGuard
from proxy.guard.places import FixedPlaces
from proxy.guard.protocol import GuardFault, GuardTimeout
from proxy.guard.vllm_reader import WIDTH, columns_of
from proxy.risk import Role
from tests.guard.checkpoints import small_config
from tests.guard.conformance import Text, settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.scripted_vllm import (
    BLOCK_TOKENS,
    Answer,
    Fault,
    ScriptedGuard,
    ScriptedWorker,
    model_of,
    scripted_guard,
    unlike,
    without_rows,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text(tmp_path_factory.mktemp("guard") / "small")


@asynccontextmanager
async def running(text: Text, **settings: Any) -> AsyncIterator[ScriptedGuard]:
    async with scripted_guard(model_of(text.reference), settings_of(**settings)) as guard:
        yield guard


async def test_the_past_of_a_stream_is_computed_once_but_for_its_last_block(text: Text) -> None:
    ids = words(80)
    async with running(text) as guard:
        before = guard.worker.texts.metrics().replayed_tokens
        stream, _ = await guard.open(ids[:40])
        fork = stream.fork()
        for at in range(40, 80, 5):
            found = await classify(fork, at, ids[at : at + 5])
            assert distance(rows_of(found), text.reference.rows(ids)[at : at + 5]) < 1e-5
        calls = guard.worker.llm.calls
        assert [call.ids for call in calls] == [ids[:40], *(ids[: at + 5] for at in range(40, 80, 5))]
        assert calls[0].computed == 40
        assert all(5 <= call.computed < 5 + BLOCK_TOKENS for call in calls[1:])
        assert len({call.salt for call in calls}) == 1
        again = guard.worker.texts.metrics().replayed_tokens - before
        assert again == sum(call.computed - 5 for call in calls[1:])


async def test_streams_never_use_what_others_have_read(text: Text) -> None:
    ids = words(20)
    async with running(text) as guard:
        for _ in range(2):
            await guard.open(ids, owner="key")
        calls = guard.worker.llm.calls
        assert [call.computed for call in calls] == [20, 20]
        assert len({call.salt for call in calls}) == 2
        assert all(len(call.salt) >= 32 for call in calls)


async def test_rows_that_a_sibling_has_in_the_cache_are_asked_for_without_it(text: Text) -> None:
    ids = words(40)
    async with running(text) as guard:
        stream, _ = await guard.open(ids[:20])
        for child in (stream.fork(), stream.fork()):
            found = await classify(child, 20, ids[20:])
            assert distance(rows_of(found), text.reference.rows(ids)[20:]) < 1e-5
        assert [(call.is_fresh, call.computed) for call in guard.worker.llm.calls] == [
            (False, 20), (False, 20 + 20 % BLOCK_TOKENS), (False, BLOCK_TOKENS), (True, 40),
        ]  # fmt: skip
        assert guard.worker.reader.second_tries == 1


@pytest.mark.parametrize("fault", [without_rows, unlike(num_cached_tokens=3)])
async def test_rows_whose_number_is_not_what_the_cache_says_are_asked_for_again(text: Text, fault: Fault) -> None:
    ids = words(30)
    async with running(text) as guard:
        stream, _ = await guard.open(ids[:21])
        guard.worker.llm.faults.append(fault)
        found = await classify(stream, 21, ids[21:])
        assert distance(rows_of(found), text.reference.rows(ids)[21:]) < 1e-5
        assert guard.worker.llm.calls[-1].is_fresh
        guard.worker.llm.faults += [fault, fault]
        with pytest.raises(GuardFault, match="verdicts for 31 tokens"):
            await classify(stream, 30, [1])


def fill(value: float) -> Fault:
    def change(answer: Answer) -> Answer:
        answer.data = np.full_like(answer.data, value)
        return answer

    return change


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda answer: ValueError("the text"), "vLLM failed on this input: ValueError"),
        (lambda answer: None, "vLLM gave no verdict"),
        (unlike(error="refused"), "vLLM gave no verdict"),
        (lambda answer: replace(answer, data=answer.data[:, 1:]), f"no {WIDTH} logits a token"),
        (lambda answer: replace(answer, data=answer.data[0]), f"no {WIDTH} logits a token"),
        (fill(math.nan), "not finite"),
        (fill(math.inf), "not finite"),
    ],
)
async def test_an_answer_that_cannot_be_read_fails_its_stream_alone(text: Text, fault: Fault, said: str) -> None:
    ids = words(12)
    async with running(text) as guard:
        bad, good = (await guard.open(ids[:10]))[0], (await guard.open(ids[:10]))[0]
        guard.worker.llm.faults.append(fault)
        with pytest.raises(GuardFault, match=said) as caught:
            await classify(bad, 10, ids[10:])
        assert "the text" not in str(caught.value)
        for stream in (good, bad):
            found = await classify(stream, 10, ids[10:])
            assert distance(rows_of(found), text.reference.rows(ids)[10:]) < 1e-5
        assert guard.worker.texts.metrics().faults == 1


async def test_a_question_that_nobody_waits_for_is_ended_there_and_costs_the_next_a_second_try(text: Text) -> None:
    ids = words(24)
    async with running(text, verdict_seconds=0.2) as guard:
        stream, _ = await guard.open(ids[:8])
        guard.worker.llm.is_answering.clear()
        with pytest.raises(GuardTimeout):
            await classify(stream, 8, ids[8:])
        async with asyncio.timeout(20):
            while not guard.worker.llm.calls[-1].is_aborted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        guard.worker.llm.is_answering.set()
        guard.settings = settings_of()
        found = await classify(stream, 8, ids[8:])
        assert distance(rows_of(found), text.reference.rows(ids)[8:]) < 1e-5
        assert [call.is_fresh for call in guard.worker.llm.calls[-2:]] == [False, True]


async def test_a_guard_that_is_gone_answers_nobody_and_says_so(text: Text) -> None:
    ids = words(12)
    async with running(text) as guard:
        stream, _ = await guard.open(ids[:10])
        llm = guard.worker.llm
        llm.errored = True
        llm.faults.append(lambda answer: RuntimeError("EngineDeadError"))
        asking = asyncio.ensure_future(classify(stream, 10, ids[10:]))
        async with asyncio.timeout(20):
            while not guard.worker.deaths:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert not asking.done()
        llm.errored = False
        await guard.worker.restart()
        assert distance(rows_of(await asking), text.reference.rows(ids)[10:]) < 1e-5


async def test_a_stream_goes_on_at_any_other_worker(text: Text, tmp_path: Path) -> None:
    ids = words(40)
    workers = [ScriptedWorker(model_of(text.reference), tmp_path / name, 100) for name in ("a", "b")]
    for worker in workers:
        await worker.start()
    fleet = FleetGuard(FixedPlaces([Address(path=str(worker.path)) for worker in workers], ""), settings_of())
    try:
        await fleet.start(60)
        stream, _ = await fleet.open(ids[:20])
        fork = stream.fork()
        for at in (20, 30):
            found = await classify(fork, at, ids[at : at + 10])
            assert distance(rows_of(found), text.reference.rows(ids)[at : at + 10]) < 1e-5
            for worker in workers:
                if fork.engine == f"unix:{worker.path}":
                    await worker.stop()
        assert fleet.moves == 1
        assert all(worker.llm.calls for worker in workers)
    finally:
        await fleet.close()
        for worker in workers:
            await worker.stop()


def test_classes_are_taken_from_where_the_checkpoint_has_them() -> None:
    labels = {"0": "Controversial", "1": "Safe", "2": "Unsafe"}
    plain = columns_of(read_architecture(small_config()))
    assert plain[Role.ASSISTANT] == list(range(11))
    assert plain[Role.USER] == list(range(11, 23))
    other = columns_of(read_architecture(small_config(query_risk_level_map=json.loads(json.dumps(labels)))))
    assert other[Role.ASSISTANT] == plain[Role.ASSISTANT]
    assert other[Role.USER] == [12, 13, 11, *range(14, 23)]
