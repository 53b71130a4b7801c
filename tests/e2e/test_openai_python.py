"""The real openai client against the running server: what its users see of each outcome."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from proxy.vocabulary import decode
from tests.doors import COMPLETIONS, completion_body
from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import Weir, weir

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def client(
    chunks: list[Any], guard: ScriptedGuard | None = None, *, is_body: bool = False, **settings: Any
) -> AsyncIterator[tuple[AsyncOpenAI, Weir]]:
    content_type = "application/json" if is_body else "text/event-stream"
    upstream = ScriptedUpstream(chunks, content_type=content_type)
    async with (
        weir(upstream, guard, **settings) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="sk-client", max_retries=0) as openai_client,
    ):
        yield openai_client, server


async def read(stream: Any) -> tuple[str, str | None]:
    text, finish = "", None
    async for event in stream:
        for choice in event.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish


async def test_a_safe_answer_arrives_unchanged() -> None:
    text = "Hello, wörld! 世界 😀 e\u0301\r\n\tdone"
    async with client(answer(list(text))) as (api, server):
        assert await read(await api.chat.completions.create(**ASK, stream=True)) == (text, "stop")
        [seen] = server.upstream.requests
        assert seen["path"] == "/v1/chat/completions"
        assert seen["headers"]["authorization"] == "Bearer sk-client"
        assert seen["headers"]["accept-encoding"] == "identity"


async def test_a_flagged_answer_is_cut_before_the_flagged_text() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    async with client(answer(WORDS), guard, policy__notice="[stopped]") as (api, _):
        found = await read(await api.chat.completions.create(**ASK, stream=True))
        assert found == ("one two[stopped]", "content_filter")
    assert guard.slots == 0


async def test_a_flagged_body_is_cut_at_the_same_place() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    async with client([body({"content": "".join(WORDS)})], guard, is_body=True, policy__notice="") as (api, _):
        [choice] = (await api.chat.completions.create(**ASK)).choices
        assert choice.message.content == "one two"
        assert choice.finish_reason == "content_filter"


async def test_a_blocked_prompt_is_a_400_that_nobody_retries() -> None:
    async with client(answer(WORDS), ScriptedGuard(prompt_level=UNSAFE)) as (api, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(**ASK, stream=True)
    assert caught.value.code == "content_filter"
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_blocked_prompt_can_be_answered_instead(is_streamed: bool) -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE)
    settings: Any = {"policy__prompt_block": "answer", "policy__prompt_notice": "No."}
    async with client(answer(WORDS), guard, **settings) as (api, _):
        reply: Any = await api.chat.completions.create(**ASK, stream=is_streamed)
        if is_streamed:
            assert await read(reply) == ("No.", "content_filter")
        else:
            assert reply.choices[0].message.content == "No."
            assert reply.choices[0].finish_reason == "content_filter"


async def test_the_stream_helper_builds_the_whole_answer() -> None:
    async with client(answer(WORDS)) as (api, _), api.chat.completions.stream(**ASK) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "".join(WORDS)


TOOL_CALL = [call(0, "get_weather"), call(0, arguments='{"city":'), call(0, arguments=' "Paris"}')]


async def test_a_tool_call_arrives_whole() -> None:
    chunks = [*TOOL_CALL, chunk({}, "tool_calls"), DONE]
    async with client(chunks) as (api, _), api.chat.completions.stream(**ASK) as stream:
        [tool_call] = (await stream.get_final_completion()).choices[0].message.tool_calls or []
    assert tool_call.id == "call_0"
    assert tool_call.function.name == "get_weather"
    assert tool_call.function.arguments == '{"city": "Paris"}'


async def test_a_flagged_tool_call_is_not_one_that_can_be_run() -> None:
    chunks = [*TOOL_CALL, chunk({}, "tool_calls"), DONE]
    async with client(chunks, ScriptedGuard(words("Paris"))) as (api, _):
        events = [event async for event in await api.chat.completions.create(**ASK, stream=True)]
    assert [c.finish_reason for event in events for c in event.choices if c.finish_reason] == ["content_filter"]
    assert "Paris" not in "".join(event.model_dump_json() for event in events)


async def test_three_choices_are_kept_apart() -> None:
    chunks = [chunk({"content": f"{word}"}, index=index) for word in WORDS for index in range(3)]
    ends = [chunk({}, "stop", index=index) for index in range(3)]
    async with client([*chunks, *ends, DONE]) as (api, _):
        texts = ["", "", ""]
        async for event in await api.chat.completions.create(**ASK, n=3, stream=True):
            for choice in event.choices:
                texts[choice.index] += choice.delta.content or ""
    assert texts == ["".join(WORDS)] * 3


async def test_reasoning_arrives_as_reasoning() -> None:
    chunks = [chunk({"reasoning_content": "hm"}), chunk({"content": "yes"}), chunk({}, "stop"), DONE]
    async with client(chunks) as (api, _):
        events = [event async for event in await api.chat.completions.create(**ASK, stream=True)]
    deltas = [choice.delta for event in events for choice in event.choices]
    assert "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas) == "hm"
    assert "".join(delta.content or "" for delta in deltas) == "yes"


async def test_usage_passes_and_is_estimated_after_a_cut() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    async with client([*answer(WORDS)[:-1], usage, DONE]) as (api, _):
        events = [event async for event in await api.chat.completions.create(**ASK, **options)]
        assert events[-1].usage.total_tokens == 3
    async with client([*answer(WORDS)[:-1], usage, DONE], ScriptedGuard(labels("SSUU"))) as (api, _):
        events = [event async for event in await api.chat.completions.create(**ASK, **options)]
        assert events[-1].usage.completion_tokens >= 4
        assert events[-1].model_extra["weir"] == {"usage": "estimated"}


async def test_annotate_delivers_everything_and_says_what_was_found() -> None:
    async with client(answer(WORDS), ScriptedGuard(labels("SSUU")), policy__on_flag="annotate") as (api, _):
        events = [event async for event in await api.chat.completions.create(**ASK, stream=True)]
    text = "".join(choice.delta.content or "" for event in events for choice in event.choices)
    assert text == "".join(WORDS)
    levels = [event.model_extra["weir"]["risk_level"] for event in events if event.choices[0].delta.content]
    assert set(levels) == {"Safe", "Unsafe"}


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_the_moderation_field_is_answered_and_not_forwarded(is_streamed: bool) -> None:
    chunks = answer(WORDS) if is_streamed else [body({"content": "".join(WORDS)})]
    wish: Any = {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}
    guard = ScriptedGuard(labels("SSUU"))
    async with client(chunks, guard, is_body=not is_streamed, policy__on_flag="annotate") as (api, server):
        reply: Any = await api.chat.completions.create(**ASK, stream=is_streamed, moderation=wish)
        found: Any = [event.moderation async for event in reply][-1] if is_streamed else reply.moderation
        assert b"moderation" not in server.upstream.requests[0]["body"]
    assert found.input.type == found.output.type == "moderation_results"
    assert not found.input.results[0].flagged
    assert found.output.results[0].flagged
    assert found.output.results[0].categories["violent"]


async def test_a_client_may_ask_to_block_what_is_only_annotated() -> None:
    wish: Any = {"model": "m", "policy": {"output": {"mode": "block"}}}
    guard = ScriptedGuard(labels("SSUU"))
    async with client(answer(WORDS), guard, policy__on_flag="annotate", policy__notice="") as (api, _):
        found = await read(await api.chat.completions.create(**ASK, stream=True, moderation=wish))
    assert found == ("one two", "content_filter")


async def test_a_guard_that_fails_ends_the_stream_as_an_error() -> None:
    async with client(answer(WORDS), ScriptedGuard(fails_after=12)) as (api, _):
        with pytest.raises(openai.APIError):
            await read(await api.chat.completions.create(**ASK, stream=True))


async def test_an_upstream_that_dies_ends_the_stream_as_an_error() -> None:
    async with client(answer(WORDS)[:-2]) as (api, _):
        with pytest.raises(openai.APIError):
            await read(await api.chat.completions.create(**ASK, stream=True))


async def test_models_are_listed() -> None:
    models = b'{"object":"list","data":[{"id":"gpt-x","object":"model","created":1,"owned_by":"me","secret":"x"}]}'
    async with client([models], is_body=True) as (api, _):
        listed = [model async for model in await api.models.list()]
    assert [model.id for model in listed] == ["gpt-x"]


COMPLETION: Any = {"model": "m", "prompt": "hello"}


async def test_legacy_completions_stream_and_are_cut() -> None:
    chunks = COMPLETIONS.answer(WORDS)
    for guard, expected in (
        (ScriptedGuard(), ("".join(WORDS), "stop")),
        (ScriptedGuard(labels("SSUU")), ("one two", "content_filter")),
    ):
        async with client(chunks, guard, policy__notice="") as (api, server):
            text, finish = "", None
            async for event in await api.completions.create(**COMPLETION, stream=True):
                text += event.choices[0].text
                finish = event.choices[0].finish_reason or finish
            assert (text, finish) == expected
            assert server.upstream.requests[0]["path"] == "/v1/completions"


async def test_legacy_completions_of_several_prompts_are_judged_each_behind_its_own() -> None:
    upstream = [completion_body("".join(WORDS), "fine")]
    guard = ScriptedGuard(labels("SSUU"))
    async with client(upstream, guard, is_body=True, policy__notice="") as (api, _):
        reply = await api.completions.create(model="m", prompt=["first prompt", "second prompt"])
    assert [(choice.text, choice.finish_reason) for choice in reply.choices] == [
        ("one two", "content_filter"),
        ("fine", "stop"),
    ]
    judged = {decode(ids) for ids in guard.fed}
    assert any("first prompt" in text and "one two" in text for text in judged)
    assert any("second prompt" in text and "fine" in text for text in judged)
    assert not any("first prompt" in text and "fine" in text for text in judged)


async def test_legacy_completions_refuse_token_ids() -> None:
    async with client([], is_body=True) as (api, server):
        with pytest.raises(openai.BadRequestError, match="Token ids cannot be read"):
            await api.completions.create(model="m", prompt=[1, 2, 3])
        assert server.upstream.requests == []
