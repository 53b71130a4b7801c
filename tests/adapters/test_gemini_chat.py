"""Gemini's answers in the words of chat."""

from typing import Any

import pytest

from adapters.base import Delta, Event, Finish
from adapters.errors import AdapterError, UpstreamReportedError
from proxy.stream import Outcome
from tests.adapters.dialects import (
    GEMINI,
    GEMINI_REFUSAL,
    WEATHER,
    adapter_of,
    gemini,
    gemini_body,
    gemini_text,
    joined,
    stream_of,
)
from tests.adapters.relay import added_up, body_sent, texts_of, written
from tests.adapters.test_structures import SIGNATURE
from tests.adapters.test_translation import pieces_of
from tests.driver import drive, read
from tests.wire import chunks_of


def finishes(data: bytes, **options: Any) -> list[str]:
    return [piece.reason for piece in pieces_of("gemini", data, **options) if isinstance(piece, Finish)]


def test_the_client_reads_one_answer() -> None:
    stream, _ = stream_of("gemini")
    chunks = [chunk for chunk in chunks_of(drive(stream, GEMINI)) if chunk["choices"]]
    answer = added_up(chunks)[0]
    assert answer["calls"] == [("fc_1", "function", "get_weather", '{"city":"Oslo"}')]
    assert (answer["texts"]["content"], answer["texts"]["reasoning_content"]) == ("Hello world", "Let me see.")
    assert answer["finish_reason"] == "tool_calls"
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {("mAitaLmkHPPlz7IPvtfUqQ4", "gemini-2.5-flash")}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SOMETHING_NEW", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    data = joined(gemini_text("a", finish=reason))
    assert finishes(data) == [finish]
    stream, _ = stream_of("gemini")
    told = b'"native_finish_reason":"' + reason.encode() in drive(stream, [data])
    assert told == (reason != "SOMETHING_NEW")


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE"])
def test_a_model_that_failed_is_no_end(reason: str) -> None:
    with pytest.raises(UpstreamReportedError):
        finishes(joined(gemini_text("a", finish=reason)))


def test_a_refused_prompt_ends_every_choice() -> None:
    assert finishes(GEMINI_REFUSAL, choices=2) == ["content_filter"] * 2
    adapter = adapter_of("gemini", is_body=True)
    pieces = adapter.decode(Event(GEMINI_REFUSAL.decode().removeprefix("data: ")))
    [choice] = body_sent(written(adapter, pieces))["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)


def test_words_of_a_refusal_are_left_out() -> None:
    stream, adapter = stream_of("gemini")
    feedback = {"blockReason": "SAFETY", "blockReasonMessage": "CANARY"}
    sent = drive(stream, [gemini(promptFeedback=feedback, candidates=[])])
    assert b"CANARY" not in sent
    assert read(sent).finish == {0: "content_filter"}
    assert adapter.dropped == 1


def test_two_candidates() -> None:
    data = joined(
        [
            gemini({"text": "a"}),
            gemini({"text": "b"}, index=1),
            gemini({"text": "c"}, finish="STOP"),
            gemini(finish="MAX_TOKENS", index=1),
        ]
    )
    pieces = pieces_of("gemini", data, choices=2)
    assert (texts_of(pieces), texts_of(pieces, 1)) == ({"content": "ac"}, {"content": "b"})
    stream, _ = stream_of("gemini", choices=2)
    heard = read(drive(stream, [data]))
    assert (heard.finish, heard.is_done) == ({0: "stop", 1: "length"}, True)


def test_a_candidate_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(AdapterError):
        pieces_of("gemini", gemini({"text": "a"}, index=1))


def test_calls_get_ids_and_their_signatures_come_back() -> None:
    adapter = adapter_of("gemini", is_body=True)
    plain = {"functionCall": {"name": "now"}}
    pieces = adapter.decode(Event(gemini_body(WEATHER, plain).decode()))
    first, second = body_sent(written(adapter, pieces))["choices"][0]["message"]["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": SIGNATURE}}
    assert (first["id"], first["function"]["arguments"]) == ("fc_1", '{"city":"Oslo"}')
    assert second["id"].startswith("call_")
    assert second["function"] == {"name": "now", "arguments": "{}"}
    assert "extra_content" not in second


