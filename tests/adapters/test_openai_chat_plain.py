"""The records of the common event: what fits them."""

import json
from typing import Any

import msgspec
import pytest

from adapters.metadata import ENVELOPE_FIELDS
from adapters.openai_chat_plain import decode_plain

CHOICE = {"index": 1, "delta": {"content": "hi"}, "logprobs": None, "finish_reason": None}


def event(choice: dict[str, Any] | None = None, **more: Any) -> str:
    return json.dumps({"id": "a", "created": 5, "model": "m", "choices": [choice or CHOICE], **more})


def test_the_envelope_is_that_of_the_reader_in_its_order() -> None:
    chunk = decode_plain(event(provider="p"))
    given = {"id": "a", "created": 5, "model": "m", "provider": "p"}
    assert dict(zip(ENVELOPE_FIELDS, chunk.envelope, strict=True)) == dict.fromkeys(ENVELOPE_FIELDS) | given
    assert (chunk.choices[0].index, chunk.choices[0].delta.content) == (1, "hi")


@pytest.mark.parametrize(
    "text",
    [
        event(x=None),
        event(CHOICE | {"x": None}),
        event(CHOICE | {"delta": {"content": "hi", "role": "assistant"}}),
        event(CHOICE | {"delta": {"content": None}}),
        event(CHOICE | {"finish_reason": "stop"}),
        event(CHOICE | {"logprobs": {}}),
        event(choices=[]),
        event(choices=[CHOICE, CHOICE]),
    ],
)
def test_an_event_with_anything_more_does_not_fit(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        event(obfuscation="xyz"),
        event(CHOICE | {"stop_reason": None, "token_ids": None}),
        event(CHOICE | {"delta": {"content": "hi", "reasoning_content": None, "tool_calls": None}}),
        event(CHOICE | {"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}),
    ],
)
def test_what_servers_send_with_every_event_does(text: str) -> None:
    assert decode_plain(text).choices[0].delta.content == "hi"
