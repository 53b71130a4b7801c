"""Chat requests in Gemini's words."""

from typing import Any

import pytest

from proxy.request_body import BadRequest
from tests.adapters.test_structures import SIGNATURE
from tests.dialects.requests import CALL, TALK, TOOL, call, sent


def test_a_conversation() -> None:
    body = sent("gemini", messages=TALK, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    assert body["systemInstruction"] == {"parts": [{"text": "S"}, {"text": "D"}]}
    user, model, results = body["contents"]
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert user["parts"] == [{"text": "one"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]
    assert model["parts"] == [
        {"text": "two"},
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": "é"}}, "thoughtSignature": SIGNATURE},
        {"functionCall": {"id": "c2", "name": "f", "args": {"a": "é"}}},
    ]
    # A result is the text that was judged, and not what it would mean as JSON.
    assert results["parts"] == [
        {"functionResponse": {"id": "c1", "name": "f", "response": {"output": '{"b": "\\u0041"}'}}},
        {"functionResponse": {"id": "c2", "name": "f", "response": {"output": "three"}}},
        {"text": "four"},
    ]
    declared = {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}
    assert body["tools"] == [{"functionDeclarations": [declared]}]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}


def test_settings_of_the_answer() -> None:
    fields = {
        "max_tokens": 7,
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 3,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "stop": "a",
        "n": 2,
    }
    assert sent("gemini", **fields)["generationConfig"] == {
        "maxOutputTokens": 7,
        "temperature": 1.5,
        "topP": 0.9,
        "topK": 40,
        "seed": 3,
        "presencePenalty": -1,
        "frequencyPenalty": 0.5,
        "stopSequences": ["a"],
        "candidateCount": 2,
    }
    assert "generationConfig" not in sent("gemini")


@pytest.mark.parametrize(("choice", "mode"), [("auto", "AUTO"), ("none", "NONE"), ("required", "ANY")])
def test_the_choice_of_a_tool(choice: str, mode: str) -> None:
    body = sent("gemini", tools=[TOOL], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": mode}}


def test_json() -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    config = sent("gemini", response_format=wanted)["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    config = sent("gemini", response_format={"type": "json_object"})["generationConfig"]
    assert config == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-3-pro-preview", "xhigh", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-3-flash", "none", {"thinkingLevel": "minimal"}),
    ],
)
def test_thinking(model: str, effort: str, config: dict[str, Any]) -> None:
    assert sent("gemini", model=model, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": config}


def test_a_call_without_its_signature_says_so_where_one_is_wanted() -> None:
    talk = [*TALK[:4], {"role": "assistant", "tool_calls": [CALL, CALL | {"id": "c2"}]}, *TALK[5:]]
    first, second = sent("gemini", model="gemini-3-pro", messages=talk)["contents"][1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second
    first, _ = sent("gemini", messages=talk)["contents"][1]["parts"]
    assert "thoughtSignature" not in first


@pytest.mark.parametrize(
    ("stream", "path", "query"),
    [
        (True, "/models/gemini-2.5-flash:streamGenerateContent", "alt=sse"),
        (None, "/models/gemini-2.5-flash:generateContent", ""),
    ],
)
def test_where_it_goes(stream: bool | None, path: str, query: str) -> None:
    for model in ("gemini-2.5-flash", "models/gemini-2.5-flash"):
        asked = call("gemini", model=model, stream=stream, user="u")
        assert (asked.path, asked.query, asked.moves_key, asked.dropped) == (path, query, True, ("user",))


@pytest.mark.parametrize("model", ["../x", "a/b", "a:b", "a?key=1", "a%2fb", ".", "models/", "tuned models", "é"])
def test_a_model_is_nothing_but_a_name(model: str) -> None:
    with pytest.raises(BadRequest) as caught:
        sent("gemini", model=model)
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temperature": 3}, "temperature"),
        ({"presence_penalty": 3}, "presence_penalty"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.test/a"}}]}
                ]
            },
            "messages[0].content[0]",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        sent("gemini", **fields)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_sound() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    [turn] = sent("gemini", messages=[{"role": "user", "content": [part]}])["contents"]
    assert turn["parts"] == [{"inlineData": {"mimeType": "audio/wav", "data": "UklG"}}]
