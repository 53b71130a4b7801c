"""The SGLang client against a scripted server of both APIs; what every guard does is in test_conformance.py."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest
from aiohttp import web

from proxy.guard.answer import classify
from proxy.guard.protocol import GuardError, GuardFault, GuardOverloaded, GuardUnavailable
from proxy.guard.sglang import WIDTH, Api, start_sglang_guard
from tests.fakes import ScriptedUpstream
from tests.guard.conformance import Text, settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.scripted_sglang import Answer, Fault, ScriptedGuard, ScriptedSGLang, start_scripted


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return Text(tmp_path_factory.mktemp("guard") / "small")


@pytest.fixture(params=get_args(Api))
def api(request: pytest.FixtureRequest) -> Api:
    chosen: Api = request.param
    return chosen


@asynccontextmanager
async def running(text: Text, api: Api, **settings: Any) -> AsyncIterator[ScriptedGuard]:
    async with ScriptedSGLang(text.reference).running() as script:
        guard = await start_scripted(script, api, settings_of(**settings))
        script.bodies.clear()
        try:
            yield guard
        finally:
            await guard.close()
        assert not script.texts, "a stream was left open at the server"
        assert not script.sessions


def calls(guard: ScriptedGuard) -> list[list[int]]:
    return [body["input_ids"] for body in guard.script.bodies if "input_ids" in body]


async def test_a_server_is_sent_what_is_new_alone(text: Text, api: Api) -> None:
    ids = words(20)
    async with running(text, api) as guard:
        assert (guard.info.model, guard.info.revision) == ("small", "sglang")
        stream, _ = await guard.open(ids[:10])
        fork = stream.fork()
        for at in (10, 15):
            found = await classify(fork, at, ids[at : at + 5])
            assert distance(rows_of(found), text.reference.rows(ids)[at : at + 5]) < 1e-5
        assert calls(guard) == [ids[:10], ids[10:15], ids[15:]]
        assert [guard.script.texts[name] for name in guard.script.texts] == [ids]
        await fork.close()
        await stream.close()


def without(*names: str) -> Fault:
    def change(answer: Answer) -> Answer:
        for name in names:
            answer.pop(name, None)
            answer["meta_info"].pop(name, None)
        return answer

    return change


def shorter(answer: Answer) -> Answer:
    if "hidden_states" in answer["meta_info"]:
        answer["meta_info"]["hidden_states"][0].pop()
    else:
        del answer["risk_level_logits"][-3:]
    return answer


def not_finite(answer: Answer) -> Answer:
    for part in (answer, answer["meta_info"]):
        for name in ("risk_level_logits", "hidden_states"):
            if name in part:
                part[name] = [[[math.nan] * WIDTH] * 2] if name == "hidden_states" else [math.nan] * 6
    return answer


def wider(answer: Answer) -> Answer:
    answer["risk_level_logits"] = [0.0] * 7
    answer["meta_info"]["hidden_states"] = [[[0.0] * (WIDTH + 1)] * 2]
    return answer


def others(answer: Answer) -> Answer:
    answer["meta_info"]["prompt_tokens"] -= 1
    return answer


VERDICTS = ("risk_level_logits", "hidden_states")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (without(*VERDICTS), GuardFault),
        (shorter, GuardFault),
        (wider, GuardFault),
        (not_finite, GuardFault),
        (lambda answer: "text", GuardFault),
        (lambda answer: 503, GuardOverloaded),
        (lambda answer: 429, GuardOverloaded),
        (lambda answer: 500, GuardUnavailable),
    ],
)
async def test_an_answer_that_cannot_be_trusted_fails_its_stream_alone(
    text: Text, api: Api, fault: Fault, error: type[GuardError]
) -> None:
    ids = words(12)
    async with running(text, api) as guard:
        bad, good = (await guard.open(ids[:10]))[0], (await guard.open(ids[:10]))[0]
        guard.script.faults.append(fault)
        with pytest.raises(error):
            await classify(bad, 10, ids[10:])
        for stream in (good, bad):
            found = await classify(stream, 10, ids[10:])
            assert distance(rows_of(found), text.reference.rows(ids)[10:]) < 1e-5
            await stream.close()


async def test_a_text_goes_to_the_server_that_was_named_and_to_no_other(text: Text, api: Api) -> None:
    async with running(text, api) as guard, ScriptedUpstream().running() as elsewhere:
        there = {"location": f"{elsewhere.url}/generate"}
        guard.script.faults.append(lambda answer: web.Response(status=307, headers=there))
        with pytest.raises(GuardUnavailable, match="answered 307"):
            await guard.open(words(10), read=[9])
        assert not elsewhere.requests


async def test_states_of_other_tokens_are_not_taken_for_those_of_the_call(text: Text) -> None:
    def more(answer: Answer) -> Answer:
        parts = answer["meta_info"]["hidden_states"]
        parts[0].insert(0, [0.0] * WIDTH)  # read again
        parts.append([1.0] * WIDTH)  # made up
        return answer

    def end_alone(answer: Answer) -> Answer:
        del answer["meta_info"]["hidden_states"][0][:-1]
        return answer

    ids = words(12)
    async with running(text, "sessions") as guard:
        guard.script.faults += [end_alone, more]
        stream, found = await guard.open(ids[:10], read=[9])
        assert distance(rows_of(found), text.reference.rows(ids[:10], "query_")[9:]) < 1e-5
        found = await classify(stream, 10, ids[10:])
        assert distance(rows_of(found), text.reference.rows(ids)[10:]) < 1e-5
        await stream.close()


@pytest.mark.parametrize("fault", [others, without("prompt_tokens"), lambda answer: 400, lambda answer: None])
async def test_a_stream_whose_past_is_in_doubt_is_read_again(text: Text, api: Api, fault: Fault) -> None:
    ids = words(12)
    async with running(text, api) as guard:
        stream, _ = await guard.open(ids[:10])
        guard.script.faults.append(fault)
        found = await classify(stream, 10, ids[10:])
        assert distance(rows_of(found), text.reference.rows(ids)[10:]) < 1e-5
        assert calls(guard) == [ids[:10], ids[10:], ids]
        await stream.close()


@pytest.mark.parametrize("fault", [others, lambda answer: 400])
async def test_a_text_whose_beginning_is_not_read_as_sent_is_a_fault(text: Text, api: Api, fault: Fault) -> None:
    async with running(text, api) as guard:
        guard.script.faults.append(fault)
        with pytest.raises(GuardFault):
            await guard.open(words(10), read=[9])


async def test_a_request_id_that_a_new_server_takes_for_a_new_text_is_noticed(text: Text) -> None:
    """It would answer, with verdicts of a text without its beginning."""
    ids = words(12)
    async with running(text, "rid") as guard:
        stream, _ = await guard.open(ids[:10])
        guard.script.texts.clear()
        found = await classify(stream, 10, ids[10:])
        assert distance(rows_of(found), text.reference.rows(ids)[10:]) < 1e-5
        await stream.close()


async def test_questions_wait_for_a_server_that_is_away(text: Text, api: Api) -> None:
    ids = words(12)
    async with running(text, api) as guard:
        streams = [(await guard.open(ids[:10]))[0] for _ in range(8)]
        await guard.script.stop()
        asking = [classify(stream, 10, ids[10:]) for stream in streams]
        while guard.epoch == 1 and guard.metrics().streams:  # noqa: ASYNC110 (until it has noticed)
            await asyncio.sleep(0.01)
        await guard.script.start()
        for risks in asking:
            assert distance(rows_of(await risks), text.reference.rows(ids)[10:]) < 1e-5
        for stream in streams:
            await stream.close()


async def test_who_answers_is_checked_at_the_start(text: Text, api: Api) -> None:
    script = ScriptedSGLang(text.reference)
    async with script.running():
        with pytest.raises(GuardUnavailable, match="is no SGLang server"):
            await start_sglang_guard(script.url, api, 100, settings_of(), "wrong key")
        with pytest.raises(GuardUnavailable, match="is no SGLang server"):
            await start_sglang_guard(script.url + "/deeper", api, 100, settings_of(), script.key)
        script.faults.append(others)
        with pytest.raises(GuardUnavailable, match="did not pass its first check"):
            await start_sglang_guard(script.url + "/", api, 100, settings_of(), script.key, 400)
    with pytest.raises(GuardUnavailable, match="no SGLang server answers"):
        await start_sglang_guard(script.url, api, 100, settings_of(), script.key)


async def test_a_server_without_sessions_is_told_what_to_start_with(text: Text) -> None:
    script = ScriptedSGLang(text.reference)
    script.sessions = Everything()
    async with script.running():
        with pytest.raises(GuardUnavailable, match="--enable-streaming-session"):
            await start_sglang_guard(script.url, "sessions", 100, settings_of(), script.key, 400)


class Everything(set[str]):
    """Sessions that are all open already: none can be opened."""

    def __contains__(self, _: object) -> bool:
        return True
