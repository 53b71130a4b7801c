"""Each text of a response is read once, however often it is told; what is told anew must only go on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.base import Delta, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError
from adapters.openai_responses_items import Place
from adapters.openai_responses_texts import ItemReader
from tests.adapters.test_structures import IMAGE, SIGNATURE
from tests.doors import call_item, message_item

PLACE = Place(0, "content", 0)
Told = Callable[[ItemReader], Iterator[Piece]]


def told(*steps: Told, options: Options | None = None) -> tuple[list[Piece], int]:
    reader = ItemReader(options or Options("m"))
    pieces = [piece for step in steps for piece in step(reader)]
    return pieces, reader.dropped


def texts(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(piece.key.channel, piece.text) for piece in pieces if isinstance(piece, Delta)]


def delta(text: Any, kind: str = "output_text", place: Place = PLACE) -> Told:
    return lambda reader: reader.read_part_text(kind, "delta", place, {"delta": text})


def done(text: Any, kind: str = "output_text", place: Place = PLACE) -> Told:
    return lambda reader: reader.read_part_text(kind, "done", place, {"text": text, "refusal": text})


def item(value: Any, index: int = 0) -> Told:
    return lambda reader: reader.read_whole_item(index, value)


def test_a_text_told_three_times_is_read_once() -> None:
    pieces, dropped = told(delta("on"), delta("e"), done("one"), item(message_item("one")), item(message_item("one")))
    assert texts(pieces) == [("content", "on"), ("content", "e")]
    assert [piece.payload for piece in pieces if isinstance(piece, Opaque)] == [
        {"item": {"type": "message"}}, {"part": "output_text"}, {"part_done": True}, {"item_done": True},
    ]  # fmt: skip
    assert dropped == 0


@pytest.mark.parametrize("last", [done("one two"), item(message_item("one two"))])
def test_what_is_told_only_at_the_end_is_read_then(last: Told) -> None:
    assert texts(told(delta("one"), last)[0]) == [("content", "one"), ("content", " two")]
    assert texts(told(last)[0]) == [("content", "one two")]


@pytest.mark.parametrize("last", [done("CANARY"), item(message_item("CANARY"))])
def test_another_text_than_was_told_is_left_out(last: Told) -> None:
    pieces, dropped = told(delta("one"), last)
    assert texts(pieces) == [("content", "one")]
    assert dropped == 1


def test_nothing_is_said_after_the_end() -> None:
    pieces, dropped = told(item(message_item("one")), delta("CANARY"), done("one CANARY"))
    assert texts(pieces) == [("content", "one")]
    assert dropped == 2
    with pytest.raises(AdapterError):
        told(item(message_item("one")), delta("CANARY", place=Place(0, "content", 1)))
    call = call_item(0, "f", "{}")
    late = {"delta": "CANARY"}
    pieces, dropped = told(item(call), lambda reader: reader.read_call_text("function_call", "delta", 0, late))
    assert texts(pieces) == [("tool_calls.0.name", "f"), ("tool_calls.0.arguments", "{}")]
    assert dropped == 1


def test_items_of_every_sort() -> None:
    reasoning = {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a"}],
        "content": [{"type": "reasoning_text", "text": "b"}],
        "encrypted_content": SIGNATURE,
    }
    custom = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "c"}
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "d"}]}
    search = {"id": "ws_1", "type": "web_search_call", "action": {"query": "e"}, "blob": IMAGE}
    pieces, dropped = told(item(reasoning, 0), item(custom, 1), item(refusal, 2), item(search, 3))
    assert texts(pieces)[:5] == [
        ("reasoning_summary", "a"),
        ("reasoning", "b"),
        ("tool_calls.1.name", "f"),
        ("tool_calls.1.input", "c"),
        ("refusal", "d"),
    ]
    last = pieces[-1]
    assert isinstance(last, Delta)
    assert (last.kind, last.key.channel) == (Kind.OBJECT, "items.1")
    assert "ws_1" in last.text
    assert IMAGE not in last.text
    assert dropped == 2
    assert SIGNATURE not in str(pieces)
    kept, _ = told(item(reasoning), options=Options("m", allow_unscanned=True))
    assert SIGNATURE in str(kept[0])


def test_annotations_are_judged_whole_and_once() -> None:
    found = {"type": "url_citation", "title": "news", "url": "https://x.test"}
    whole = message_item("one")
    whole["content"][0]["annotations"] = [found, {"type": "file_path"}, "CANARY"]
    pieces, dropped = told(delta("one"), lambda reader: reader.annotate(found, PLACE), item(whole))
    assert [channel for channel, _ in texts(pieces)] == ["content", "annotations.1", "annotations.2"]
    assert dropped == 1
    assert told(item(message_item("a")), lambda reader: reader.annotate(found, PLACE))[1] == 1


def test_unknown_fields_and_parts_are_left_out() -> None:
    odd = message_item("one") | {"new": "CANARY"}
    odd["content"] = [
        {"type": "new", "text": "CANARY"},
        "CANARY",
        {"type": ["x"]},
        {"type": "output_text", "text": "one", "x": "CANARY"},
    ]
    pieces, dropped = told(item(odd))
    assert "CANARY" not in str(pieces)
    assert dropped == 5


@pytest.mark.parametrize(
    "steps",
    [
        [item("CANARY")],
        [item({})],
        [item({"type": "a b"})],
        [item({"type": "function_call"})],
        [item({"type": "function_call", "name": ["CANARY"]})],
        [item({"type": "function_call", "name": "f", "arguments": {"a": "CANARY"}})],
        [item({"type": "message", "content": "CANARY"})],
        [item({"type": "message", "content": [{"type": "output_text", "text": 5}]})],
        [delta(5)],
        [done(["CANARY"])],
        [item(message_item("a")), item(call_item(0, "f", "{}"), 1), delta("CANARY", place=Place(1, "content", 0))],
        [delta("a"), item(call_item(0, "f", "{}"))],
        [lambda reader: reader.read_call_text("function_call", "delta", 0, {"delta": "CANARY"})],
        [delta("a"), lambda reader: reader.read_call_text("function_call", "delta", 0, {"delta": "CANARY"})],
    ],
    ids=range(14),
)
def test_what_cannot_be_read_is_refused_without_a_quote(steps: list[Told]) -> None:
    with pytest.raises(AdapterError) as caught:
        told(*steps)
    assert "CANARY" not in str(caught.value)
