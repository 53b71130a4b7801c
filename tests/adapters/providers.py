"""What the servers of this world stream, written from their documents and recordings: chunks, and the texts in them."""

from collections.abc import Mapping
from typing import Any

Chunks = list[dict[str, Any]]


def _chunk(choices: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-A1",
        "object": "chat.completion.chunk",
        "created": 1757499916,
        "model": "gpt-5-mini-2025-08-07",
        "choices": choices,
        **more,
    }


def _said(delta: Any, finish_reason: str | None = None, **choice: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, **choice, "finish_reason": finish_reason}]


def _openai() -> Chunks:
    more = {"service_tier": "default", "system_fingerprint": "fp_c4c155951e", "usage": None}
    return [
        _chunk(
            _said({"role": "assistant", "content": "", "refusal": None}, logprobs=None), obfuscation="xSoHBV2mW", **more
        ),
        _chunk(_said({"content": "Hello"}, logprobs=None), obfuscation="nh0L", **more),
        _chunk(_said({"content": " world"}, logprobs=None), obfuscation="QtJ1", **more),
        _chunk(_said({}, "stop", logprobs=None), obfuscation="m", **more),
        _chunk(
            [],
            **more
            | {
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 2,
                    "total_tokens": 11,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
                },
                "obfuscation": "",
            },
        ),
    ]


def _tool(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    call_id, name = more.pop("id", None), more.pop("name", None)
    function = ({"name": name} if name else {}) | {"arguments": arguments}
    first = {"id": call_id, "type": "function"} if call_id else {}
    return {"index": index, **first, "function": function, **more}


def _openai_tools() -> Chunks:
    first = {"role": "assistant", "content": None, "tool_calls": [_tool(0, "", id="call_a", name="get_weather")]}
    return [
        _chunk(_said(first)),
        _chunk(_said({"tool_calls": [_tool(0, '{"city":')]})),
        _chunk(_said({"tool_calls": [_tool(1, "", id="call_b", name="get_time")]})),
        _chunk(_said({"tool_calls": [_tool(1, "{"), _tool(0, '"Oslo"}')]})),
        _chunk(_said({"tool_calls": [_tool(1, "}")]})),
        _chunk(_said({}, "tool_calls")),
    ]


def _azure() -> Chunks:
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    return [
        {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}],
        },
        _chunk(_said({"role": "assistant", "content": "", "refusal": None}, content_filter_results={}, logprobs=None)),
        _chunk(_said({"content": "Hello"}, content_filter_results=safe, logprobs=None)),
        _chunk(
            [{"index": 0, "finish_reason": None, "content_filter_results": safe, "content_filter_offsets": {"a": 1}}]
        ),
        _chunk(_said(None, content_filter_results=safe)),
        _chunk(_said({"content": " world"}, content_filter_results=safe)),
        _chunk(_said({}, "stop", content_filter_results={})),
    ]


def _vllm() -> Chunks:
    usage = {"prompt_tokens": 5, "total_tokens": 6, "completion_tokens": 1}
    return [
        _chunk(_said({"role": "assistant", "content": ""}, logprobs=None), prompt_token_ids=None, usage=usage),
        _chunk(_said({"reasoning_content": "Let me", "reasoning": "Let me"}, token_ids=None), usage=usage),
        _chunk(_said({"content": "Hello"}, logprobs=None, token_ids=None), usage=usage),
        _chunk(_said({"content": " world"}, "stop", logprobs=None, stop_reason=None), usage=usage),
        _chunk([], usage=usage),
    ]


def _sglang() -> Chunks:
    def nulls(**said: Any) -> dict[str, Any]:
        return {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **said}

    return [
        _chunk(_said(nulls(role="assistant", content=""), matched_stop=None), usage=None),
        _chunk(_said(nulls(reasoning_content="Let me"), matched_stop=None), usage=None),
        _chunk(_said(nulls(content="Hello world"), matched_stop=None), usage=None),
        _chunk(_said(nulls(), "stop", matched_stop=151645), usage=None),
    ]


def _deepseek() -> Chunks:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_cache_hit_tokens": 0}
    return [
        _chunk(_said({"role": "assistant", "content": None, "reasoning_content": ""})),
        _chunk(_said({"content": None, "reasoning_content": "Let me"})),
        _chunk(_said({"content": "Hello", "reasoning_content": None})),
        _chunk(_said({"content": " world", "reasoning_content": None})),
        _chunk(_said({"content": "", "reasoning_content": None}, "stop"), usage=usage),
    ]


