"""The real openai client's blocking form, in a thread beside the server; and what is read without streaming."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import weir

T = TypeVar("T")

TEXT = "".join(WORDS)
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM: Any = ASK | {"stream": True}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def use(
    chunks: list[Any] | ScriptedUpstream,
    run: Callable[[OpenAI], T],
    guard: ScriptedGuard | None = None,
    *,
    is_body: bool = False,
    **settings: Any,
) -> T:
    """What `run` makes of a client that retries as it does by default."""
    content_type = "application/json" if is_body else "text/event-stream"
    upstream = chunks if isinstance(chunks, ScriptedUpstream) else ScriptedUpstream(chunks, content_type=content_type)

    def blocking(base_url: str) -> T:
        with OpenAI(base_url=base_url, api_key="sk-client") as api:
            return run(api)

    async with weir(upstream, guard, **settings) as server:
        return await asyncio.to_thread(blocking, server.base_url)


def events(**more: Any) -> Callable[[OpenAI], list[Any]]:
    return lambda api: list(api.chat.completions.create(**STREAM, **more))


def create(api: OpenAI) -> Any:
    return api.chat.completions.create(**ASK)


def text_of(found: list[Any], index: int = 0) -> str:
    choices = [choice for event in found for choice in event.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def finish_of(found: list[Any]) -> list[str]:
    return [choice.finish_reason for event in found for choice in event.choices if choice.finish_reason]


async def test_a_safe_answer_arrives_unchanged() -> None:
    text = "Hello, wörld! 世界 😀 e\u0301\r\n\tdone"
    found = await use(answer(list(text)), events())
    assert (text_of(found), finish_of(found)) == (text, ["stop"])


async def test_a_safe_body_arrives_unchanged() -> None:
    text = "Hello, wörld! 世界 😀 e\u0301\r\n\tdone"
    reply = await use([body({"content": text})], create, is_body=True)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, "stop")


async def test_a_flagged_answer_is_cut_before_the_flagged_text() -> None:
    guard = ScriptedGuard(labels("SSUU"))
    found = await use(answer(WORDS), events(), guard, policy__notice="[stopped]")
    assert (text_of(found), finish_of(found)) == ("one two[stopped]", ["content_filter"])
    assert guard.slots == 0


async def test_a_flagged_body_is_cut_at_the_same_place() -> None:
    guard, chunks = ScriptedGuard(labels("SSUU")), [body({"content": TEXT})]
    [choice] = (await use(chunks, create, guard, is_body=True, policy__notice="")).choices
    assert (choice.message.content, choice.finish_reason) == ("one two", "content_filter")


@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["body", "stream"])
async def test_a_blocked_prompt_is_asked_once_and_never_forwarded(ask: Any) -> None:
    guard, upstream = ScriptedGuard(prompt_level=UNSAFE), ScriptedUpstream(answer(WORDS))

    def run(api: OpenAI) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as caught:
            api.chat.completions.create(**ask)
        return caught.value

    error = await use(upstream, run, guard, policy__prompt_check="before")
    assert (error.status_code, error.code, error.param) == (400, "content_filter", "messages")
    assert len(guard.fed) == 1
    assert upstream.requests == []


def helped(api: OpenAI) -> tuple[str, Any]:
    with api.chat.completions.stream(**ASK) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        return text, stream.current_completion_snapshot


async def test_the_stream_helper_builds_the_whole_answer() -> None:
    text, snapshot = await use(answer(WORDS), helped)
    assert text == snapshot.choices[0].message.content == TEXT


async def test_the_stream_helper_keeps_the_text_of_a_cut_answer() -> None:
    text, snapshot = await use(answer(WORDS), helped, ScriptedGuard(labels("SSUU")), policy__notice="")
    assert text == snapshot.choices[0].message.content == "one two"
    assert snapshot.choices[0].finish_reason == "content_filter"


async def test_who_asks_the_stream_helper_for_a_final_answer_gets_the_clients_own_error() -> None:
    def run(api: OpenAI) -> None:
        with api.chat.completions.stream(**ASK) as stream, pytest.raises(openai.ContentFilterFinishReasonError):
            stream.get_final_completion()

    await use(answer(WORDS), run, ScriptedGuard(labels("SSUU")))


async def test_a_schema_is_parsed_from_what_was_released() -> None:
    class City(BaseModel):
        name: str

    def run(api: OpenAI) -> Any:
        return api.chat.completions.parse(**ASK, response_format=City).choices[0].message.parsed

    found = await use([body({"content": '{"name": "Paris"}'})], run, is_body=True)
    assert found == City(name="Paris")


TOOL = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


async def test_a_tool_call_arrives_whole_in_a_body() -> None:
    chunks = [body({"content": None, "tool_calls": [TOOL]}, "tool_calls")]
    [choice] = (await use(chunks, create, is_body=True)).choices
    assert choice.finish_reason == "tool_calls"
    assert [one.to_dict() for one in choice.message.tool_calls] == [TOOL]
    [choice] = (await use(chunks, create, ScriptedGuard(words("Paris")), is_body=True)).choices
    assert choice.finish_reason == "content_filter"
    assert "Paris" not in choice.to_json()


async def test_a_tool_call_arrives_whole_in_a_stream() -> None:
    chunks = [call(0, "get_weather"), call(0, arguments='{"city":'), call(0, arguments=' "Paris"}')]

    def run(api: OpenAI) -> Any:
        with api.chat.completions.stream(**ASK) as stream:
            return stream.get_final_completion().choices[0].message.tool_calls

    [found] = await use([*chunks, chunk({}, "tool_calls"), DONE], run)
    assert found.id == "call_0"
    assert (found.function.name, found.function.arguments) == ("get_weather", '{"city": "Paris"}')


async def test_three_choices_are_kept_apart() -> None:
    chunks = [chunk({"content": word}, index=index) for word in WORDS for index in range(3)]
    ends = [chunk({}, "stop", index=index) for index in range(3)]
    found = await use([*chunks, *ends, DONE], events(n=3))
    assert [text_of(found, index) for index in range(3)] == [TEXT] * 3


async def test_reasoning_arrives_as_reasoning_in_a_body() -> None:
    chunks = [body({"content": "yes", "reasoning_content": "hm"})]
    message = (await use(chunks, create, is_body=True)).choices[0].message
    assert (message.content, (message.model_extra or {})["reasoning_content"]) == ("yes", "hm")


async def test_usage_passes_with_a_stream_and_with_a_body() -> None:
    found = await use(
        [*answer(WORDS)[:-1], {"choices": [], "usage": USAGE}, DONE], events(stream_options={"include_usage": True})
    )
    assert found[-1].usage.to_dict() == USAGE
    whole = body({"content": TEXT})[:-1] + b', "usage": {"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    reply = await use([whole], create, is_body=True)
    assert reply.usage.to_dict() == USAGE


async def test_annotate_delivers_everything_and_says_what_was_found() -> None:
    found = await use(answer(WORDS), events(), ScriptedGuard(labels("SSUU")), policy__on_flag="annotate")
    assert text_of(found) == TEXT
    assert {event.weir["risk_level"] for event in found if event.choices[0].delta.content} == {"Safe", "Unsafe"}
    assert found[-1].choices[0].finish_reason == "stop"


async def test_the_moderation_field_scores_both_sides() -> None:
    wish: Any = {"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}
    guard = ScriptedGuard(labels("SSUU"))
    found = (await use(answer(WORDS), events(moderation=wish), guard, policy__on_flag="annotate"))[-1].moderation
    assert found.input.type == found.output.type == "moderation_results"
    assert (found.input.results[0].flagged, found.output.results[0].flagged) == (False, True)


async def test_the_moderation_field_can_ask_to_block_a_prompt() -> None:
    wish: Any = {"model": "m", "policy": {"input": {"mode": "block"}}}

    def run(api: OpenAI) -> str | None:
        with pytest.raises(openai.BadRequestError) as caught:
            api.chat.completions.create(**STREAM, moderation=wish)
        return caught.value.code

    guard = ScriptedGuard(prompt_level=UNSAFE)
    assert await use(answer(WORDS), run, guard, policy__on_flag="annotate") == "content_filter"


async def test_the_headers_say_who_judged() -> None:
    headers = await use(answer(WORDS), lambda api: api.chat.completions.with_raw_response.create(**STREAM).headers)
    assert (headers["x-weir-guard"], headers["x-weir-scanned"]) == ("scripted@0", "full")


@pytest.mark.parametrize("chunks", [answer(WORDS), answer(WORDS)[:-2]], ids=["guard", "upstream"])
async def test_a_failure_is_an_error_and_what_came_before_it_is_kept(chunks: list[Any]) -> None:
    seen: list[Any] = []

    def run(api: OpenAI) -> None:
        for event in api.chat.completions.create(**STREAM):
            seen.append(event)

    is_whole = chunks[-1] == DONE
    with pytest.raises(openai.APIError):
        await use(chunks, run, ScriptedGuard(fails_after=12 if is_whole else None))
    assert TEXT.startswith(text_of(seen))
    assert finish_of(seen) == []
