"""What is read of Anthropic's events and bodies, and what is not."""

import json
from typing import Any

import pytest

from adapters.anthropic_messages_reader import MAX_BLOCKS, MessagesReader, as_stream
from adapters.base import Delta, End, Event, Finish, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from tests.adapters.test_structures import IMAGE, SIGNATURE
from tests.doors import MESSAGE

PLAIN = Options("asked-model")


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: Any = "end_turn", **more: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None, **more}}


def read(*events: dict[str, Any], options: Options = PLAIN) -> tuple[list[Piece], int]:
    reader = MessagesReader(options)
    pieces = [piece for one in events for piece in reader.read(Event(json.dumps(one), str(one.get("type", ""))))]
    return pieces, reader.dropped


def texts(pieces: list[Piece]) -> list[tuple[str, Kind, str]]:
    return [(p.key.channel, p.kind, p.text) for p in pieces if isinstance(p, Delta)]


TEXT = start(0, type="text", text="")


def test_texts_thoughts_and_calls_are_channels() -> None:
    pieces, dropped = read(
        {"type": "message_start", "message": dict(MESSAGE)},
        {"type": "ping"},
        start(0, type="thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature=SIGNATURE),
        stop(0),
        start(1, type="text", text="a"),
        delta(1, "text_delta", text="b"),
        stop(1),
        start(2, type="tool_use", id="toolu_1", name="get", input={}),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"a":'),
        stop(2),
        start(3, type="text", text="c"),
        ending("tool_use") | {"usage": {"output_tokens": 5}},
        {"type": "message_stop"},
        {"type": "message_stop"},
    )
    assert texts(pieces) == [
        ("reasoning", Kind.REASONING, "hm"),
        ("content", Kind.CONTENT, "a"),
        ("content", Kind.CONTENT, "b"),
        ("tool_calls.2.name", Kind.NAME, "get"),
        ("tool_calls.2.arguments", Kind.ARGUMENTS, '{"a":'),
        ("content", Kind.CONTENT, "c"),
    ]
    assert pieces[-2:] == [Finish(0, "tool_use", {"stop_sequence": None, "usage": {"output_tokens": 5}}), End()]
    assert Opaque(0, {"signature": SIGNATURE}, 0) in pieces
    assert dropped == 0


def test_a_call_may_come_with_its_input_or_without_a_name() -> None:
    pieces, _ = read(
        start(0, type="tool_use", id="t", name="get", input={"a": 1}), start(1, type="mcp_tool_use", name="")
    )
    assert texts(pieces) == [
        ("tool_calls.0.name", Kind.NAME, "get"),
        ("tool_calls.0.arguments", Kind.ARGUMENTS, '{"a":1}'),
    ]
    assert isinstance(pieces[-1], Opaque)


def test_unknown_blocks_and_deltas_are_judged_whole() -> None:
    found = {"type": "web_search_tool_result", "content": [{"title": "news", "encrypted_content": IMAGE}]}
    pieces, dropped = read(start(0, **found), TEXT | {"index": 1}, delta(1, "odd_delta", words="a b"), stop(0))
    assert [(channel, kind) for channel, kind, _ in texts(pieces)] == [
        ("blocks.0", Kind.OBJECT),
        ("deltas.1", Kind.OBJECT),
    ]
    assert json.loads(texts(pieces)[0][2]) == {"type": "web_search_tool_result", "content": [{"title": "news"}]}
    assert json.loads(texts(pieces)[1][2]) == {"type": "odd_delta", "words": "a b"}
    assert dropped == 1
    kept, _ = read(start(0, **found), options=Options("m", allow_unscanned=True))
    assert IMAGE in texts(kept)[0][2]


def test_citations_are_judged_whole() -> None:
    citation = {"type": "char_location", "cited_text": "said elsewhere", "document_index": 0}
    pieces, dropped = read(
        start(0, type="text", text="a", citations=[citation, "odd"]), delta(0, "citations_delta", citation=citation)
    )
    objects = [json.loads(text) for _, kind, text in texts(pieces) if kind is Kind.OBJECT]
    assert objects == [{"type": "citations_delta", "citation": citation}] * 2
    assert dropped == 1


def test_what_is_encrypted_is_left_out_unless_allowed() -> None:
    events = [start(0, type="redacted_thinking", data="E" * 99), delta(0, "text_delta", text="CANARY"), stop(0)]
    assert read(*events) == ([], 2)
    pieces, _ = read(*events[::2], options=Options("m", allow_unscanned=True))
    assert texts(pieces)[0][1] is Kind.OBJECT


def test_names_numbers_and_stops_are_checked() -> None:
    odd = {
        "id": "CANARY text",
        "model": "a\nb",
        "usage": {"input_tokens": 3, "service_tier": "standard", "a": "CANARY"},
    }
    pieces, dropped = read(
        {"type": "message_start", "message": {**MESSAGE, **odd, "extra": "CANARY", "content": ["CANARY"]}},
        start(0, type="tool_use", id="CANARY text", name="f", caller={"type": "CANARY"}),
        {"type": "odd_event", "text": "CANARY"},
        {"type": "message_start", "message": dict(MESSAGE)},
        ending("CANARY", stop_details={"explanation": "CANARY"}) | {"usage": ["CANARY"]},
    )
    assert "CANARY" not in str(pieces)
    assert pieces[0] == Opaque(0, {"message": {"usage": {"input_tokens": 3, "service_tier": "standard"}}})
    assert pieces[-1] == Finish(0, "end_turn", {"stop_sequence": None, "usage": {}})
    assert dropped == 12


def test_a_stop_sequence_passes_where_the_client_named_it() -> None:
    ends = ending("stop_sequence", stop_sequence="STOP")
    assert read(ends)[0] == [Finish(0, "stop_sequence", {"stop_sequence": None, "usage": {}})]
    [finish] = read(ends, options=Options("m", echo={"stop_sequences": ("STOP",)}))[0]
    assert isinstance(finish, Finish)
    assert finish.source["stop_sequence"] == "STOP"


def test_a_message_delta_without_a_reason_ends_nothing() -> None:
    assert read(ending(None))[0] == []


@pytest.mark.parametrize(
    "events",
    [
        [{}],
        [{"type": 1}],
        [{"choices": []}],
        [{"type": "message_start"}],
        [{"type": "content_block_start", "index": 0}],
        [start(-1, type="text", text="")],
        [start(MAX_BLOCKS, type="text", text="")],
        [start(True, type="text", text="")],
        [TEXT, TEXT],
        [start(0)],
        [start(0, type="a text")],
        [start(0, type="text", text=["CANARY"])],
        [start(0, type="tool_use", name=["CANARY"])],
        [start(0, type="tool_use", name="a", input="CANARY")],
        [delta(0, "text_delta", text="CANARY")],
        [TEXT, delta(0, "text_delta", text=5)],
        [TEXT, delta(0, "text_delta")],
        [TEXT, {"type": "content_block_delta", "index": 0, "delta": "CANARY"}],
        [TEXT, {"type": "content_block_delta", "index": 0, "delta": {"text": "CANARY"}}],
        [stop(0)],
        [ending(["CANARY"])],
    ],
    ids=range(21),
)
def test_what_cannot_be_read_is_refused_without_a_quote(events: list[dict[str, Any]]) -> None:
    with pytest.raises(AdapterError) as caught:
        read(*events)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("mixed", [delta(0, "thinking_delta", thinking="CANARY"), delta(0, "a b", text="CANARY")])
def test_a_delta_of_another_sort_of_block_is_left_out(mixed: dict[str, Any]) -> None:
    pieces, dropped = read(TEXT, mixed)
    assert "CANARY" not in str(pieces)
    assert dropped == 1


@pytest.mark.parametrize(
    "raw", ['{"type":"error","error":{"message":"CANARY"}}', '{"error":"CANARY","type":"message"}']
)
def test_an_upstreams_error_is_one(raw: str) -> None:
    for read_event in (MessagesReader(PLAIN).read, MessagesReader(PLAIN).read_body):
        with pytest.raises(UpstreamReportedError) as caught:
            read_event(Event(raw))
        assert "CANARY" not in str(caught.value)


def test_a_body_is_read_as_the_stream_that_would_say_it() -> None:
    body = {**MESSAGE, "content": [{"type": "text", "text": "a"}], "stop_reason": "max_tokens"}
    kinds = [said["type"] for said in as_stream(body)]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    pieces = MessagesReader(PLAIN).read_body(Event(json.dumps(body)))
    assert texts(pieces) == [("content", Kind.CONTENT, "a")]
    with pytest.raises(AdapterError):
        list(as_stream({**body, "content": "CANARY"}))
    with pytest.raises(AdapterError):
        MessagesReader(PLAIN).read_body(Event('{"choices":[]}'))
