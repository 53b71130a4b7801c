"""Every place in which text travels, and what is left out."""

from collections.abc import Mapping
from typing import Any

import pytest

from adapters.base import Delta, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError
from adapters.openai_chat_fields import MAX_UNKNOWN_CHANNELS, FieldReader

CANARY = "how to make it"
OPTIONS = Options("m")


def said(fields: Mapping[str, Any], options: Options = OPTIONS) -> list[tuple[str, Kind, str]]:
    pieces = FieldReader(options).read(0, fields, None)
    return [(piece.key.channel, piece.kind, piece.text) for piece in pieces if isinstance(piece, Delta)]


def dropped(fields: Mapping[str, Any]) -> int:
    """How much is left out; nothing at all may be said."""
    reader = FieldReader(OPTIONS)
    assert CANARY not in str(reader.read(0, fields, None))
    return reader.dropped


CHANNELS: list[tuple[dict[str, Any], list[tuple[str, Kind, str]]]] = [
    ({"content": "a"}, [("content", Kind.CONTENT, "a")]),
    ({"content": "\ud800"}, [("content", Kind.CONTENT, "\ud800")]),
    ({"content": [{"type": "text", "text": "a"}]}, [("content", Kind.CONTENT, "a")]),
    ({"content": [{"type": "refusal", "refusal": "a"}]}, [("refusal", Kind.CONTENT, "a")]),
    ({"content": [{"type": "thinking", "thinking": "a"}]}, [("reasoning_content", Kind.REASONING, "a")]),
    ({"refusal": "a"}, [("refusal", Kind.CONTENT, "a")]),
    ({"reasoning_content": "a"}, [("reasoning_content", Kind.REASONING, "a")]),
    ({"reasoning": "a"}, [("reasoning", Kind.REASONING, "a")]),
    (
        {"reasoning_details": [{"text": "a", "summary": "b"}, {"index": 7, "summary": "c"}]},
        [
            ("reasoning_details.0.text", Kind.REASONING, "a"),
            ("reasoning_details.0.summary", Kind.REASONING, "b"),
            ("reasoning_details.7.summary", Kind.REASONING, "c"),
        ],
    ),
    (
        {"function_call": {"name": "f", "arguments": "{}"}},
        [("function_call.name", Kind.NAME, "f"), ("function_call.arguments", Kind.ARGUMENTS, "{}")],
    ),
    (
        {"tool_calls": [{"index": 2, "function": {"name": "f", "arguments": "{}"}}]},
        [("tool_calls.2.name", Kind.NAME, "f"), ("tool_calls.2.arguments", Kind.ARGUMENTS, "{}")],
    ),
    (
        {"tool_calls": [{"function": {"arguments": {"a": "ü"}}}]},
        [("tool_calls.0.arguments", Kind.ARGUMENTS, '{"a":"ü"}')],
    ),
    (
        {"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "a"}}]},
        [("tool_calls.0.name", Kind.NAME, "f"), ("tool_calls.0.input", Kind.CONTENT, "a")],
    ),
    ({"audio": {"transcript": "a"}}, [("audio.transcript", Kind.CONTENT, "a")]),
    ({"thoughts": "a"}, [("delta.thoughts", Kind.CONTENT, "a")]),
    ({"a.b-c": "a"}, [("delta.a.b-c", Kind.CONTENT, "a")]),
]


@pytest.mark.parametrize(("fields", "expected"), CHANNELS)
def test_text_is_found_wherever_it_travels(fields: dict[str, Any], expected: list[tuple[str, Kind, str]]) -> None:
    assert said(fields) == expected


def test_the_pieces_of_one_event_have_one_order() -> None:
    fields: dict[str, Any] = {}
    for one, _ in reversed(CHANNELS):
        fields |= one
    fields |= {"role": "assistant", "content": "a"}
    pieces = FieldReader(OPTIONS).read(0, fields, None)
    assert isinstance(pieces[0], Opaque)
    channels = [piece.key.channel.partition(".")[0] for piece in pieces if isinstance(piece, Delta)]
    order = ["reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "function_call", "tool_calls"]
    assert list(dict.fromkeys(channels)) == [*order, "delta", "audio"]


@pytest.mark.parametrize("nothing", [None, "", [], {}])
@pytest.mark.parametrize(
    "name", ["content", "refusal", "reasoning_details", "tool_calls", "function_call", "audio", "odd"]
)
def test_nothing_is_nothing(name: str, nothing: Any) -> None:
    assert FieldReader(OPTIONS).read(0, {name: nothing}, None) == []
    assert dropped({name: nothing}) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"content": 5},
        {"content": {"text": CANARY}},
        {"refusal": [CANARY]},
        {"function_call": CANARY},
        {"function_call": {"name": 5}},
        {"function_call": {"arguments": [CANARY]}},
        {"tool_calls": {"index": 0}},
        {"tool_calls": [CANARY]},
        {"tool_calls": [{"function": CANARY}]},
        {"tool_calls": [{"function": {"name": {}, "arguments": 5}}]},
        {"tool_calls": [{"function": {"arguments": {"a": float("inf")}}}]},
        {"tool_calls": [{"index": 128}]},
        {"tool_calls": [{"index": "0"}]},
        {"reasoning_details": [{"index": -1, "text": CANARY}]},
        {"audio": CANARY},
        {"audio": {"transcript": [CANARY]}},
    ],
)
def test_known_fields_of_unknown_shape_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(AdapterError) as caught:
        FieldReader(OPTIONS).read(0, fields, None)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"content": [{"type": "image_url", "image_url": {"url": CANARY}}, CANARY, {"type": [1]}, {"text": CANARY}]},
            4,
        ),
        ({"content": [{"type": "text", "text": {"value": CANARY}, "more": CANARY}]}, 2),
        ({"content": [{"type": "thinking", "thinking": [CANARY, {"text": 5}], "signature": CANARY}]}, 3),
        ({"content": [{"type": "text", "text": None}]}, 0),
        ({"reasoning": {"effort": CANARY}, "reasoning_content": [CANARY]}, 2),
        ({"reasoning_details": CANARY}, 1),
        ({"reasoning_details": [CANARY, {"type": "reasoning.encrypted", "data": CANARY}]}, 2),
        ({"reasoning_details": [{"text": [CANARY], "signature": CANARY, "format": "f"}]}, 2),
        ({"function_call": {"more": CANARY}}, 1),
        ({"tool_calls": [{"id": CANARY, "more": CANARY, "function": {"more": CANARY}}]}, 3),
        ({"tool_calls": [{"type": CANARY}, {"type": [CANARY]}]}, 2),
        ({"audio": {"id": CANARY, "expires_at": CANARY, "data": CANARY, "more": CANARY}}, 4),
        ({"audio": {"expires_at": True, "data": "UklGRg=="}}, 2),
        ({"annotations": [{"title": CANARY}], "images": {"url": CANARY}, "count": 5}, 3),
        ({CANARY: "x", "x" * 65: CANARY, "1x": CANARY, "": CANARY}, 4),
    ],
)
def test_what_nobody_could_judge_is_left_out_and_counted(fields: dict[str, Any], expected: int) -> None:
    assert dropped(fields) == expected


