"""The real openai client's Responses API against the running server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.doors import (
    RESPONSES,
    call_item,
    call_item_events,
    message_item,
    message_item_events,
    response_body,
    response_events,
    sse_event,
)
from tests.driver import WORDS
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import Weir, weir

TEXT = "".join(WORDS)
ASK: Any = {"model": "m", "input": "hello"}
EVERYTHING = [
    sse_event(event)
    for event in response_events(
        message_item_events(WORDS), call_item_events(1, "get_weather", ['{"city":', ' "Paris"}'])
    )
]


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


async def final(api: AsyncOpenAI) -> Any:
    """What the client's own helper builds of the stream."""
    async with api.responses.stream(**ASK) as stream:
        last = [event async for event in stream][-1]
    assert last.type in ("response.completed", "response.incomplete")
    return last.response


async def test_text_and_calls_arrive_whole() -> None:
    async with client(EVERYTHING) as (api, server):
        response = await final(api)
        [seen] = server.upstream.requests
    assert response.output_text == TEXT
    assert (response.output[1].name, response.output[1].arguments) == ("get_weather", '{"city": "Paris"}')
    assert response.usage.total_tokens == 12
    assert seen["path"] == "/v1/responses"
    assert b'"store":false' in seen["body"]


async def test_a_flagged_answer_is_incomplete_by_the_content_filter() -> None:
    async with client(EVERYTHING, ScriptedGuard(labels("SSUU")), policy__notice="[cut]") as (api, _):
        response = await final(api)
    assert response.output_text == "one two[cut]"
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "content_filter")
    assert "Paris" not in str(response)
    assert "three" not in str(response)


async def test_a_flagged_call_is_not_in_the_output() -> None:
    async with client(EVERYTHING, ScriptedGuard(words("Paris"))) as (api, _):
        events = [event async for event in await api.responses.create(**ASK, stream=True)]
    assert not [event for event in events if event.type == "response.function_call_arguments.done"]
    last: Any = events[-1]
    assert last.type == "response.incomplete"
    assert [item.type for item in last.response.output] == ["message", "message"]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_body_and_a_cut_body() -> None:
    body = [response_body(message_item(TEXT), call_item(1, "f", "{}"))]
    async with client(body, is_body=True) as (api, _):
        response: Any = await api.responses.create(**ASK)
        assert (response.output_text, response.output[1].name, response.status) == (TEXT, "f", "completed")
    async with client(body, ScriptedGuard(labels("SSUU")), is_body=True, policy__notice="") as (api, _):
        response = await api.responses.create(**ASK)
        assert (response.output_text, response.status, len(response.output)) == ("one two", "incomplete", 1)


async def test_a_blocked_prompt_is_a_400_that_nobody_retries() -> None:
    async with client(EVERYTHING, ScriptedGuard(prompt_level=UNSAFE)) as (api, _):
        with pytest.raises(openai.BadRequestError) as caught:
            await api.responses.create(**ASK, stream=True)
    assert (caught.value.code, caught.value.param) == ("content_filter", "input")
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("guard", [ScriptedGuard(fails_after=12), ScriptedGuard(prompt_fault="raise")])
async def test_a_guard_that_fails_raises(guard: ScriptedGuard) -> None:
    async with client(EVERYTHING, guard) as (api, _):
        with pytest.raises(openai.APIError):
            await final(api)


async def test_an_upstream_that_dies_or_fails_raises() -> None:
    failed = {"type": "response.failed", "response": {"id": "resp_1", "error": {"code": "x", "message": "CANARY"}}}
    for chunks in (EVERYTHING[:6], [*EVERYTHING[:6], sse_event(failed)]):
        async with client(chunks) as (api, _):
            with pytest.raises(openai.APIError) as caught:
                [event async for event in await api.responses.create(**ASK, stream=True)]
            assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"store": True}, {"background": True}, {"previous_response_id": "resp_1"}, {"conversation": "conv_1"}]
)
async def test_what_is_stored_is_refused_with_the_settings_name(fields: dict[str, Any]) -> None:
    async with client(RESPONSES.answer(WORDS)) as (api, server):
        with pytest.raises(openai.BadRequestError, match=r"policy\.allow_stored"):
            await api.responses.create(**ASK, **fields)
        assert server.upstream.requests == []
    async with client([RESPONSES.body(TEXT)], is_body=True, policy__allow_stored=True) as (api, server):
        raw = await api.responses.with_raw_response.create(**ASK, **fields)
        has_context = not fields.keys() & {"store", "background"}
        assert raw.headers["x-weir-scanned"] == ("partial" if has_context else "full")
        assert b'"store":false' not in server.upstream.requests[0]["body"]


async def test_the_moderation_field_is_answered() -> None:
    wish: Any = {"model": "m", "policy": {"output": {"mode": "score"}}}
    guard = ScriptedGuard(labels("SSUU"))
    async with client(EVERYTHING, guard, policy__on_flag="annotate") as (api, server):
        events = [event async for event in await api.responses.create(**ASK, stream=True, moderation=wish)]
        assert b"moderation" not in server.upstream.requests[0]["body"]
    last: Any = events[-1]
    assert last.response.output_text == TEXT
    assert last.response.moderation.output.type == "moderation_result"
    assert last.response.moderation.output.categories["violent"]


STORED = response_body(message_item(TEXT), id="resp_abc")


async def test_an_answer_that_was_kept_is_judged_like_a_fresh_one() -> None:
    async with client([STORED], is_body=True) as (api, server):
        raw = await api.responses.with_raw_response.retrieve("resp_abc")
        response: Any = raw.parse()
        [seen] = server.upstream.requests
    assert (response.output_text, response.id) == (TEXT, "resp_abc")
    assert raw.headers["x-weir-scanned"] == "partial"  # what was asked is not here to be judged
    assert (seen["method"], seen["path"], seen["body"]) == ("GET", "/v1/responses/resp_abc", b"")
    async with client([STORED], ScriptedGuard(labels("SSUU")), is_body=True, policy__notice="") as (api, _):
        response = await api.responses.retrieve("resp_abc")
        assert (response.output_text, response.incomplete_details.reason) == ("one two", "content_filter")


async def test_a_kept_stream_is_judged_too_and_cannot_be_resumed() -> None:
    async with client(EVERYTHING, ScriptedGuard(labels("SSUU")), policy__notice="") as (api, server):
        events: Any = [event async for event in await api.responses.retrieve("resp_abc", stream=True)]
        assert events[-1].response.output_text == "one two"
        assert server.upstream.requests[0]["query"] == "stream=true"
        with pytest.raises(openai.BadRequestError, match="resumed"):
            await api.responses.retrieve("resp_abc", stream=True, starting_after=3)
        assert len(server.upstream.requests) == 1


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_an_answer_that_is_still_made_says_so(status: str) -> None:
    body = response_body(id="resp_abc", status=status, usage=None)
    async with client([body], is_body=True, policy__allow_stored=True) as (api, _):
        begun: Any = await api.responses.create(**ASK, background=True)
        found: Any = await api.responses.retrieve("resp_abc")
    assert (begun.status, found.status, found.output) == (status, status, [])


async def test_a_guard_that_fails_hides_what_was_kept() -> None:
    async with client([STORED], ScriptedGuard(fails_after=8), is_body=True) as (api, _):
        with pytest.raises(openai.InternalServerError):
            await api.responses.retrieve("resp_abc")
