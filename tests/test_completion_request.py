"""What a completion request has to be."""

from typing import Any

import pytest

from proxy.completion_request import read_completion_request
from proxy.request_body import BadRequest
from proxy.request_fields import ModerationAsk, Terms
from proxy.server_settings import ServerSettings

TERMS = Terms(ServerSettings(max_choices=4))


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": "hi"} | fields


def refusal_of(body: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_completion_request(body, TERMS)
    assert caught.value.status == 400
    return caught.value


def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    body = asked(stream=True, n=2, stream_options={"include_usage": True}, echo=True, logprobs=5, seed=1 << 70)
    request = read_completion_request(body, TERMS)
    assert request.conversations == [[{"role": "user", "content": "hi"}]]
    assert (request.stream, request.choices, request.include_usage) == (True, 2, True)
    assert request.forward == body


def test_each_prompt_of_a_list_is_a_conversation_of_its_own() -> None:
    request = read_completion_request(asked(prompt=["a", "b"], n=2, suffix="!"), TERMS)
    assert request.choices == 4
    assert request.conversations == [[{"role": "user", "content": "a!"}], [{"role": "user", "content": "b!"}]]
    assert read_completion_request(asked(prompt=["a"]), TERMS).choices == 1


@pytest.mark.parametrize("prompt", [[1, 2], [[1, 2], [3]], ["a", 1], ["a", [1]], [0] * 9])
def test_token_ids_are_refused_with_a_reason(prompt: Any) -> None:
    refused = refusal_of(asked(prompt=prompt))
    assert (refused.param, refused.code) == ("prompt", "unscannable_content")
    assert "Token ids" in refused.message


@pytest.mark.parametrize("prompt", [None, 1, True, {}, [], [None], [True], [{"a": 1}], ["a"] * 5, 1.5])
def test_a_prompt_of_any_other_sort_is_refused(prompt: Any) -> None:
    assert str(refusal_of(asked(prompt=prompt)).param).startswith("prompt")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("n", {"n": 5}),
        ("n", {"n": 0}),
        ("n", {"prompt": ["a", "b"], "n": 3}),
        ("best_of", {"best_of": 5}),
        ("best_of", {"best_of": 1, "n": 2}),
        ("best_of", {"best_of": "2"}),
        ("best_of", {"best_of": 2, "stream": True}),
        ("echo", {"echo": "yes"}),
        ("logprobs", {"logprobs": True}),
        ("suffix", {"suffix": ["a"]}),
        ("stream", {"stream": 1}),
        ("stream_options.include_usage", {"stream_options": {"include_usage": 1}}),
        ("model", {"model": "http://x"}),
        ("moderation.model", {"moderation": {}}),
        ("prompt_embeds", {"prompt_embeds": "AAAA"}),
        ("prompt_token_ids", {"prompt_token_ids": [1]}),
        ("store", {"store": True}),
        (None, {"api_base": "http://x"}),
    ],
)
def test_what_the_guard_relies_on_is_checked(param: str | None, fields: dict[str, Any]) -> None:
    assert refusal_of(asked(**fields)).param == param


def test_moderation_is_ours_to_answer_and_best_of_the_upstreams() -> None:
    request = read_completion_request(asked(moderation={"model": "m"}, best_of=3, n=2), TERMS)
    assert request.moderation == ModerationAsk("m")
    assert request.forward == asked(best_of=3, n=2)
