"""What clients get of a stream of Anthropic's: blocks in order, cut where they must be, nothing beside them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.anthropic_messages import MessagesStream
from adapters.anthropic_messages_body import MessagesBody
from adapters.base import Assessment, Block, Failure, Notations, Note, Options, Piece, Report, Usage
from adapters.errors import AdapterError
from proxy.sse import encode_event
from tests.adapters.relay import body_sent, decoded, event_of, relayed, written
from tests.adapters.test_anthropic_messages_reader import delta, ending, start, stop
from tests.adapters.test_chat_properties import CANARY, JSON, at, paths_of, repaired
from tests.adapters.test_structures import SIGNATURE
from tests.doors import MESSAGE, events_of

PLAIN = Options("asked-model", notations=Notations(weir=False))
NOTED = Options("asked-model", guard_model="G", notations=Notations(weir=True, openai=True))
FLAGGED = Note("content", 3, 9, "Unsafe", "Sexual Content", 0.98765)
BEGIN = {"type": "message_start", "message": dict(MESSAGE)}
END = {"type": "message_stop"}


def block_of(notice: str) -> Block:
    return Block(0, FLAGGED, tokens=27, notice=notice)


def sent_of(adapter: MessagesStream, events: list[Any]) -> list[Any]:
    return events_of(b"".join(encode_event(event) for event in events))


WHOLE: list[dict[str, Any]] = [
    BEGIN,
    start(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="hm"),
    delta(0, "signature_delta", signature=SIGNATURE),
    stop(0),
    start(1, type="text", text=""),
    delta(1, "text_delta", text="a"),
    delta(1, "citations_delta", citation={"cited_text": "b", "document_index": 0}),
    stop(1),
    start(2, type="tool_use", id="toolu_1", name="get", input={}),
    delta(2, "input_json_delta", partial_json='{"a":1}'),
    stop(2),
    start(3, type="web_search_tool_result", tool_use_id="x", content=[{"title": "news"}]),
    stop(3),
    ending("tool_use") | {"usage": {"output_tokens": 5}},
    END,
]


def test_a_stream_that_is_released_whole_is_the_same_stream() -> None:
    assert events_of(relayed(MessagesStream(PLAIN), *WHOLE)) == WHOLE


def test_the_type_of_an_event_is_said_twice() -> None:
    sent = relayed(MessagesStream(PLAIN), *WHOLE).decode()
    for line, data in zip(sent.split("\n")[::3], sent.split("\n")[1::3], strict=False):
        assert line.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


def test_blocks_are_numbered_without_a_gap() -> None:
    events = [BEGIN, start(0, type="redacted_thinking", data="x"), stop(0), *WHOLE[5:9]]
    numbers = [event["index"] for event in events_of(relayed(MessagesStream(PLAIN), *events)) if "index" in event]
    assert numbers == [0, 0, 0, 0]


def test_a_call_without_an_id_gets_one() -> None:
    [_, event] = events_of(relayed(MessagesStream(PLAIN), start(0, type="tool_use", name="get")))
    assert event["content_block"]["id"].startswith("toolu_")


def test_annotations_lie_on_what_they_are_about() -> None:
    report = Report((FLAGGED,), None, Assessment(True, FLAGGED, {"PII": 0.1}))
    sent = events_of(relayed(MessagesStream(NOTED), *WHOLE, note=FLAGGED, report=report))
    noted = [event["type"] for event in sent if "weir" in event]
    assert noted == [
        "content_block_delta",
        "content_block_delta",
        "content_block_start",
        "content_block_delta",
        "message_delta",
    ]
    [finish] = [event for event in sent if event["type"] == "message_delta"]
    assert finish["weir"]["channels"]["content"]["risk_level"] == "Unsafe"
    assert finish["moderation"]["output"]["results"][0]["flagged"]


def test_a_cut_goes_on_in_the_text_under_way() -> None:
    adapter = MessagesStream(NOTED)
    before = events_of(relayed(adapter, *WHOLE[:7]))
    sent = sent_of(adapter, [*adapter.encode_block(block_of("Stopped."), Report()), *adapter.encode_usage(Usage(7, 5))])
    sent += sent_of(adapter, adapter.encode_end())
    assert before[-1]["delta"]["text"] == "a"
    assert sent[0] == delta(1, "text_delta", text="Stopped.")
    assert sent[1] == stop(1)
    assert sent[2]["delta"] == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "general_harms", "explanation": "Stopped."},
    }
    assert sent[2]["usage"] == {"output_tokens": 5}
    assert sent[2]["weir"]["usage"] == "estimated"
    assert sent[2]["weir"]["action"] == "block"
    assert sent[3:] == [END]


@pytest.mark.parametrize("notice", ["Stopped.", ""])
def test_a_cut_call_is_closed_and_never_said_to_be_one(notice: str) -> None:
    adapter = MessagesStream(PLAIN)
    relayed(adapter, BEGIN, *WHOLE[9:11])
    sent = sent_of(adapter, [*adapter.encode_block(block_of(notice), Report()), *adapter.encode_end()])
    kinds = [event["type"] for event in sent]
    said = ["content_block_start", "content_block_delta", "content_block_stop"] if notice else []
    assert kinds == ["content_block_stop", *said, "message_delta", "message_stop"]
    assert sent[-2]["delta"]["stop_reason"] == "refusal"
    assert "weir" not in sent[-2]


def test_a_cut_before_anything_is_a_whole_answer() -> None:
    adapter = MessagesStream(PLAIN)
    sent = sent_of(adapter, [*adapter.encode_block(block_of("No."), Report()), *adapter.encode_end()])
    assert [event["type"] for event in sent] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert sent[0]["message"]["model"] == "asked-model"


def test_a_failure_is_an_error_event() -> None:
    [event] = MessagesStream(PLAIN).encode_failure(Failure("It broke.", code="guard_down"))
    assert event.type == "error"
    assert json.loads(event.data) == {
        "type": "error",
        "error": {"type": "api_error", "message": "It broke.", "code": "guard_down"},
    }


# Anything at all, in a stream and in a body.

BODY: dict[str, Any] = {
    **MESSAGE,
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": SIGNATURE},
        {"type": "text", "text": "a", "citations": [{"cited_text": "b"}]},
        {"type": "tool_use", "id": "t", "name": "get", "input": {"a": {"b": 1}}},
        {"type": "web_search_tool_result", "content": [{"title": "news"}]},
        {"type": "redacted_thinking", "data": "x"},
    ],
    "stop_reason": "end_turn",
    "stop_details": None,
}
RICH: dict[str, Any] = {"events": WHOLE}


def said_in(shape: str, value: Any) -> bytes:
    """What leaves of it, where it can be read at all."""
    adapter: Any = MessagesStream(PLAIN) if shape == "stream" else MessagesBody(PLAIN)
    pieces: list[Piece] = []
    events = value if shape == "stream" else [value]
    for event in events if isinstance(events, list) else [events]:
        try:
            pieces += adapter.decode(event_of(json.dumps(event)))
        except AdapterError:
            return b""
    return written(adapter, map(repaired, pieces))


@pytest.mark.parametrize(("shape", "rich"), [("stream", WHOLE), ("body", BODY)])
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_json_in_any_place_is_read_or_refused(shape: str, rich: Any, data: st.DataObject) -> None:
    value: Any = json.loads(json.dumps(rich))
    path = data.draw(st.sampled_from([path for path in paths_of(rich) if path]))
    at(value, path[:-1])[path[-1]] = data.draw(JSON)
    said_in(shape, value)


# Where a word is a text that is judged, or what a whole value is made of.
JUDGED = {"text", "thinking", "partial_json", "name", "input", "citation", "citations", "title", "cited_text", "a", "b"}


@pytest.mark.parametrize(("shape", "rich"), [("stream", WHOLE), ("body", BODY)])
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_text_where_none_belongs_does_not_pass(shape: str, rich: Any, data: st.DataObject) -> None:
    value: Any = json.loads(json.dumps(rich))
    value_at = [path for path in paths_of(rich) if path and not JUDGED & set(path)]
    blocks = [i for i, one in enumerate(WHOLE if shape == "stream" else BODY["content"]) if "web_search" in str(one)]
    value_at = [path for path in value_at if not (set(path) & set(blocks) and len(path) > 1)]
    path = data.draw(st.sampled_from(value_at))
    holder = at(value, path[:-1])
    canary = data.draw(st.sampled_from([CANARY, [CANARY], {"text": CANARY}, {CANARY: 1}]))
    if isinstance(holder, dict) and data.draw(st.booleans()):
        holder[data.draw(st.sampled_from(["x", "images", CANARY]))] = canary
    else:
        holder[path[-1]] = canary
    adapter: Any = MessagesStream(PLAIN) if shape == "stream" else MessagesBody(PLAIN)
    try:
        pieces = [
            p for one in (value if shape == "stream" else [value]) for p in adapter.decode(event_of(json.dumps(one)))
        ]
    except AdapterError:
        return
    # What the guard reads is left out: only what passes beside it may be looked at here.
    beside = [piece for piece in pieces if CANARY not in getattr(piece, "text", "")]
    try:
        assert CANARY not in written(adapter, beside).decode()
    except KeyError:
        assert len(beside) < len(pieces)  # the block whose start was left out


def test_a_body_says_what_its_stream_says() -> None:
    body = {**BODY, "content": BODY["content"][:4]}
    sent = body_sent(relayed(MessagesBody(PLAIN), body))
    assert sent == {key: value for key, value in body.items() if key != "stop_details"}
    assert decoded(MessagesStream(PLAIN), *WHOLE)
