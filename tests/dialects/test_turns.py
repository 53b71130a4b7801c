"""Messages as turns of parts."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.turns import Call, Media, Result, Text, read_turns
from proxy.request_body import BadRequest
from tests.dialects.requests import CALL, HELLO, TALK


def test_parts_stand_in_turns_that_alternate() -> None:
    conversation = read_turns(TALK)
    assert conversation.system == ["S", "D"]
    kinds = [(role, [type(part) for part in parts]) for role, parts in conversation.turns]
    assert kinds == [
        ("user", [Text, Media]),
        ("assistant", [Text, Call, Call]),
        ("user", [Result, Result, Text]),
    ]
    assert list(read_turns(TALK * 2).dropped) == list(conversation.dropped) == ["messages[].name", "messages[]"]
    assert conversation.ends_with_results


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=4)), min_size=1, max_size=8
)


@given(said=MESSAGES)
def test_no_text_is_lost_and_none_is_added(said: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in said]
    if not any(role != "system" and text for role, text in said):
        with pytest.raises(BadRequest):
            read_turns(messages)
        return
    conversation = read_turns(messages)
    texts = [part.text for _, parts in conversation.turns for part in parts if isinstance(part, Text)]
    assert texts == [text for role, text in said if role != "system" and text]
    assert conversation.system == [text for role, text in said if role == "system" and text]
    roles = [role for role, _ in conversation.turns]
    assert all(a != b for a, b in pairwise(roles))


def test_arguments_are_read_strictly() -> None:
    for arguments, read in (("", {}), ('{"a": 1}', {"a": 1}), ({"a": 1}, {"a": 1})):
        call = CALL | {"function": {"name": "f", "arguments": arguments}}
        [(_, [part])] = read_turns([{"role": "assistant", "tool_calls": [call]}]).turns
        assert isinstance(part, Call)
        assert part.arguments == read


def said(role: str = "user", **fields: Any) -> list[dict[str, Any]]:
    return [*HELLO, {"role": role, **fields}]


def called(**fields: Any) -> list[dict[str, Any]]:
    return said("assistant", tool_calls=[CALL | fields])


def part(kind: str, **fields: Any) -> list[dict[str, Any]]:
    return said(content=[{"type": kind, **fields}])


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (said("function", content="x", name="f"), "messages[1].role"),
        (said("tool", content="x", tool_call_id="c9"), "messages[1].tool_call_id"),
        (said("tool", content="x"), "messages[1].tool_call_id"),
        (said("assistant", content="x", function_call={"name": "f"}), "messages[1].function_call"),
        (said("assistant", content="x", audio={"id": "a"}), "messages[1].audio"),
        (called(type="custom"), "messages[1].tool_calls[0].type"),
        (called(id=None), "messages[1].tool_calls[0].id"),
        (called(function={"name": "f", "arguments": "CANARY"}), "messages[1].tool_calls[0].function.arguments"),
        (
            called(function={"name": "f", "arguments": '{"a":1,"a":2}'}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (called(function={"name": "f", "arguments": "[]"}), "messages[1].tool_calls[0].function.arguments"),
        (called(function={"name": "f", "arguments": 5}), "messages[1].tool_calls[0].function.arguments"),
        (called(extra_content="x"), "messages[1].tool_calls[0].extra_content"),
        (
            called(extra_content={"google": {"thought_signature": "a text to read"}}),
            "messages[1].tool_calls[0].extra_content.google.thought_signature",
        ),
        (part("file", file={"file_id": "x"}), "messages[1].content[0]"),
        (part("image_url", image_url={"url": "ftp://x"}), "messages[1].content[0].image_url.url"),
        (part("image_url", image_url={"url": "data:text/plain,CANARY"}), "messages[1].content[0].image_url.url"),
        (part("image_url", image_url="x"), "messages[1].content[0].image_url"),
        (part("input_audio", input_audio={"data": "AA", "format": "ogg"}), "messages[1].content[0].input_audio.format"),
        (said("system", content=[{"type": "image_url", "image_url": {"url": "https://x"}}]), "messages[1].content"),
        ([{"role": "system", "content": "x"}], "messages"),
    ],
)
def test_what_a_turn_cannot_hold_is_refused(messages: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_turns(messages)
    assert caught.value.param == param
    assert "CANARY" not in caught.value.message


def test_a_refusal_of_before_is_a_text() -> None:
    [_, (_, parts)] = read_turns(said("assistant", content=None, refusal="no")).turns
    assert parts == [Text("no")]
