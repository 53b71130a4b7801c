"""Anthropic's answers in the words of chat."""

import json
from typing import Any

import pytest

from adapters.anthropic_chat import usage_of
from adapters.base import Event, Finish
from adapters.errors import AdapterError, UpstreamReportedError
from tests.adapters.dialects import ANTHROPIC, CALL, THINKING, TOOL, adapter_of, anthropic_text, joined, stream_of
from tests.adapters.relay import added_up, body_sent, relayed, texts_of, written
from tests.adapters.test_translation import pieces_of
from tests.doors import block_events, message_body, message_events, sse_event
from tests.driver import drive
from tests.wire import chunks_of


def finish_of(stop: str) -> Finish:
    [finish] = [p for p in pieces_of("anthropic", joined(anthropic_text("a", stop=stop))) if isinstance(p, Finish)]
    return finish


def test_the_client_reads_one_answer() -> None:
    stream, _ = stream_of("anthropic")
    chunks = [chunk for chunk in chunks_of(drive(stream, ANTHROPIC)) if chunk["choices"]]
    read = added_up(chunks)[0]
    assert read["calls"] == [("toolu_1", "function", "get_weather", '{"city": "Oslo"}')]
    assert (read["texts"]["content"], read["texts"]["reasoning_content"]) == ("Hello world", "Let me see.")
    assert read["finish_reason"] == "tool_calls"
    assert {chunk["id"] for chunk in chunks} == {"msg_1"}


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_stop_reasons(stop: str, finish: str) -> None:
    assert finish_of(stop).reason == finish


def test_a_refusal_keeps_its_own_name_and_none_of_its_words() -> None:
    delta = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "CANARY"}}
    adapter = adapter_of("anthropic")
    sent = relayed(adapter, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 1}})
    assert b'"native_finish_reason":"refusal"' in sent
    assert b"CANARY" not in sent
    assert adapter.dropped == 1


def test_a_call_without_arguments_has_an_empty_object() -> None:
    calls = [block_events(0, TOOL), block_events(1, TOOL | {"id": "toolu_2", "input": {"a": 1}})]
    texts = texts_of(pieces_of("anthropic", joined(message_events(*calls, stop="tool_use"))))
    assert (texts["tool_calls.0.arguments"], texts["tool_calls.1.arguments"]) == ("{}", '{"a":1}')


def test_tools_of_the_providers_own_and_what_nobody_knows_are_left_out() -> None:
    blocks: list[list[bytes]] = [
        block_events(
            0, TOOL | {"type": "server_tool_use"}, {"type": "input_json_delta", "partial_json": '{"CANARY":1}'}
        ),
        block_events(1, {"type": "web_search_tool_result", "content": [{"title": "CANARY"}]}),
        block_events(2, {"type": "redacted_thinking", "data": "CANARY"}),
        block_events(3, {"type": "text", "text": ""}, {"type": "citations_delta", "citation": {"cited": "CANARY"}}),
        [sse_event({"type": "something_new", "text": "CANARY"})],
    ]
    stream, adapter = stream_of("anthropic")
    assert b"CANARY" not in drive(stream, message_events(*blocks))
    assert adapter.dropped == 6


def test_a_whole_body() -> None:
    adapter = adapter_of("anthropic", is_body=True)
    blocks: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Let me see.", "signature": ""},
        {"type": "text", "text": "Hello"},
        {"type": "text", "text": " world"},
        TOOL | {"input": {"city": "Oslo"}},
    ]
    pieces = adapter.decode(Event(message_body(*blocks, stop_reason="tool_use").decode()))
    body = body_sent(written(adapter, pieces))
    assert body["object"] == "chat.completion"
    [choice] = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello world", "Let me see.")
    assert message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def test_an_answer_that_only_calls_has_no_content() -> None:
    adapter = adapter_of("anthropic", is_body=True)
    pieces = adapter.decode(Event(message_body(TOOL, stop_reason="tool_use").decode()))
    message = body_sent(written(adapter, pieces))["choices"][0]["message"]
    assert message["content"] is None


def test_cached_tokens_are_a_part_of_the_prompt() -> None:
    counts = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 4,
        "cache_read_input_tokens": 5,
        "output_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    assert usage_of(counts)["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 6,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert usage_of({"input_tokens": "CANARY", "output_tokens": None}) == {}


def test_errors_are_told_as_errors() -> None:
    adapter = adapter_of("anthropic")
    with pytest.raises(UpstreamReportedError):
        adapter.decode(Event('{"type":"error","error":{"type":"overloaded_error","message":"CANARY"}}', "error"))
    with pytest.raises(AdapterError):
        adapter.decode(Event("[]"))
    with pytest.raises(AdapterError):
        adapter_of("anthropic", is_body=True).decode(Event(json.dumps({"type": "message"})))


def test_more_thoughts_and_calls_come_one_after_the_other() -> None:
    again = [event.replace(b'"index": 0', b'"index": 3') for event in THINKING]
    texts = texts_of(pieces_of("anthropic", joined(message_events(THINKING, CALL, again))))
    assert texts["reasoning_content"] == "Let me see." * 2
