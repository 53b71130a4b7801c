"""The real openai client before upstreams that speak Anthropic's Messages and Gemini's generateContent."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from proxy.settings import Dialect
from tests.adapters.dialects import (
    ANTHROPIC,
    CALL,
    GEMINI,
    GEMINI_REFUSAL,
    TOOL,
    anthropic_text,
    gemini,
    gemini_body,
    gemini_text,
)
from tests.dialects.requests import TALK
from tests.doors import message_body, message_events
from tests.driver import WORDS
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import Weir, weir

TEXT = "".join(WORDS)
HELLO: Any = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class Provider:
    dialect: Dialect
    model: str
    say: Callable[..., list[bytes]]  # words -> a streamed answer
    everything: Sequence[bytes]  # thoughts, text and a call
    body: bytes
    refusal: Sequence[bytes]
    native: str  # the refusal, in the provider's own words
    error: bytes  # amid a stream
    status: tuple[int, bytes, str]  # an error answer, and what of it the client reads


PROVIDERS = [
    Provider(
        "anthropic",
        "claude-sonnet-5",
        anthropic_text,
        ANTHROPIC,
        message_body({"type": "text", "text": TEXT}, TOOL | {"input": {"city": "Oslo"}}, stop_reason="tool_use"),
        anthropic_text("Sorry", stop="refusal"),
        "refusal",
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"CANARY"}}\n\n',
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"model: nope"}}', "not_found_error"),
    ),
    Provider(
        "gemini",
        "gemini-2.5-flash",
        gemini_text,
        GEMINI,
        gemini_body({"text": TEXT}, {"functionCall": {"name": "get_weather", "args": {"city": "Oslo"}}}),
        [GEMINI_REFUSAL],
        "PROHIBITED_CONTENT",
        b'data: {"error":{"code":503,"message":"CANARY","status":"UNAVAILABLE"}}\r\n\r\n',
        (404, b'[{"error":{"code":404,"message":"model: nope","status":"NOT_FOUND"}}]', "NOT_FOUND"),
    ),
]
each = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.dialect)


@asynccontextmanager
async def client(
    provider: Provider,
    chunks: Sequence[Any],
    guard: ScriptedGuard | None = None,
    *,
    is_body: bool = False,
    **settings: Any,
) -> AsyncIterator[tuple[AsyncOpenAI, Weir]]:
    content_type = "application/json" if is_body else "text/event-stream"
    upstream = ScriptedUpstream(chunks, content_type=content_type, **settings.pop("upstream", {}))
    settings = {"upstream__dialect": provider.dialect, "policy__notice": ""} | settings
    async with (
        weir(upstream, guard, **settings) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="sk-client", max_retries=0) as api,
    ):
        yield api, server


async def final(api: AsyncOpenAI, provider: Provider, **fields: Any) -> Any:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    ask: Any = {"model": provider.model, "messages": HELLO, "stream": True, **fields}
    async for chunk in await api.chat.completions.create(**ask):
        state.handle_chunk(chunk)
    return state.current_completion_snapshot


async def text_until_it_raises(api: AsyncOpenAI, provider: Provider) -> str:
    text: list[str] = []

    async def read() -> None:
        async for chunk in await api.chat.completions.create(model=provider.model, messages=HELLO, stream=True):
            text.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert "CANARY" not in str(caught.value)
    return "".join(text)


@each
async def test_thoughts_text_and_calls_arrive_whole(provider: Provider) -> None:
    async with client(provider, provider.everything) as (api, server):
        completion = await final(api, provider, stream_options={"include_usage": True})
        [seen] = server.upstream.requests
    [choice] = completion.choices
    assert (choice.message.content, choice.message.reasoning_content) == ("Hello world", "Let me see.")
    [call] = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    assert choice.finish_reason == "tool_calls"
    assert completion.usage.total_tokens == 12
    header = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}[provider.dialect]
    assert seen["headers"][header] == "sk-client"
    assert "authorization" not in seen["headers"]


@each
async def test_counts_come_only_where_they_are_asked_for(provider: Provider) -> None:
    async with client(provider, provider.say(*WORDS)) as (api, _):
        stream = await api.chat.completions.create(model=provider.model, messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"


@each
async def test_a_flagged_answer_is_cut_before_the_flag(provider: Provider) -> None:
    async with client(provider, provider.say(*WORDS), ScriptedGuard(words("four"))) as (api, server):
        completion = await final(api, provider, stream_options={"include_usage": True})
        assert server.guard.slots == 0
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("one two three", "content_filter")
    assert completion.usage.completion_tokens > 0


@each
async def test_a_flagged_call_is_no_call(provider: Provider) -> None:
    async with client(provider, provider.everything, ScriptedGuard(words("Oslo"))) as (api, _):
        completion = await final(api, provider)
    assert completion.choices[0].finish_reason == "content_filter"
    assert "Oslo" not in str(completion)


@each
async def test_a_whole_body_and_a_cut_one(provider: Provider) -> None:
    ask: Any = {"model": provider.model, "messages": HELLO}
    async with client(provider, [provider.body], is_body=True) as (api, server):
        completion = await api.chat.completions.create(**ask)
        [seen] = server.upstream.requests
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == (TEXT, "tool_calls")
    assert completion.usage is not None
    calls: Any = choice.message.tool_calls
    assert json.loads(calls[0].function.arguments) == {"city": "Oslo"}
    assert not json.loads(seen["body"]).get("stream")
    async with client(provider, [provider.body], ScriptedGuard(labels("SSUU")), is_body=True) as (api, _):
        completion = await api.chat.completions.create(**ask)
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("one two", "content_filter")
    assert choice.message.tool_calls is None


@each
async def test_a_blocked_prompt_is_a_400(provider: Provider) -> None:
    async with client(provider, provider.everything, ScriptedGuard(prompt_level=UNSAFE)) as (api, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await final(api, provider)
    assert caught.value.code == "content_filter"


@each
async def test_a_guard_that_fails_raises(provider: Provider) -> None:
    async with client(provider, provider.say(*WORDS), ScriptedGuard(fails_after=4)) as (api, _):
        assert TEXT.startswith(await text_until_it_raises(api, provider))


@each
async def test_an_upstream_that_dies_or_reports_an_error_raises(provider: Provider) -> None:
    said = provider.say(*WORDS)
    for chunks in (said[:-3], [*said[:-3], provider.error]):
        async with client(provider, chunks) as (api, _):
            assert TEXT.startswith(await text_until_it_raises(api, provider))


@each
async def test_a_refusal_of_the_provider_is_a_content_filter(provider: Provider) -> None:
    async with client(provider, provider.refusal) as (api, _):
        stream: Any = await api.chat.completions.create(model=provider.model, messages=HELLO, stream=True)
        *_, last = [chunk async for chunk in stream]
    assert last.choices[0].finish_reason == "content_filter"
    assert last.choices[0].native_finish_reason == provider.native


@each
async def test_an_error_of_the_provider_has_our_shape(provider: Provider) -> None:
    status, body, kind = provider.status
    upstream = {"status": status}
    async with client(provider, [body], is_body=True, upstream=upstream) as (api, _):
        with pytest.raises(openai.NotFoundError, match="model: nope") as caught:
            await final(api, provider)
    assert caught.value.type == kind
    async with client(provider, [body], ScriptedGuard(words("model")), is_body=True, upstream=upstream) as (api, _):
        with pytest.raises(openai.NotFoundError) as caught:
            await final(api, provider)
    assert "nope" not in str(caught.value)


@each
async def test_a_request_that_cannot_be_told_asks_nobody(provider: Provider) -> None:
    async with client(provider, provider.everything) as (api, server):
        with pytest.raises(openai.BadRequestError) as caught:
            await final(api, provider, logit_bias={"5": 1})
        assert caught.value.param == "logit_bias"
        with pytest.raises(openai.BadRequestError) as caught:
            await final(api, provider, messages=TALK)  # with an image
        assert caught.value.code == "unscannable_content"
        assert not [one for one in server.upstream.requests if b"inlineData" in one["body"]]


@each
async def test_an_image_passes_where_the_operator_allows_it(provider: Provider) -> None:
    async with client(provider, provider.say("Hello"), policy__allow_unscanned=True) as (api, server):
        completion = await final(api, provider, messages=TALK)
        [seen] = server.upstream.requests
    assert completion.choices[0].message.content == "Hello"
    assert b"iVBORw0KGgo=" in seen["body"]


@each
async def test_a_key_of_ours_goes_where_the_provider_looks(provider: Provider) -> None:
    async with client(provider, provider.say("Hello"), upstream__api_key="sk-ours") as (api, server):
        await final(api, provider)
        [seen] = server.upstream.requests
    header = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}[provider.dialect]
    assert seen["headers"][header] == "sk-ours"
    assert "sk-client" not in str(seen["headers"])


async def test_doors_that_cannot_be_told_say_so() -> None:
    for provider in PROVIDERS:
        async with client(provider, provider.everything) as (api, server):
            for ask in (
                api.responses.create(model=provider.model, input="hello", store=False),
                api.completions.create(model=provider.model, prompt="hello"),
            ):
                with pytest.raises(openai.NotFoundError, match=f"speaks {provider.dialect}"):
                    await ask
            assert server.upstream.requests == []
    async with client(PROVIDERS[1], GEMINI) as (_, server), _anthropic(server) as api:
        with pytest.raises(anthropic.NotFoundError, match="speaks gemini"):
            await api.messages.create(model="m", max_tokens=9, messages=HELLO)


async def test_messages_go_to_an_upstream_of_their_own_as_they_are() -> None:
    async with client(PROVIDERS[0], message_events(CALL)) as (_, server), _anthropic(server) as api:
        async with api.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
            message: Any = await stream.get_final_message()
        [seen] = server.upstream.requests
    assert message.content[0].input == {"city": "Oslo"}
    assert "sk-client" in (seen["headers"].get("x-api-key") or seen["headers"]["authorization"])


def _anthropic(server: Weir) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=server.url, api_key="sk-client", max_retries=0)


async def test_two_candidates_of_gemini() -> None:
    said = [gemini({"text": "a"}), gemini({"text": "b"}, index=1)]
    chunks = [*said, gemini(finish="STOP"), gemini(finish="STOP", index=1)]
    async with client(PROVIDERS[1], chunks) as (api, server):
        completion = await final(api, PROVIDERS[1], n=2)
        [seen] = server.upstream.requests
    assert [choice.message.content for choice in completion.choices] == ["a", "b"]
    assert json.loads(seen["body"])["generationConfig"] == {"candidateCount": 2}
    assert (seen["path"], seen["query"]) == ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "alt=sse")


async def test_lists_of_models() -> None:
    lists: list[tuple[Provider, bytes, list[str]]] = [
        (
            PROVIDERS[0],
            b'{"data":[{"type":"model","id":"claude-x","created_at":"2026-01-01T00:00:00Z"}]}',
            ["claude-x"],
        ),
        (
            PROVIDERS[1],
            b'{"models":[{"name":"models/g","supportedGenerationMethods":["generateContent"]},'
            b'{"name":"models/e","supportedGenerationMethods":["embedContent"]}]}',
            ["g"],
        ),
    ]
    for provider, body, names in lists:
        async with client(provider, [body], is_body=True) as (api, server):
            found = await api.models.list()
            [seen] = server.upstream.requests
        assert [model.id for model in found.data] == names
        assert all(model.object == "model" for model in found.data)
        assert "sk-client" in (seen["headers"].get("x-api-key"), seen["headers"].get("x-goog-api-key"))
        assert seen["query"] in ("limit=1000", "pageSize=1000")