def _openrouter() -> Chunks:
    def detail(**said: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0, "signature": None, **said}

    more = {"provider": "Google AI Studio", "system_fingerprint": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "cost": 0.00014, "is_byok": False}
    end = {"native_finish_reason": "end_turn", "logprobs": None}
    return [
        _chunk(
            _said({"role": "assistant", "content": "", "reasoning": "Let", "reasoning_details": [detail(text="Let")]})
        ),
        _chunk(
            _said({"role": "assistant", "content": "", "reasoning": " me", "reasoning_details": [detail(text=" me")]})
        ),
        _chunk(_said({"role": "assistant", "content": "", "reasoning_details": [detail(text="", signature="c2ln")]})),
        _chunk(_said({"role": "assistant", "content": "Hello world"}), **more),
        _chunk(_said({"role": "assistant", "content": ""}, "stop", **end), **more),
        _chunk(_said({"role": "assistant", "content": ""}, None, **end), usage=usage, **more),
    ]


def _ollama() -> Chunks:
    more = {"system_fingerprint": "fp_ollama", "model": "gemma3:270m", "id": "chatcmpl-287"}
    return [
        _chunk(_said({"role": "assistant", "content": "Hello"}), **more),
        _chunk(_said({"role": "assistant", "content": " world"}), **more),
        _chunk(_said({"role": "assistant", "content": ""}, "stop"), **more),
        _chunk([], **more, usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}),
    ]


def _groq() -> Chunks:
    return [
        _chunk(_said({"role": "assistant", "content": ""}), x_groq={"id": "req_01"}),
        _chunk(_said({"content": "Hello world"})),
        _chunk(_said({}, "stop"), x_groq={"id": "req_01", "usage": {"queue_time": 0.1}}),
    ]


def _mistral() -> Chunks:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me"}]}
    return [
        _chunk(_said({"role": "assistant", "content": ""}), p="abcd"),
        _chunk(_said({"content": [thinking]})),
        _chunk(_said({"content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]})),
        _chunk(_said({"content": ""}, "stop")),
    ]


def _perplexity() -> Chunks:
    message = {"role": "assistant", "content": "Hello world"}
    return [
        _chunk(_said({"role": "assistant", "content": "Hello"}, message={"content": "Hello"}), citations=["https://x"]),
        _chunk(_said({"content": " world"}, "stop", message=message), search_results=[{"title": "t"}]),
    ]


def _gemini_tools() -> Chunks:
    """No index: each call arrives whole, and its id tells it from the others."""

    def call(call_id: str, name: str) -> dict[str, Any]:
        function = {"name": name, "arguments": "{}"}
        return {"id": call_id, "type": "function", "function": function, "extra_content": {"google": {"s": "AbC="}}}

    return [
        _chunk(_said({"role": "assistant", "tool_calls": [call("a", "get_weather"), call("b", "get_time")]})),
        _chunk(_said({"role": "assistant", "tool_calls": [call("c", "get_date")]}, "tool_calls")),
    ]


HELLO = {"content": "Hello world"}
THINKING = {"reasoning_content": "Let me", **HELLO}
TOOLS = {
    "tool_calls.0.name": "get_weather",
    "tool_calls.0.arguments": '{"city":"Oslo"}',
    "tool_calls.1.name": "get_time",
    "tool_calls.1.arguments": "{}",
}
GEMINI_TOOLS = {
    f"tool_calls.{i}.{field}": text
    for i, name in enumerate(["get_weather", "get_time", "get_date"])
    for field, text in (("name", name), ("arguments", "{}"))
}

PROVIDERS: Mapping[str, tuple[Chunks, Mapping[str, str]]] = {
    "OpenAI": (_openai(), HELLO),
    "OpenAI, tools": (_openai_tools(), TOOLS),
    "Azure": (_azure(), HELLO),
    "vLLM": (_vllm(), THINKING | {"reasoning": "Let me"}),
    "SGLang": (_sglang(), THINKING),
    "DeepSeek": (_deepseek(), THINKING),
    "OpenRouter": (_openrouter(), HELLO | {"reasoning": "Let me", "reasoning_details.0.text": "Let me"}),
    "Ollama": (_ollama(), HELLO),
    "Groq": (_groq(), HELLO),
    "Mistral": (_mistral(), THINKING),
    "Perplexity": (_perplexity(), HELLO),
    "Gemini, tools": (_gemini_tools(), GEMINI_TOOLS),
}
# Shapes that openai-python itself cannot add up.
UNUSUAL = frozenset({"Mistral", "Gemini, tools"})