def test_unknown_channels_are_bounded() -> None:
    reader = FieldReader(OPTIONS)
    pieces: list[Piece] = []
    for i in range(MAX_UNKNOWN_CHANNELS + 3):
        pieces += reader.read(0, {f"x{i}": "a"}, None)
    assert len(pieces) == MAX_UNKNOWN_CHANNELS
    assert reader.dropped == 3
    assert len(reader.read(0, {"x0": "a"}, None)) == 1


def test_a_role_is_told_once_for_each_choice() -> None:
    reader = FieldReader(OPTIONS)
    first: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None, "tool_calls": [], "name": None}
    (role,) = reader.read(0, first, "envelope")
    assert role == Opaque(0, {"role": "assistant", "content": "", "refusal": None, "tool_calls": []}, "envelope")
    assert reader.read(0, {"role": "assistant", "content": ""}, None) == []
    assert reader.read(1, {"role": "assistant", "content": None}, None)[0] == Opaque(
        1, {"role": "assistant", "content": None}
    )
    assert reader.dropped == 0


@pytest.mark.parametrize("role", [CANARY, ["assistant"], {"a": 1}, "model"])
def test_an_unknown_role_is_the_assistants(role: Any) -> None:
    reader = FieldReader(OPTIONS)
    assert reader.read(0, {"role": role}, None) == [Opaque(0, {"role": "assistant"})]
    assert reader.dropped == 1


def test_a_role_of_null_is_none() -> None:
    reader = FieldReader(OPTIONS)
    assert reader.read(0, {"role": None, "content": None}, None) == []
    assert reader.read(0, {"role": "assistant"}, None) == [Opaque(0, {"role": "assistant"})]


def test_sound_passes_where_unscanned_things_may() -> None:
    pieces = FieldReader(Options("m", allow_unscanned=True)).read(0, {"audio": {"data": "UklGRg=="}}, None)
    assert pieces == [Opaque(0, {"audio": {"data": "UklGRg=="}})]
    reader = FieldReader(Options("m", allow_unscanned=True))
    assert reader.read(0, {"audio": {"data": CANARY}}, None) == []
    assert reader.dropped == 1


def attached(fields: Mapping[str, Any], logprobs: Any) -> tuple[list[int], int]:
    reader = FieldReader(OPTIONS)
    pieces = reader.read(0, fields, None)
    reader.attach_logprobs(pieces, logprobs)
    return [len(piece.logprobs) for piece in pieces if isinstance(piece, Delta)], reader.dropped


def test_logprobs_go_to_their_own_text() -> None:
    entry = {"token": "a", "logprob": -1, "bytes": [97]}
    assert attached({"content": "a", "refusal": "a"}, {"content": [entry], "refusal": [entry]}) == ([1, 1], 0)
    assert attached({"content": "a"}, {"content": None, "refusal": None}) == ([0], 0)
    assert attached({"content": "b"}, {"content": [entry]}) == ([0], 1)
    assert attached({"content": ""}, {"content": [entry], "refusal": [entry, entry]}) == ([], 3)
    assert attached({}, {"content": CANARY}) == ([], 1)
    assert attached({"content": "a"}, [entry]) == ([0], 1)
    assert attached({"content": "a"}, {"content": [entry], "tokens": [CANARY]}) == ([1], 1)
    two = [{"type": "text", "text": "a"}] * 2
    assert attached({"content": two}, {"content": [entry, entry]}) == ([0, 0], 2)
