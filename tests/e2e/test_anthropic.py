"""The real anthropic client against the running server: what its users see of each outcome."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tests.adapters.test_structures import SIGNATURE
from tests.doors import MESSAGES, block_events, message_body, message_events, text_block
from tests.driver import WORDS
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import Weir, weir

TEXT = "".join(WORDS)
ASK: Any = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}]}


@asynccontextmanager
async def client(
    chunks: list[Any], guard: ScriptedGuard | None = None, *, is_body: bool = False, **settings: Any
) -> AsyncIterator[tuple[AsyncAnthropic, Weir]]:
    content_type = "application/json" if is_body else "text/event-stream"
    upstream = ScriptedUpstream(chunks, content_type=content_type)
    async with (
        weir(upstream, guard, **settings) as server,
        AsyncAnthropic(base_url=server.url, api_key="sk-client", max_retries=0) as anthropic_client,
    ):
        yield anthropic_client, server


async def final(api: AsyncAnthropic, **fields: Any) -> Any:
    async with api.messages.stream(**{**ASK, **fields}) as stream:
        return await stream.get_final_message()


THINKING = block_events(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me"},
    {"type": "thinking_delta", "thinking": " see."},
    {"type": "signature_delta", "signature": SIGNATURE},
)
CALL = block_events(
    2,
    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}},
    {"type": "input_json_delta", "partial_json": ""},
    {"type": "input_json_delta", "partial_json": '{"city":'},
    {"type": "input_json_delta", "partial_json": ' "Par\\u0069s"}'},
)
EVERYTHING = message_events(THINKING, text_block(1, *WORDS), CALL, stop="tool_use")


async def test_thoughts_text_and_calls_arrive_whole() -> None:
    async with client(EVERYTHING) as (api, server):
        message = await final(api)
        [seen] = server.upstream.requests
    thought, text, call = message.content
    assert (thought.thinking, thought.signature) == ("Let me see.", SIGNATURE)
    assert text.text == TEXT
    assert (call.id, call.name, call.input) == ("toolu_1", "get_weather", {"city": "Paris"})
    assert (message.stop_reason, message.usage.output_tokens, message.id) == ("tool_use", 9, "msg_1")
    assert seen["path"] == "/v1/messages"
    assert "sk-client" in (seen["headers"].get("x-api-key") or seen["headers"]["authorization"])
    assert seen["headers"]["anthropic-version"]


async def test_a_flagged_text_is_cut_as_a_refusal() -> None:
    async with client(EVERYTHING, ScriptedGuard(labels("SSUU")), policy__notice="[stopped]") as (api, _):
        message = await final(api)
    # The thought has two tokens that pass, and is cut at the third.
    assert message.stop_reason == "refusal"
    assert message.stop_details.type == "refusal"
    assert message.stop_details.explanation == "[stopped]"
    assert message.usage.output_tokens > 0
    assert "Paris" not in str(message)


async def test_a_cut_keeps_the_text_before_it() -> None:
    guard = ScriptedGuard(words("four"))
    async with client(MESSAGES.answer(WORDS), guard, policy__notice="") as (api, _):
        seen = [event async for event in await api.messages.create(**ASK, stream=True)]
    text = "".join(
        event.delta.text for event in seen if event.type == "content_block_delta" and event.delta.type == "text_delta"
    )
    assert text == "one two three"
    assert [event.type for event in seen][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert guard.slots == 0


async def test_a_flagged_call_is_no_call() -> None:
    async with client(EVERYTHING, ScriptedGuard(words("Paris")), policy__notice="[stopped]") as (api, _):
        message = await final(api)
    assert message.stop_reason == "refusal"
    assert message.content[-1].text == "[stopped]"
    assert [block.type for block in message.content] == ["thinking", "text", "text"]
    assert "Paris" not in str(message)


async def test_a_body_and_a_cut_body() -> None:
    body = [
        message_body({"type": "text", "text": TEXT}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}})
    ]
    async with client(body, is_body=True) as (api, _):
        message: Any = await api.messages.create(**ASK)
        assert (message.content[0].text, message.content[1].input, message.stop_reason) == (TEXT, {"a": 1}, "end_turn")
    async with client(body, ScriptedGuard(labels("SSUU")), is_body=True, policy__notice="") as (api, _):
        message = await api.messages.create(**ASK)
        assert ([block.text for block in message.content], message.stop_reason) == (["one two"], "refusal")


async def test_a_blocked_prompt_is_a_400_that_nobody_retries() -> None:
    async with client(EVERYTHING, ScriptedGuard(prompt_level=UNSAFE)) as (api, _):
        with pytest.raises(anthropic.BadRequestError) as caught:
            await final(api)
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "content_filter"
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_blocked_prompt_can_be_answered_instead() -> None:
    settings: Any = {"policy__prompt_block": "answer", "policy__prompt_notice": "No."}
    async with client(EVERYTHING, ScriptedGuard(prompt_level=UNSAFE), **settings) as (api, _):
        message = await final(api)
    assert (message.content[0].text, message.stop_reason) == ("No.", "refusal")


@pytest.mark.parametrize("guard", [ScriptedGuard(fails_after=12), ScriptedGuard(prompt_fault="raise")])
async def test_a_guard_that_fails_raises(guard: ScriptedGuard) -> None:
    async with client(EVERYTHING, guard) as (api, _):
        with pytest.raises(anthropic.APIStatusError):
            await final(api)


async def test_an_upstream_that_dies_or_reports_an_error_raises() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"CANARY"}}\n\n'
    for chunks in (EVERYTHING[:6], [*EVERYTHING[:6], error]):
        async with client(chunks) as (api, _):
            with pytest.raises(anthropic.APIError) as caught:
                await final(api)
            assert "CANARY" not in str(caught.value)


async def test_an_upstreams_refusal_has_its_class() -> None:
    said = b'{"type":"error","error":{"type":"not_found_error","message":"model: nope"},"request_id":"r"}'
    upstream = ScriptedUpstream([said], status=404, content_type="application/json", headers={"request-id": "req_1"})
    async with weir(upstream) as server, AsyncAnthropic(base_url=server.url, api_key="k", max_retries=0) as api:
        with pytest.raises(anthropic.NotFoundError, match="model: nope") as caught:
            await final(api)
        assert caught.value.request_id == "req_1"
        assert caught.value.type == "not_found_error"


async def test_our_key_goes_where_the_dialect_wants_it() -> None:
    async with client(EVERYTHING, upstream__api_key="sk-ours") as (api, server):
        await final(api)
        headers = server.upstream.requests[0]["headers"]
    assert headers["x-api-key"] == "sk-ours"
    assert "authorization" not in headers
    assert "sk-client" not in str(headers)


async def test_images_are_refused_and_listed_where_they_are_allowed() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    fields: Any = {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "what is it?"}]}]}
    async with client(EVERYTHING) as (api, server):
        with pytest.raises(anthropic.BadRequestError, match="only text can"):
            await final(api, **fields)
        assert server.upstream.requests == []
    lax = client(EVERYTHING, policy__allow_unscanned=True)
    async with lax as (api, _), api.messages.stream(**{**ASK, **fields}) as stream:
        assert stream.response.headers["x-weir-scanned"] == "partial"
        await stream.until_done()
