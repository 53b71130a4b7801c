"""What a chat request has to be, and what the proxy makes of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.chat_request import read_chat_request
from proxy.request_body import BadRequest, read_object
from proxy.request_fields import MAX_MODEL_CHARS, MAX_PARTS, MAX_TOOLS, ModeratedRequest, ModerationAsk, Terms
from proxy.server_settings import ServerSettings

TERMS = Terms(ServerSettings(max_messages=8, max_choices=4, max_json_depth=16))


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields


def refusal_of(body: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read_chat_request(body, TERMS)
    assert caught.value.status == 400
    return caught.value


def test_a_chat_request_tells_what_the_proxy_needs() -> None:
    body = chat(stream=True, n=3, stream_options={"include_usage": True}, temperature=0.5, seed=1 << 70, x_unknown=[1])
    assert read_chat_request(body, TERMS) == ModeratedRequest(
        model="m", messages=body["messages"], forward=body, stream=True, choices=3, include_usage=True
    )


@pytest.mark.parametrize("name", ["stream", "n", "stream_options", "tools", "functions", "store", "moderation"])
def test_null_is_the_same_as_left_out(name: str) -> None:
    request = read_chat_request(chat(**{name: None}), TERMS)
    assert (request.stream, request.choices, request.include_usage, request.moderation) == (False, 1, False, None)
    assert (name in request.forward) is (name != "moderation")


def test_fields_that_turn_other_guards_off_are_only_forwarded() -> None:
    off = {"guardrails": [], "metadata": {"guardrail": False}, "x_guard_mode": "off", "safe_mode": False, "weir": False}
    request = read_chat_request(chat(**off), TERMS)
    assert request.forward == chat(**off)
    assert request.moderation is None


@pytest.mark.parametrize(
    "name",
    [
        "api_base", "API_BASE", "api-base", "api_key", "api_version", "base_url", "Base-URL", "user_config",
        "litellm_params", "custom_llm_provider", "azure_endpoint", "azure_ad_token", "aws_bedrock_runtime_endpoint",
        "vertex_project",
        "model_list", "fallbacks", "context_window_fallbacks", "extra_body", "extra_headers", "extra_query", "headers",
        "default_headers", "deployment_id", "mock_response", "proxy", "target_url", "upstream", "upstream_url", "url",
    ],
)  # fmt: skip
def test_a_request_cannot_choose_the_upstream(name: str) -> None:
    assert refusal_of(chat(**{name: "http://127.0.0.1:1/"})).code == "unsupported_parameter"
    parameters = {"type": "object", "properties": {name: {"type": "string"}}}  # a tool's own parameter is no choice
    tool = {"type": "function", "function": {"name": "fetch", "parameters": parameters}}
    assert read_chat_request(chat(tools=[tool]), TERMS)


def test_an_answer_is_not_to_be_stored() -> None:
    assert "moderated" in refusal_of(chat(store=True)).message
    assert read_chat_request(chat(store=False), TERMS).forward["store"] is False


@pytest.mark.parametrize("model", ["gpt-5", "Qwen/Qwen3-8B", "hf.co/a/b:Q4_K_M", "模型", "m" * MAX_MODEL_CHARS])
def test_a_model_has_any_printable_name(model: str) -> None:
    assert read_chat_request(chat(model=model), TERMS).model == model


@pytest.mark.parametrize(
    "model", ["", "m" * (MAX_MODEL_CHARS + 1), "a\nb", "a\x00", "a\x7f", "a\x85", "a\u2028", "http://x"]
)
def test_a_model_that_is_no_name_is_refused(model: str) -> None:
    assert refusal_of(chat(model=model)).param == "model"


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_model_and_messages_are_needed(missing: str) -> None:
    body = chat()
    del body[missing]
    refused = refusal_of(body)
    assert (refused.param, refused.code) == (missing, "missing_required_parameter")


@pytest.mark.parametrize("n", [0, -1, 5, 129, 10**9, 1 << 64, True, False, "2", 1.0, 2.5, [1], {}])
def test_n_is_an_integer_within_the_limit(n: object) -> None:
    assert refusal_of(chat(n=n)).param == "n"


WRONG: list[Any] = [True, False, 0, 1, -1, 1.5, "", "true", "null", [], [1], [None], ["a"], [[]], {}, {"a": 1}]


def mutations() -> Iterator[tuple[str, dict[str, Any]]]:
    """A good body with one field replaced by a value of a wrong type."""

    def wrong(*right: type) -> list[Any]:
        return [value for value in WRONG if type(value) not in right]

    tops = {"model": str, "stream": bool, "stream_options": dict, "store": bool}
    for name, right in tops.items():
        yield from ((name, chat(**{name: value})) for value in wrong(right))
    for name in ("tools", "functions", "messages"):
        yield from ((name, chat(**{name: value})) for value in wrong(list))
        yield from ((f"{name}[0]", chat(**{name: [value]})) for value in wrong(dict))
    yield from (("n", chat(n=value)) for value in wrong(int))
    yield from (
        ("stream_options.include_usage", chat(stream_options={"include_usage": value})) for value in wrong(bool)
    )
    fields = {"role": (str,), "content": (str, list), "tool_calls": (list,), "function_call": (dict,)}
    for name, rights in fields.items():
        good = {"role": "user", "content": "a"}
        yield from ((f"messages[0].{name}", chat(messages=[good | {name: value}])) for value in wrong(*rights))
    for value in wrong(dict):
        yield "messages[0].content[0]", chat(messages=[{"role": "user", "content": [value]}])
        yield "messages[0].tool_calls[0]", chat(messages=[{"role": "assistant", "tool_calls": [value]}])
    for value in wrong(str):
        part = {"type": value, "text": "a"}
        yield (
            "messages[1].content[1].type",
            chat(messages=[chat()["messages"][0], {"role": "user", "content": [{"type": "text", "text": "a"}, part]}]),
        )
        yield "moderation.model", chat(moderation={"model": value})
        yield "moderation.policy.input.mode", chat(moderation={"model": "m", "policy": {"input": {"mode": value}}})
    for value in wrong(dict):
        yield "moderation", chat(moderation=value)
        yield "moderation.policy", chat(moderation={"model": "m", "policy": value})
        yield "moderation.policy.output", chat(moderation={"model": "m", "policy": {"output": value}})


MUTATIONS = list(mutations())


def test_there_are_300_mutations() -> None:
    assert len(MUTATIONS) >= 300


@pytest.mark.parametrize(("param", "body"), MUTATIONS, ids=range(len(MUTATIONS)))
def test_a_field_of_a_wrong_type_is_refused_by_its_name(param: str, body: dict[str, Any]) -> None:
    refused = refusal_of(body)
    assert refused.param == param
    assert refused.code in {"invalid_type", "unknown_parameter"}


@pytest.mark.parametrize("field", ["role", "content", "name", "tool_call_id"])
@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"a\udbffb"])
def test_half_a_character_is_refused_in_every_field_of_a_message(field: str, escape: str) -> None:
    raw = json.dumps(chat(messages=[{"role": "user", "content": "hi", field: "@"}])).replace('"@"', f'"{escape}"')
    with pytest.raises(BadRequest, match="surrogate"):
        read_object(raw.encode(), max_depth=16)


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("messages", {"messages": []}),
        ("messages", {"messages": chat()["messages"] * 9}),
        ("messages", {"messages": chat()["messages"] * 10_000}),
        ("messages[0].role", {"messages": [{"content": "a"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": [{"type": "text"}] * (MAX_PARTS + 1)}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"text": "a"}]}]}),
        ("messages[0].tool_calls", {"messages": [{"role": "assistant", "tool_calls": [{}] * (MAX_TOOLS + 1)}]}),
        ("tools", {"tools": [{}] * (MAX_TOOLS + 1)}),
        ("functions", {"functions": [{}] * 10_000}),
    ],
)
def test_lists_have_caps(param: str, fields: dict[str, Any]) -> None:
    assert refusal_of(chat(**fields)).param == param


@pytest.mark.parametrize(
    ("moderation", "ask"),
    [
        ({"model": "m"}, ModerationAsk("m")),
        ({"model": "m", "policy": None}, ModerationAsk("m")),
        ({"model": "m", "policy": {}}, ModerationAsk("m")),
        ({"model": "m", "policy": {"input": {"mode": "block"}}}, ModerationAsk("m", input="block")),
        ({"model": "m", "policy": {"input": None, "output": {"mode": "block"}}}, ModerationAsk("m", output="block")),
        ({"model": "m", "policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}, ModerationAsk("m")),
    ],
)
def test_the_moderation_field_is_ours_to_answer(moderation: dict[str, Any], ask: ModerationAsk) -> None:
    request = read_chat_request(chat(moderation=moderation), TERMS)
    assert request.moderation == ask
    assert request.forward == chat()


@pytest.mark.parametrize(
    ("param", "moderation"),
    [
        ("moderation.model", {}),
        ("moderation", {"model": "m", "mode": "block"}),
        ("moderation.policy", {"model": "m", "policy": {"inputs": {"mode": "block"}}}),
        ("moderation.policy.input.mode", {"model": "m", "policy": {"input": {}}}),
        ("moderation.policy.input.mode", {"model": "m", "policy": {"input": {"mode": "Block"}}}),
        ("moderation.policy.input.mode", {"model": "m", "policy": {"input": {"mode": "off"}}}),
        ("moderation.policy.output", {"model": "m", "policy": {"output": {"mode": "score", "threshold": 1}}}),
    ],
)
def test_a_misspelt_moderation_field_is_refused(param: str, moderation: dict[str, Any]) -> None:
    assert refusal_of(chat(moderation=moderation)).param == param
