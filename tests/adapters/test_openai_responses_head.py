"""The fields around the output: checked, or the request's own."""

from typing import Any

from openai.types.responses import Response

from adapters.base import Options
from adapters.openai_responses_head import HeadReader, blank
from tests.doors import RESPONSE, RESPONSE_USAGE

PLAIN = Options("asked-model")


def head_of(response: dict[str, Any], options: Options = PLAIN) -> tuple[dict[str, Any], int]:
    reader = HeadReader(options)
    return reader.read(response), reader.dropped


def test_a_head_passes_where_it_is_names_and_numbers() -> None:
    head, dropped = head_of({**RESPONSE, "service_tier": "default", "top_logprobs": 5, "completed_at": 1.5})
    assert dropped == 0
    assert (head["id"], head["created_at"], head["model"], head["truncation"]) == ("resp_1", 1, "m", "disabled")
    assert (head["service_tier"], head["top_logprobs"], head["store"], head["completed_at"]) == (
        "default",
        5,
        False,
        1.5,
    )


def test_text_in_a_head_does_not_pass() -> None:
    odd: dict[str, Any] = dict.fromkeys(RESPONSE, "CANARY text") | {"access_programs": "CANARY", "new": ["CANARY"]}
    head, dropped = head_of(odd)
    assert "CANARY" not in str(head)
    assert head["model"] == "asked-model"
    assert dropped >= 10


def test_the_requests_own_words_are_told_back_and_not_the_upstreams() -> None:
    tools = [{"type": "function", "name": "f"}]
    options = Options("m", echo={"instructions": "be kind", "tools": tools, "metadata": {"a": "b"}})
    head, _ = head_of({**RESPONSE, "instructions": "CANARY", "tools": ["CANARY"]}, options)
    assert (head["instructions"], head["tools"], head["metadata"]) == ("be kind", tools, {"a": "b"})


def test_the_first_id_holds_and_later_facts_join() -> None:
    reader = HeadReader(PLAIN)
    reader.read(dict(RESPONSE))
    head = reader.read({**RESPONSE, "id": "resp_2", "created_at": 9, "service_tier": "flex"})
    assert (head["id"], head["created_at"], head["service_tier"]) == ("resp_1", 1, "flex")


def test_usage_is_numbers() -> None:
    reader = HeadReader(PLAIN)
    assert reader.usage(dict(RESPONSE_USAGE)) == RESPONSE_USAGE
    assert reader.usage({"input_tokens": "CANARY"}) == {}
    assert reader.usage("CANARY") is None
    assert reader.usage(None) is None
    assert reader.dropped == 2


def test_a_blank_head_is_a_response() -> None:
    state: dict[str, Any] = {"status": "incomplete", "output": [], "usage": None}
    Response.model_validate(blank(PLAIN) | state)
