"""Nothing of a request is lost without a word."""

from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from proxy.dialects.chat_fields import ChatFields, ToolChoice
from proxy.request_body import BadRequest
from proxy.settings import Dialect
from tests.dialects.requests import HELLO, TOOL, call

# A value of each field of the API that is not its neutral one.
VALUES: dict[str, Any] = {
    "audio": {"voice": "v", "format": "wav"},
    "frequency_penalty": 1,
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 7,
    "max_tokens": 7,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 1,
    "prompt_cache_key": "k",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "safety_identifier": "u",
    "seed": 1,
    "service_tier": "flex",
    "stop": "a",
    "store": False,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [TOOL],
    "top_logprobs": 3,
    "top_p": 0.5,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
REFUSED = {"audio", "function_call", "functions", "logit_bias", "logprobs", "modalities", "top_logprobs"}
REFUSED |= {"web_search_options"}
DROPPED = {
    "metadata",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "verbosity",
}
MORE: dict[Dialect, tuple[set[str], set[str]]] = {
    "anthropic": ({"n", "frequency_penalty", "presence_penalty"}, {"seed", "temperature", "top_p"}),
    "gemini": (set(), {"safety_identifier", "user"}),
}


def what_becomes_of(dialect: Dialect, name: str) -> str:
    plain = call(dialect)
    try:
        found = call(dialect, **{name: VALUES[name]})
    except BadRequest as exc:
        return f"refused {exc.param}"
    if found.dropped:
        assert found.dropped == (name,)
        return "dropped"
    return "told" if (found.body, found.path) != (plain.body, plain.path) else "nothing"


@pytest.mark.parametrize("dialect", list(MORE))
@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_field_is_told_dropped_or_refused(dialect: Dialect, name: str) -> None:
    refused, dropped = MORE[dialect]
    expected = "refused" if name in REFUSED | refused else "dropped" if name in DROPPED | dropped else "told"
    # Of no effect: the default, what only means our own answer, and what means nothing without tools.
    if name in ("store", "stream_options", "tool_choice", "parallel_tool_calls"):
        expected = "nothing"
    expected += f" {name}" if expected == "refused" else ""
    assert what_becomes_of(dialect, name) == expected


def test_the_list_is_that_of_the_api() -> None:
    ours_to_answer = {"model", "messages", "moderation"}
    assert get_type_hints(CompletionCreateParamsStreaming).keys() - ours_to_answer <= VALUES.keys()


@pytest.mark.parametrize("dialect", list(MORE))
def test_neutral_values_are_as_good_as_none(dialect: Dialect) -> None:
    neutral = {"n": 1, "frequency_penalty": 0, "logprobs": False, "logit_bias": {}, "modalities": ["text"], "tools": []}
    assert call(dialect, **neutral, response_format={"type": "text"}).body == call(dialect).body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"something_new": 1}, "something_new"),
        ({"CANARY text": 1}, None),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"reasoning_effort": "CANARY"}, "reasoning_effort"),
        ({"model": "gemini-old", "temperature": True}, "temperature"),
        ({"model": "gemini-old", "temperature": -1}, "temperature"),
        ({"response_format": {"type": "CANARY"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "CANARY"}, "tool_choice"),
    ],
)
@pytest.mark.parametrize("dialect", list(MORE))
def test_wrong_values_are_refused_and_not_quoted(dialect: Dialect, fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        call(dialect, **fields)
    assert caught.value.param == param
    assert "CANARY" not in caught.value.message


def test_a_choice_of_one() -> None:
    fields = ChatFields({"messages": HELLO, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "Gemini")
    assert fields.tool_choice() == ToolChoice("one", "f")
    fields.finish()
