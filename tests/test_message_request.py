"""What a Messages request has to be, and the conversation that the guard reads in it."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.conversation import ConversationError, render
from proxy.message_request import read_message_request
from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest, ModerationAsk, Terms
from proxy.server_settings import ServerSettings

TERMS = Terms(ServerSettings(max_messages=8))
LAX = Terms(ServerSettings(), allow_unscanned=True)
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
DATA = base64.b64encode(bytes(range(99))).decode()


def asked(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]} | fields


def read(terms: Terms = TERMS, **fields: Any) -> ModeratedRequest:
    return read_message_request(asked(**fields), terms)


def refusal_of(body: dict[str, Any], terms: Terms = TERMS) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_message_request(body, terms)
    assert caught.value.status == 400
    return caught.value


def test_a_conversation_in_the_words_of_chat() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "t", "name": "get", "input": {"q": "d"}},
                {"type": "web_search_tool_result", "content": [{"title": "e"}]},
                {"type": "text", "text": "f"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "g"}]},
                {"type": "tool_result", "tool_use_id": "u", "content": "h"},
                {"type": "document", "title": "i", "source": {"type": "text", "data": "j"}},
                {"type": "search_result", "title": "k", "content": [{"type": "text", "text": "l"}]},
            ],
        },
    ]
    body = asked(system=[{"type": "text", "text": "S"}], messages=messages, stream=True)
    request = read_message_request(body, TERMS)
    search = '{"type":"search_result","title":"k","content":[{"type":"text","text":"l"}]}'
    assert request.messages == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "c",
            "reasoning_content": "hm",
            "tool_calls": [{"type": "function", "function": {"name": "get", "arguments": '{"q":"d"}'}}],
        },
        {"role": "tool", "content": '{"type":"web_search_tool_result","content":[{"title":"e"}]}'},
        {"role": "assistant", "content": "f"},
        {"role": "tool", "content": "g"},
        {"role": "tool", "content": "h"},
        {"role": "user", "content": "i\nj" + search},
    ]
    assert request.forward == body
    assert (request.stream, request.include_usage, request.unscanned) == (True, True, ())
    assert render(request.messages, window=999)


def test_a_prefilled_answer_stays_the_assistants() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert read(messages=messages).messages == messages


def test_stops_and_moderation_are_read() -> None:
    request = read(stop_sequences=["x", "y"], moderation={"model": "m"})
    assert request.echo == {"stop_sequences": ("x", "y")}
    assert request.moderation == ModerationAsk("m")
    assert "moderation" not in request.forward


UNREADABLE: list[tuple[str, Any]] = [
    ("messages[0].content[0]", [IMAGE]),
    ("messages[0].content[1]", [{"type": "text", "text": "a"}, {"type": "container_upload", "file_id": "f"}]),
    ("messages[0].content[0].source", [{"type": "document", "source": {"type": "base64", "data": "AAAA"}}]),
    ("messages[0].content[0].source", [{"type": "document", "source": {"type": "file", "file_id": "f"}}]),
    ("messages[0].content[0].content[0]", [{"type": "tool_result", "content": [IMAGE]}]),
    (
        "messages[0].content[0].source.content[0]",
        [{"type": "document", "source": {"type": "content", "content": [IMAGE]}}],
    ),
    ("messages[0].content[0]", [{"type": "new_block", "blob": DATA}]),
    ("messages[0].content[0]", [{"type": "redacted_thinking", "data": "x"}]),
    ("messages[0].content[0].content[0]", [{"type": "tool_result", "content": [{"type": "new_block", "blob": DATA}]}]),
]


@pytest.mark.parametrize(("param", "content"), UNREADABLE)
def test_what_cannot_be_read_is_refused_or_listed(param: str, content: Any) -> None:
    refused = refusal_of(asked(content))
    assert (refused.param, refused.code) == (param, "unscannable_content")
    request = read_message_request(asked(content), LAX)
    [listed] = request.unscanned
    assert listed.startswith(f"{param} (")
    assert request.messages


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": None}),
        ("messages", {"messages": None}),
        ("messages", {"messages": []}),
        ("messages", {"messages": asked()["messages"] * 9}),
        ("messages[0]", {"messages": ["a"]}),
        ("messages[0].role", {"messages": [{"content": "a"}]}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "a"}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content", {"content": 5}),
        ("messages[0].content[0]", {"content": ["a"]}),
        ("messages[0].content[0].type", {"content": [{"text": "a"}]}),
        ("messages[0].content[0].text", {"content": [{"type": "text"}]}),
        ("messages[0].content[0].text", {"content": [{"type": "text", "text": ["a"]}]}),
        ("messages[0].content[0].content", {"content": [{"type": "tool_result", "content": 5}]}),
        ("messages[0].content[0].source", {"content": [{"type": "document"}]}),
        ("system", {"system": 5}),
        ("system[0].text", {"system": [{"type": "text", "text": 5}]}),
        ("stream", {"stream": "yes"}),
        ("stop_sequences", {"stop_sequences": [1]}),
        ("stop_sequences", {"stop_sequences": ["a"] * 65}),
        ("tools[0]", {"tools": ["a"]}),
        (None, {"api_base": "http://x"}),
    ],
)
def test_what_the_guard_relies_on_is_checked(param: str | None, fields: dict[str, Any]) -> None:
    assert refusal_of(asked(**fields)).param == param


WORDS = st.sampled_from(["alpha", "beta", "gamma"])
BLOCKS = st.one_of(
    WORDS.map(lambda word: {"type": "text", "text": word}),
    WORDS.map(lambda word: {"type": "tool_result", "tool_use_id": "t", "content": word}),
    WORDS.map(lambda word: {"type": "thinking", "thinking": word}),
    WORDS.map(lambda word: {"type": "tool_use", "id": "t", "name": "n", "input": {"q": [word]}}),
    WORDS.map(lambda word: {"type": "brand_new", "deep": [{"er": word}]}),
    WORDS.map(lambda word: {"type": "document", "source": {"type": "text", "data": word}}),
)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.lists(BLOCKS, max_size=4)), min_size=1, max_size=4)
)
def test_every_word_of_every_block_reaches_the_guard(turns: list[tuple[str, list[dict[str, Any]]]]) -> None:
    body = asked(messages=[{"role": role, "content": blocks} for role, blocks in turns])
    request = read_message_request(body, TERMS)
    for word in ("alpha", "beta", "gamma"):
        assert str(request.messages).count(word) == str(body["messages"]).count(word)
    try:
        render(request.messages, window=4096)
    except ConversationError:
        pytest.fail("the guard cannot read it")