@pytest.mark.parametrize("signature", ["a text that is read", "dGhpcyBpcyBhIHBsYWluIHRleHQgaW4gYmFzZTY0IDEyMw==", 5])
def test_a_signature_that_could_be_text_does_not_pass(signature: Any) -> None:
    stream, adapter = stream_of("gemini")
    sent = drive(stream, [gemini({**WEATHER, "thoughtSignature": signature}, finish="STOP")])
    assert b"thought_signature" not in sent
    assert adapter.dropped == 1


def test_parts_that_nobody_can_read_are_left_out() -> None:
    parts: list[dict[str, Any]] = [
        {"inlineData": {"mimeType": "image/png", "data": "CANARY"}},
        {"executableCode": {"language": "PYTHON", "code": "CANARY"}},
        {"codeExecutionResult": {"output": "CANARY"}},
    ]
    stream, adapter = stream_of("gemini")
    more: dict[str, Any] = {"groundingMetadata": {"q": "CANARY"}, "somethingNew": "CANARY"}
    sent = drive(stream, [gemini({"text": "a"}, *parts, finish="STOP", **more)])
    assert b"CANARY" not in sent
    assert read(sent).content == "a"
    assert adapter.dropped == 5


@pytest.mark.parametrize(
    "data",
    [
        gemini({"text": 5}),
        gemini({"functionCall": {"name": 5}}),
        gemini({"functionCall": {"name": "f", "args": "x"}}),
        gemini({"functionCall": "CANARY"}),
        gemini(candidates="CANARY"),
        gemini(promptFeedback="CANARY"),
        gemini(candidates=[{"content": "CANARY"}]),
        gemini(candidates=[{"index": 1 << 80}]),
        gemini(candidates=[{"finishReason": 5}]),
        b"data: CANARY\n\n",
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(AdapterError) as caught:
        pieces_of("gemini", data)
    assert "CANARY" not in str(caught.value)


def test_a_body_that_does_not_end_is_refused() -> None:
    for body in (gemini_body({"text": "a"}, finish=None), b"{}", gemini_body(candidates=[])):
        with pytest.raises(AdapterError):
            adapter_of("gemini", is_body=True).decode(Event(body.decode()))


def test_an_answer_that_goes_on_after_its_end_is_no_complete_one() -> None:
    stream, _ = stream_of("gemini")
    drive(stream, [gemini({"text": "a"}, finish="STOP"), gemini({"text": "b"}, finish="STOP")])
    assert stream.outcome is Outcome.FAILED
    stream, _ = stream_of("gemini")
    drive(stream, [gemini({"text": "a"}, finish="STOP"), gemini({"text": ""}, finish="STOP")])
    assert stream.outcome is Outcome.COMPLETE


def test_an_error_amid_the_answer() -> None:
    with pytest.raises(UpstreamReportedError):
        pieces_of("gemini", b'data: {"error":{"code":503,"message":"CANARY","status":"UNAVAILABLE"}}\n\n')


def test_counts_that_are_none_are_left_out() -> None:
    adapter = adapter_of("gemini", is_body=True)
    pieces = adapter.decode(Event(gemini_body({"text": "a"}, usageMetadata="CANARY").decode()))
    assert b"CANARY" not in written(adapter, pieces)
    assert [piece.text for piece in pieces if isinstance(piece, Delta)] == ["a"]
    cached = {"promptTokenCount": 9, "cachedContentTokenCount": 4, "toolUsePromptTokenCount": 1}
    adapter = adapter_of("gemini", is_body=True)
    body = body_sent(written(adapter, adapter.decode(Event(gemini_body(usageMetadata=cached).decode()))))
    assert body["usage"]["prompt_tokens"] == 10
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
