"""What is to be judged, at the two doors that only judge."""

from typing import Any

import pytest

from proxy.moderation_request import (
    MAX_INPUTS,
    GuardrailRequest,
    ModerationRequest,
    read_guardrail_request,
    read_moderation_request,
)
from proxy.request_body import BadRequest
from proxy.request_fields import Terms
from proxy.server_settings import ServerSettings

TERMS = Terms(ServerSettings())
LAX = Terms(ServerSettings(), allow_unscanned=True)
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}
TEXT = {"type": "text", "text": "a"}


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("given", "conversations"),
    [
        ("a", [asked("a")]),
        ("", [asked("")]),
        (["a", "b"], [asked("a"), asked("b")]),
        ([TEXT, {"type": "text", "text": "b"}], [asked("ab")]),
        ([*asked("a"), {"role": "assistant", "content": "b"}], [[*asked("a"), {"role": "assistant", "content": "b"}]]),
    ],
)
def test_every_form_of_input(given: Any, conversations: Any) -> None:
    assert read_moderation_request({"input": given, "model": "m"}, TERMS) == ModerationRequest(conversations, "m")


def test_images_are_refused_or_listed() -> None:
    with pytest.raises(BadRequest) as caught:
        read_moderation_request({"input": [TEXT, IMAGE]}, TERMS)
    assert (caught.value.param, caught.value.code) == ("input[1]", "unscannable_content")
    found = read_moderation_request({"input": [TEXT, IMAGE, {"type": "new"}]}, LAX)
    assert found == ModerationRequest([asked("a")], "", ("input[1] (image_url)", "input[2] (unknown type)"))


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {}),
        ("input", {"input": 5}),
        ("input", {"input": []}),
        ("input", {"input": ["a"] * (MAX_INPUTS + 1)}),
        ("input[0]", {"input": [1, 2]}),
        ("input[1]", {"input": [TEXT, "a"]}),
        ("input[0].type", {"input": [{"text": "a"}]}),
        ("input[0].text", {"input": [{"type": "text"}]}),
        ("model", {"input": "a", "model": 5}),
    ],
)
def test_what_cannot_be_read_is_refused(param: str, body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_moderation_request(body, TERMS)
    assert caught.value.param == param


def test_litellm_asks_before_a_call() -> None:
    body = {"input_type": "request", "texts": ["a", "b"], "structured_messages": asked("ab"), "images": []}
    assert read_guardrail_request(body, TERMS) == GuardrailRequest([asked("a"), asked("b"), asked("ab")])
    assert read_guardrail_request({"input_type": "request", "images": ["x"]}, TERMS) == GuardrailRequest([], True)


def test_litellm_asks_before_an_answer_is_handed_on() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {"input_type": "response", "texts": ["c"], "structured_messages": asked("ab"), "tool_calls": [call]}
    assert read_guardrail_request(body, TERMS).conversations == [
        [*asked("ab"), {"role": "assistant", "content": "c"}],
        [*asked("ab"), {"role": "assistant", "content": None, "tool_calls": [call]}],
    ]


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("input_type", {"input_type": None}),
        ("input_type", {"input_type": "both"}),
        ("texts", {"texts": "a"}),
        ("texts", {"texts": [1]}),
        ("structured_messages", {"structured_messages": "a"}),
        ("structured_messages[0]", {"structured_messages": ["a"]}),
        ("tool_calls[0]", {"tool_calls": ["a"]}),
        ("images", {"images": "a"}),
    ],
)
def test_what_litellm_may_not_send(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_guardrail_request({"input_type": "request", **fields}, TERMS)
    assert caught.value.param == param
