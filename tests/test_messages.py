"""Messages are read strictly: what the guard cannot read is refused, with its place."""

from typing import Any

import pytest

from proxy.messages import NAME, ConversationError, Reader, role_of


def refusal(reader: Reader, message: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(ConversationError) as caught:
        _ = reader.named(message, "messages[2]"), reader.calls(message, "messages[2]")
    return caught.value.param, caught.value.code


def user(content: object, **more: object) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def test_text_parts_are_read_one_after_the_other() -> None:
    parts = [{"type": "text", "text": "bo"}, {"type": "text", "text": "at"}, {"type": "refusal", "refusal": "!"}]
    assert Reader(False).content(user(parts), "messages[0]") == "boat!"


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (None, "messages[2].content"),
        (7, "messages[2].content"),
        ({"text": "x"}, "messages[2].content"),
        ([], "messages[2].content"),
        ([151644, 872], "messages[2].content[0]"),
        ([{"text": "x"}], "messages[2].content[0].type"),
        ([{"type": 1}], "messages[2].content[0].type"),
        ([{"type": "text", "text": "x"}, {"type": "text"}], "messages[2].content[1].text"),
        ([{"type": "text", "text": ["x"]}], "messages[2].content[0].text"),
    ],
)
def test_content_of_another_shape_is_refused_where_it_is(content: object, param: str) -> None:
    assert refusal(Reader(False), user(content)) == (param, None)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", "something_new"])
def test_what_is_not_text_is_refused_or_labelled(kind: str) -> None:
    message = user([{"type": "text", "text": "look"}, {"type": kind}])
    assert refusal(Reader(False), message) == ("messages[2].content[1]", "unscannable_content")
    reader = Reader(True)
    assert reader.content(message, "messages[2]") == "look"
    label = "unknown type" if kind == "something_new" else kind
    assert reader.unscanned == [f"messages[2].content[1] ({label})"]


def test_the_assistant_and_a_function_may_leave_the_content_empty() -> None:
    for role in ("assistant", "function"):
        assert Reader(False).content({"role": role, "content": None}, "messages[0]") == ""
    for role in ("system", "tool"):
        with pytest.raises(ConversationError):
            Reader(False).content({"role": role}, "messages[0]")


def test_a_name_is_read_before_the_content() -> None:
    assert Reader(False).named(user("hello", name="Ann_1"), "messages[0]") == "Ann_1: hello"


@pytest.mark.parametrize("name", ["", "two words", "a" * 65, "<|im_end|>", "a/b", 7])
def test_a_name_that_is_none_is_refused(name: object) -> None:
    assert refusal(Reader(False), user("hello", name=name)) == ("messages[2].name", None)
    assert NAME.fullmatch("größe-名前")


def call(**function: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}


def test_calls_are_written_as_the_template_writes_them() -> None:
    message: dict[str, Any] = {
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"function": {"name": "g", "arguments": {"ü": 1}}},
            {"type": "custom", "custom": {"name": "h", "input": "free text"}},
        ],
        "function_call": {"name": "old", "arguments": "{}"},
    }
    assert Reader(False).calls(message, "messages[0]") == [
        '\n{"name": "f", "arguments": {"a": 1}}\n',
        '\n{"name": "g", "arguments": {"ü": 1}}\n',
        '\n{"name": "h", "arguments": free text}\n',
        '\n{"name": "old", "arguments": {}}\n',
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (call(name="f"), "messages[2].tool_calls[0].function.arguments"),
        (call(arguments="{}"), "messages[2].tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, "messages[2].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": "f()"}, "messages[2].tool_calls"),
        ({"role": "assistant", "tool_calls": [1]}, "messages[2].tool_calls"),
        ({"role": "assistant", "function_call": "f()"}, "messages[2].function_call"),
    ],
)
def test_a_call_of_another_shape_is_refused_where_it_is(message: dict[str, Any], param: str) -> None:
    assert refusal(Reader(False), message) == (param, None)


def test_a_call_of_an_unknown_type_cannot_be_read() -> None:
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [{"type": "mcp"}]}
    assert refusal(Reader(False), message) == ("messages[2].tool_calls[0]", "unscannable_content")
    reader = Reader(True)
    assert (reader.calls(message, "messages[2]"), len(reader.unscanned)) == ([], 1)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "m"),
        ([1], "m"),
        ({}, "m.role"),
        ({"role": 1}, "m.role"),
        ({"role": ["user"]}, "m.role"),
        ({"role": "root"}, "m.role"),
    ],
)
def test_only_known_roles_are_read(message: object, param: str) -> None:
    with pytest.raises(ConversationError) as caught:
        role_of(message, "m")
    assert caught.value.param == param
