"""A whole body: the same verdicts, written once."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from adapters.base import Assessment, Block, Delta, End, Event, Failure, Finish, Notations, Note, Options, Report, Usage
from adapters.openai_chat_body import ChatBody
from proxy.sse import encode_event
from tests.adapters.relay import body_sent, choice_of, decoded, relayed, texts_of, written
from tests.wire import body_of, chat_body

PLAIN = Options("asked-model", notations=Notations(weir=False))
NOTED = Options("asked-model", guard_model="G", notations=Notations(weir=True, openai=True))
FLAGGED = Note("content", 3, 9, "Unsafe", "Violent", 0.98765)
SAFE = Note("content", 0, 3, "Safe", None, 0.99)
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": ""}},
    {"id": "call_c", "type": "custom", "custom": {"name": "h", "input": "x"}},
]
FULL: dict[str, Any] = {
    "role": "assistant",
    "content": "Hello world",
    "refusal": None,
    "annotations": [],
    "reasoning": "Let me",
    "reasoning_content": "Let me",
    "thoughts": "hm",
    "reasoning_details": [
        {"type": "reasoning.text", "index": 0, "text": "Let", "format": "f", "id": "r"},
        {"type": "reasoning.summary", "index": 1, "summary": "me"},
    ],
    "audio": {"id": "audio_1", "expires_at": 5, "data": "UklGRg==", "transcript": "Hello"},
    "function_call": {"name": "f", "arguments": "{}"},
    "tool_calls": CALLS,
}


def body_with(message: dict[str, Any], finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    return body_of({"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}, **more)


def cut_body(adapter: ChatBody, body: dict[str, Any], kept: int, notice: str = "") -> dict[str, Any]:
    """Release `kept` characters of the content and what is not content, then cut."""
    for piece in decoded(adapter, body):
        if isinstance(piece, Delta) and piece.key.channel == "content":
            if kept:
                adapter.encode(piece.split(kept)[0], SAFE)
        elif not isinstance(piece, Finish | End):
            adapter.encode(piece, None)
    assert (
        adapter.encode_block(Block(0, FLAGGED, 4, notice), Report((FLAGGED,), None, Assessment(True, FLAGGED, {})))
        == []
    )
    return body_sent(b"".join(encode_event(event) for event in adapter.encode_end()))


def test_a_released_body_is_what_it_was() -> None:
    options = Options("m", notations=Notations(weir=False), allow_unscanned=True)
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    upstream = body_with(FULL, "tool_calls", usage=usage, system_fingerprint="fp_1", service_tier="default")
    assert body_sent(relayed(ChatBody(options), upstream)) == upstream


def test_sound_that_nobody_heard_is_empty() -> None:
    body = body_sent(relayed(ChatBody(PLAIN), body_with(FULL)))
    assert choice_of(body)["message"]["audio"] == FULL["audio"] | {"data": ""}
    ChatCompletion.model_validate(body)


def test_what_was_null_stays_null() -> None:
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": CALLS[:1], "function_call": None}
    upstream = body_with(message, "tool_calls")
    assert body_sent(relayed(ChatBody(PLAIN), upstream)) == upstream


def test_an_empty_answer_is_one() -> None:
    for content in ("", None):
        upstream = chat_body(content)
        assert body_sent(relayed(ChatBody(PLAIN), upstream)) == upstream
    assert choice_of(body_sent(relayed(ChatBody(PLAIN), body_with({}))))["message"] == {
        "role": "assistant",
        "content": None,
    }


def test_a_stream_and_a_body_have_the_same_channels() -> None:
    pieces = decoded(ChatBody(PLAIN), body_with(FULL))
    assert texts_of(pieces) == {
        "content": "Hello world",
        "reasoning": "Let me",
        "reasoning_content": "Let me",
        "reasoning_details.0.text": "Let",
        "reasoning_details.1.summary": "me",
        "delta.thoughts": "hm",
        "audio.transcript": "Hello",
        "function_call.name": "f",
        "function_call.arguments": "{}",
        "tool_calls.0.name": "f",
        "tool_calls.0.arguments": '{"a":1}',
        "tool_calls.1.name": "g",
        "tool_calls.2.name": "h",
        "tool_calls.2.input": "x",
    }


def test_choices_come_in_order_each_with_its_end() -> None:
    choices = [{"index": i, "message": {"role": "assistant", "content": str(i)}} for i in (2, 0, 1)]
    adapter = ChatBody(Options("m", choices=3, notations=Notations(weir=False)))
    body = body_sent(relayed(adapter, body_of(*(choice | {"finish_reason": "length"} for choice in choices))))
    assert [(choice["index"], choice["message"]["content"]) for choice in body["choices"]] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}


def test_a_native_finish_reason_passes() -> None:
    upstream = body_with({"role": "assistant", "content": "a"})
    upstream["choices"][0]["native_finish_reason"] = "end_turn"
    assert body_sent(relayed(ChatBody(PLAIN), upstream)) == upstream


@pytest.mark.parametrize(
    ("kept", "notice", "content"),
    [(3, "", "Hel"), (3, " Stopped.", "Hel Stopped."), (0, "Stopped.", "Stopped."), (0, "", "")],
)
def test_a_cut_keeps_the_released_text_and_the_notice(kept: int, notice: str, content: str) -> None:
    body = cut_body(ChatBody(PLAIN), body_with({"role": "assistant", "content": "Hello world"}), kept, notice)
    choice = choice_of(body)
    assert choice["message"] == {"role": "assistant", "content": content}
    assert choice["finish_reason"] == "content_filter"
    ChatCompletion.model_validate(body)


def test_a_cut_answer_calls_nothing_and_makes_no_sound() -> None:
    options = Options("m", allow_unscanned=True)
    message = choice_of(cut_body(ChatBody(options), body_with(FULL, "tool_calls"), 3))["message"]
    assert message["content"] == "Hel"
    assert message["reasoning"] == "Let me"
    assert message["audio"]["data"] == ""
    assert "tool_calls" not in message
    assert "function_call" not in message


def test_logprobs_stay_with_the_released_text() -> None:
    entries = [
        {"token": t, "logprob": -1.0, "bytes": list(t.encode()), "top_logprobs": []} for t in ("Hel", "lo", " world")
    ]
    upstream = chat_body("Hello world")
    upstream["choices"][0]["logprobs"] = {"content": entries, "refusal": None}
    assert body_sent(relayed(ChatBody(PLAIN), upstream)) == upstream
    assert choice_of(cut_body(ChatBody(PLAIN), upstream, 5))["logprobs"] == {"content": entries[:2], "refusal": None}


def test_verdicts_lie_in_their_choice() -> None:
    report = Report((FLAGGED,), Assessment(False, SAFE, {}), Assessment(True, FLAGGED, {"Violent": 0.9}))
    body = body_sent(relayed(ChatBody(NOTED), chat_body("Hello"), note=FLAGGED, report=report))
    weir = choice_of(body)["weir"]
    assert weir["channels"]["content"]["category"] == "Violent"
    assert weir["prompt"]["risk_level"] == "Safe"
    assert [span["offset"] for span in weir["spans"]] == [[3, 9]]
    assert "weir" not in body
    assert body["moderation"]["output"]["results"][0]["flagged"] is True
    assert body["moderation"]["input"]["results"][0]["flagged"] is False
    ChatCompletion.model_validate(body)


def test_safe_text_needs_no_spans() -> None:
    body = body_sent(relayed(ChatBody(NOTED), chat_body("Hello"), note=SAFE))
    assert choice_of(body)["weir"] == {"channels": {}}


def test_a_cut_says_why() -> None:
    body = cut_body(ChatBody(NOTED), chat_body("Hello world"), 3)
    assert choice_of(body)["weir"]["action"] == "block"
    assert choice_of(body)["weir"]["offset"] == 3
    assert body["moderation"]["output"]["results"][0]["flagged"] is True
    assert "weir" not in choice_of(cut_body(ChatBody(PLAIN), chat_body("Hello world"), 3))


def test_estimated_usage_takes_the_place_of_the_upstreams() -> None:
    estimated = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    for is_late in (False, True):
        adapter = ChatBody(NOTED)
        pieces = decoded(adapter, chat_body("a") | {"usage": {"prompt_tokens": 1}, "timings": {"b": 2}})
        if is_late:
            written(adapter, pieces[:-1])
        assert adapter.encode_usage(Usage(7, 5)) == []
        body = body_sent(written(adapter, pieces[-1:] if is_late else pieces))
        assert body["usage"] == estimated
        assert body["timings"] == {"b": 2}
        assert body["weir"] == {"usage": "estimated"}


def test_a_blocked_prompt_is_a_whole_answer() -> None:
    adapter = ChatBody(PLAIN)
    adapter.encode_block(Block(0, FLAGGED, 1, "No."), Report())
    (event,) = adapter.encode_end()
    body = json.loads(event.data)
    ChatCompletion.model_validate(body)
    assert body["model"] == "asked-model"
    assert choice_of(body)["message"] == {"role": "assistant", "content": "No."}


def test_a_failure_is_an_error_body() -> None:
    (event,) = ChatBody(PLAIN).encode_failure(Failure("It broke."))
    assert json.loads(event.data)["error"]["message"] == "It broke."


def test_what_was_left_out_is_counted() -> None:
    adapter = ChatBody(PLAIN)
    adapter.decode(Event(json.dumps(chat_body("a", images=["x"]))))
    assert adapter.dropped == 1
