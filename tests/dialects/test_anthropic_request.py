"""Chat requests in Anthropic's words, held against the types of its own client."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest
from anthropic.types import (
    ImageBlockParam,
    MessageCreateParams,
    TextBlockParam,
    ToolParam,
    ToolResultBlockParam,
    ToolUseBlockParam,
)
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import ConfigDict, TypeAdapter

from proxy.dialects.anthropic_request import SAMPLING
from proxy.request_body import BadRequest
from tests.dialects.requests import TALK, TOOL, call, sent

OLD = "claude-sonnet-4-5-20250929"
BLOCKS: Mapping[str, Any] = {
    "text": TextBlockParam,
    "image": ImageBlockParam,
    "tool_use": ToolUseBlockParam,
    "tool_result": ToolResultBlockParam,
}


def checked(**fields: Any) -> dict[str, Any]:
    """The body, of nothing but fields and blocks that the client's types know."""
    body = sent("anthropic", **fields)
    TypeAdapter(MessageCreateParams, config=ConfigDict(strict=True)).validate_python(body)
    # The newest client knows these no more, and models that it serves still do.
    assert body.keys() - set(SAMPLING) <= get_type_hints(MessageCreateParamsStreaming).keys()
    for block in [*body.get("system", ()), *(block for message in body["messages"] for block in message["content"])]:
        TypeAdapter(BLOCKS[block["type"]]).validate_python(block, strict=True)
        assert block.keys() <= get_type_hints(BLOCKS[block["type"]]).keys()
    for tool in body.get("tools", ()):
        TypeAdapter(ToolParam).validate_python(tool, strict=True)
        assert tool.keys() <= get_type_hints(ToolParam).keys()
    return body


def test_a_conversation() -> None:
    body = checked(messages=TALK, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    assert [block["text"] for block in body["system"]] == ["S", "D"]
    user, assistant, results = body["messages"]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert user["content"][0] == {"type": "text", "text": "one"}
    assert user["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert [block["type"] for block in assistant["content"]] == ["text", "tool_use", "tool_use"]
    assert assistant["content"][1]["input"] == {"a": "é"}
    # A result is the text that was judged, and not what it would mean as JSON.
    assert results["content"][0] == {"type": "tool_result", "tool_use_id": "c1", "content": '{"b": "\\u0041"}'}
    assert [block["type"] for block in results["content"]] == ["tool_result", "tool_result", "text"]
    assert body["tools"][0] == {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


def test_settings_of_the_answer() -> None:
    body = checked(
        model=OLD, temperature=0.5, top_p=0.9, top_k=40, stop=["a", "b"], max_tokens=7, user="u", stream=True
    )
    wanted = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop_sequences": ["a", "b"],
        "max_tokens": 7,
        "metadata": {"user_id": "u"},
        "stream": True,
    }
    assert body | wanted == body
    assert checked(stop="a", max_completion_tokens=8, max_tokens=7)["max_tokens"] == 8
    assert checked()["max_tokens"] == 8192
    assert "stream" not in checked()


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_the_choice_of_a_tool(choice: Any, told: dict[str, Any]) -> None:
    assert checked(tools=[TOOL], tool_choice=choice)["tool_choice"] == told
    assert "tool_choice" not in checked(tools=[TOOL])
    assert "tool_choice" not in checked(tool_choice="auto")


def test_a_tool_without_parameters_takes_an_object() -> None:
    [tool] = checked(tools=[{"type": "function", "function": {"name": "f"}}])["tools"]
    assert tool == {"name": "f", "input_schema": {"type": "object", "properties": {}}}


def test_json_comes_by_a_schema() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    body = checked(response_format=wanted, reasoning_effort="high")
    assert body["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": schema}}


def test_thinking_by_effort() -> None:
    body = checked(reasoning_effort="minimal")
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "low"}
    assert checked(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "thinking" not in checked()


def test_thinking_by_budget() -> None:
    body = checked(model=OLD, reasoning_effort="medium")
    assert (body["thinking"], body["max_tokens"]) == ({"type": "enabled", "budget_tokens": 4096}, 8192 + 4096)
    assert checked(model=OLD, reasoning_effort="high", max_tokens=2000)["thinking"]["budget_tokens"] == 1999
    with pytest.raises(BadRequest, match="max_tokens above 1024"):
        sent("anthropic", model=OLD, reasoning_effort="low", max_tokens=1024)
    # A thought that is not sent back with its call would be refused there.
    after_a_call = call("anthropic", model=OLD, messages=TALK, reasoning_effort="low")
    assert after_a_call.body is not None
    assert "thinking" not in after_a_call.body
    assert after_a_call.dropped == ("reasoning_effort", "messages[].name", "messages[]")


@pytest.mark.parametrize(
    ("model", "is_budgeted"),
    [
        ("claude-3-7-sonnet-20250219", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-5", True),
        ("claude-haiku-4-5-20251001", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-5", False),
        ("claude-opus-5-5", False),
    ],
)
def test_which_models_have_a_budget(model: str, is_budgeted: bool) -> None:
    assert ("budget_tokens" in sent("anthropic", model=model, reasoning_effort="low")["thinking"]) is is_budgeted


def test_an_image_by_its_address() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.test/a.png"}}
    [block] = checked(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"]
    assert block["source"] == {"type": "url", "url": "https://example.test/a.png"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"model": OLD, "temperature": 1.5}, "temperature"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        sent("anthropic", **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param in caught.value.message


@pytest.mark.parametrize(
    ("model", "is_told"),
    [(OLD, True), ("claude-opus-4-6", True), ("claude-opus-4-7", False), ("claude-sonnet-5", False), ("mine", True)],
)
def test_models_that_refuse_to_be_told_how_to_sample_are_not(model: str, is_told: bool) -> None:
    asked = call("anthropic", model=model, temperature=0.5, top_p=0.5, top_k=5)
    assert asked.body is not None
    assert (asked.body.keys() >= set(SAMPLING), asked.dropped) == (is_told, () if is_told else SAMPLING)


def test_where_it_goes() -> None:
    asked = call("anthropic", seed=7)
    assert (asked.path, asked.query, asked.moves_key, asked.dropped) == ("/messages", "", True, ("seed",))
