"""What a Responses request has to be, and the conversation that the guard reads in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.conversation import ConversationError, render
from proxy.request_body import BadRequest
from proxy.request_fields import ModeratedRequest, ModerationAsk, Terms
from proxy.response_request import read_response_request
from proxy.server_settings import ServerSettings
from tests.adapters.test_structures import IMAGE

TERMS = Terms(ServerSettings(max_messages=8))
LAX = Terms(ServerSettings(), allow_unscanned=True)
STORING = Terms(ServerSettings(), allow_stored=True)


def asked(items: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": items} | fields


def read(items: Any = "hi", terms: Terms = TERMS, **fields: Any) -> ModeratedRequest:
    return read_response_request(asked(items, **fields), terms)


def refusal_of(body: dict[str, Any], terms: Terms = TERMS) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_response_request(body, terms)
    assert caught.value.status == 400
    return caught.value


def test_a_string_is_a_user_turn() -> None:
    request = read(instructions="be kind", stream=True, tools=[{"type": "web_search"}], metadata={"a": "b"}, seed=1)
    assert request.messages == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    assert request.stream
    assert request.echo == {"instructions": "be kind", "tools": [{"type": "web_search"}], "metadata": {"a": "b"}}
    assert request.forward["seed"] == 1


def test_a_conversation_in_the_words_of_chat() -> None:
    items: list[dict[str, Any]] = [
        {"role": "developer", "content": "S"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c"}, {"type": "refusal", "refusal": "d"}]},
        {"type": "function_call", "call_id": "x", "name": "get", "arguments": '{"q":"e"}'},
        {"type": "function_call_output", "call_id": "x", "output": [{"type": "input_text", "text": "f"}]},
        {"type": "custom_tool_call", "call_id": "y", "name": "run", "input": "g"},
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "h"}},
        {"type": "brand_new", "text": "i"},
    ]
    request = read(items, Terms(ServerSettings()))
    assert request.messages == [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": "cd",
            "reasoning_content": "hm",
            "tool_calls": [{"type": "function", "function": {"name": "get", "arguments": '{"q":"e"}'}}],
        },
        {"role": "tool", "content": "f"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "custom", "custom": {"name": "run", "input": "g"}}],
        },
        {"role": "tool", "content": '{"type":"web_search_call","id":"ws_1","action":{"query":"h"}}'},
        {"role": "user", "content": '{"type":"brand_new","text":"i"}'},
    ]
    assert request.forward["input"] == [item for item in items if item.get("type") != "reasoning"]
    assert render(request.messages, window=999)


def test_answers_are_not_kept_unless_that_is_allowed() -> None:
    assert read().forward == asked(store=False)
    assert read(terms=STORING).forward == asked()
    assert read(terms=STORING, store=True, background=True).forward == asked(store=True, background=True)
    assert read([{"type": "reasoning", "summary": []}, {"role": "user", "content": "a"}], STORING).forward["input"][0]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("store", {"store": True}),
        ("background", {"background": True}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("conversation", {"conversation": {"id": "conv_1"}}),
        ("prompt", {"prompt": {"id": "pmpt_1"}}),
        ("input[0]", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("input[0]", {"input": [{"id": "msg_1"}]}),
    ],
)
def test_what_is_stored_needs_a_setting_that_the_refusal_names(param: str, fields: dict[str, Any]) -> None:
    refused = refusal_of(asked(**fields))
    assert refused.param == param
    assert "policy.allow_stored = true" in refused.message
    request = read_response_request(asked(**fields), STORING)
    assert bool(request.unscanned) == (param not in ("store", "background"))
    assert request.messages


UNREADABLE: list[tuple[str, dict[str, Any]]] = [
    (
        "input[0].content[0]",
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,A"}]},
    ),
    (
        "input[0].content[1]",
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_file", "file_id": "f"}]},
    ),
    ("input[0].output[0]", {"type": "function_call_output", "output": [{"type": "input_image", "file_id": "f"}]}),
    ("input[0].encrypted_content", {"type": "reasoning", "summary": [], "encrypted_content": "x"}),
    ("input[0]", {"type": "compaction", "encrypted_content": IMAGE}),
    ("input[0].content[0]", {"role": "user", "content": [{"type": "brand_new", "text": "a"}]}),
]


@pytest.mark.parametrize(("param", "item"), UNREADABLE)
def test_what_cannot_be_read_is_refused_or_listed(param: str, item: dict[str, Any]) -> None:
    refused = refusal_of(asked([item]))
    assert (refused.param, refused.code) == (param, "unscannable_content")
    request = read([item], LAX)
    assert request.unscanned[0].startswith(f"{param} (")
    assert request.forward["input"] == [item]
    assert request.messages


def test_moderation_is_ours_to_answer() -> None:
    request = read(moderation={"model": "m"})
    assert request.moderation == ModerationAsk("m")
    assert "moderation" not in request.forward


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": None}),
        ("input", {"input": None}),
        ("input", {"input": 5}),
        ("input", {"input": []}),
        ("input", {"input": [{"role": "user", "content": "a"}] * 9}),
        ("input[0]", {"input": ["a"]}),
        ("input[0].type", {"input": [{"type": 5}]}),
        ("input[0].role", {"input": [{"type": "message", "content": "a"}]}),
        ("input[0].role", {"input": [{"role": "tool", "content": "a"}]}),
        ("input[0].content", {"input": [{"role": "user"}]}),
        ("input[0].content", {"input": [{"role": "user", "content": 5}]}),
        ("input[0].content[0]", {"input": [{"role": "user", "content": ["a"]}]}),
        ("input[0].content[0].text", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
        ("input[0].name", {"input": [{"type": "function_call", "arguments": "{}"}]}),
        ("input[0].arguments", {"input": [{"type": "function_call", "name": "f", "arguments": {}}]}),
        ("instructions", {"instructions": ["a"]}),
        ("stream", {"stream": "yes"}),
        ("store", {"store": "yes"}),
        ("background", {"background": 1}),
        ("tools[0]", {"tools": ["a"]}),
        (None, {"base_url": "http://x"}),
    ],
)
def test_what_the_guard_relies_on_is_checked(param: str | None, fields: dict[str, Any]) -> None:
    assert refusal_of(asked(**fields)).param == param


WORDS = st.sampled_from(["alpha", "beta", "gamma"])
ITEMS = st.one_of(
    st.tuples(st.sampled_from(["user", "assistant", "system"]), WORDS).map(
        lambda two: {"role": two[0], "content": two[1]}
    ),
    WORDS.map(lambda word: {"type": "function_call", "name": "f", "arguments": word}),
    WORDS.map(lambda word: {"type": "custom_tool_call", "name": word, "input": "x"}),
    WORDS.map(lambda word: {"type": "function_call_output", "output": word}),
    WORDS.map(lambda word: {"type": "reasoning", "summary": [{"type": "summary_text", "text": word}]}),
    WORDS.map(lambda word: {"type": "brand_new", "deep": [{"er": word}]}),
)


@given(st.lists(ITEMS, min_size=1, max_size=6))
def test_every_word_of_every_item_reaches_the_guard(items: list[dict[str, Any]]) -> None:
    request = read(items)
    for word in ("alpha", "beta", "gamma"):
        assert str(request.messages).count(word) == str(items).count(word)
    try:
        render(request.messages, window=4096)
    except ConversationError:
        pytest.fail("the guard cannot read it")
