"""Events of the Responses API, as OpenAI and lesser servers send them."""

import json
from typing import Any

import pytest

from adapters.base import Delta, End, Event, Finish, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.openai_responses_reader import MAX_ITEMS, ResponsesReader
from tests.doors import (
    RESPONSE,
    RESPONSE_USAGE,
    call_item_events,
    message_item,
    message_item_events,
    response_body,
    response_events,
)

PLAIN = Options("m")


def read(*events: Any) -> tuple[list[Piece], int]:
    reader = ResponsesReader(PLAIN)
    return [piece for event in events for piece in reader.read(Event(json.dumps(event)))], reader.dropped


def texts(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(piece.key.channel, piece.text) for piece in pieces if isinstance(piece, Delta)]


def test_a_stream_of_openais() -> None:
    events = response_events(message_item_events(["one", " two"]), call_item_events(1, "f", ["{", "}"]))
    pieces, dropped = read(*events)
    assert texts(pieces) == [
        ("content", "one"),
        ("content", " two"),
        ("tool_calls.1.name", "f"),
        ("tool_calls.1.arguments", "{"),
        ("tool_calls.1.arguments", "}"),
    ]
    assert isinstance(pieces[0], Opaque)
    assert isinstance(pieces[-2], Finish)
    assert (pieces[-2].reason, pieces[-2].source["usage"], pieces[-1]) == ("completed", RESPONSE_USAGE, End())
    assert dropped == 0


def test_a_stream_that_only_ends_is_read_at_its_end() -> None:
    last = response_events(message_item_events(["one"]))[-1]
    assert texts(read(last)[0]) == [("content", "one")]
    body = ResponsesReader(PLAIN).read_body(Event(response_body(message_item("one")).decode()))
    assert texts(body) == [("content", "one")]
    assert isinstance(body[-1], End)


def test_a_stream_without_numbers_ids_and_frames() -> None:
    pieces, dropped = read(
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": "b"},
        {"type": "response.reasoning_text.delta", "output_index": 1, "delta": "c"},
        {"type": "response.completed", "response": {"status": "completed", "output": [message_item("ab")]}},
    )
    assert texts(pieces) == [("content", "a"), ("content", "b"), ("reasoning", "c")]
    assert dropped == 0


def test_an_item_is_known_by_its_id_where_others_are_missing() -> None:
    events = message_item_events(["one"], index=3)
    last = {
        "type": "response.completed",
        "response": {**RESPONSE, "status": "completed", "output": [events[-1]["item"]]},
    }
    by_id = [{key: value for key, value in event.items() if key != "output_index"} for event in events[1:5]]
    assert texts(read(events[0], *by_id, last)[0]) == [("content", "one")]
    other = message_item("other", index=9)
    again = {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": [other]}}
    assert texts(read(*message_item_events(["one"]), again)[0]) == [("content", "one"), ("content", "other")]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": {"reason": "CANARY"}}, "max_output_tokens"),
        ({"status": "incomplete", "incomplete_details": {"reason": ["CANARY"]}}, "max_output_tokens"),
        ({"status": "incomplete"}, "max_output_tokens"),
        ({"status": "queued"}, "queued"),
    ],
)
def test_a_response_ends_for_a_reason(more: dict[str, Any], reason: str) -> None:
    pieces, _ = read({"type": "response.incomplete", "response": {**RESPONSE, **more}})
    [finish] = [piece for piece in pieces if isinstance(piece, Finish)]
    assert finish.reason == reason


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "CANARY"},
        {"type": "response.failed", "response": {"error": {"message": "CANARY"}}},
        {"error": {"message": "CANARY"}, "type": "x"},
        {"type": "response.completed", "response": {**RESPONSE, "status": "failed", "error": {"message": "CANARY"}}},
        {"type": "response.completed", "response": {**RESPONSE, "status": "cancelled"}},
        {"type": "response.completed", "response": {**RESPONSE, "status": ["CANARY"]}},
    ],
)
def test_an_upstreams_error_is_one(event: dict[str, Any]) -> None:
    with pytest.raises(UpstreamReportedError) as caught:
        read(event)
    assert "CANARY" not in str(caught.value)


TEXT = {"type": "response.output_text.delta", "delta": "CANARY"}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 5},
        {"type": "response.created"},
        {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": "CANARY"}},
        {"type": "response.output_item.added", "item": "CANARY"},
        {"type": "response.content_part.added", "part": "CANARY"},
        TEXT | {"output_index": -1},
        TEXT | {"output_index": MAX_ITEMS},
        TEXT | {"output_index": "0"},
        TEXT | {"content_index": 1 << 20},
        TEXT | {"content_index": True},
    ],
    ids=range(11),
)
def test_what_cannot_be_read_is_refused_without_a_quote(event: dict[str, Any]) -> None:
    with pytest.raises(AdapterError) as caught:
        read(event)
    assert "CANARY" not in str(caught.value)


def test_an_item_cannot_begin_twice_and_a_body_must_be_a_response() -> None:
    added = message_item_events(["one"])[0]
    with pytest.raises(AdapterError):
        read(added, added)
    with pytest.raises(AdapterError):
        ResponsesReader(PLAIN).read_body(Event('{"choices":[]}'))


def test_progress_of_items_that_are_judged_whole_is_no_loss_and_unknown_events_are() -> None:
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
    pieces, dropped = read(
        {"type": "response.output_item.added", "output_index": 0, "item": search},
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1"},
        {"type": "response.output_item.done", "output_index": 0, "item": search},
        {"type": "response.audio.delta", "delta": "CANARY"},
        {"type": "response.new_thing.delta", "delta": "CANARY"},
        {"type": "response.content_part.added", "part": {"type": "CANARY", "text": "CANARY"}},
    )
    assert dropped == 3
    assert "CANARY" not in str(pieces)
    assert len(texts(pieces)) == 1


def test_nothing_is_read_after_the_end() -> None:
    events = response_events(message_item_events(["one"]))
    assert texts(read(*events, TEXT | {"output_index": 0})[0]) == [("content", "one")]
