"""Answers of upstreams that do not speak chat, as they come over the wire."""

import json
from collections.abc import Iterable
from typing import Any

from adapters import TRANSLATED
from adapters.base import Adapter, Options
from proxy.framing import BodyFraming, EventFraming
from proxy.policy import Policy
from proxy.stream import Expected, ModeratedStream
from tests.adapters.test_structures import SIGNATURE
from tests.doors import block_events, message_events, text_block

CHAT = "/v1/chat/completions"

# Anthropic.

THINKING = block_events(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me"},
    {"type": "thinking_delta", "thinking": " see."},
    {"type": "signature_delta", "signature": SIGNATURE},
)
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
CALL = block_events(
    2,
    TOOL,
    {"type": "input_json_delta", "partial_json": ""},
    {"type": "input_json_delta", "partial_json": '{"city":'},
    {"type": "input_json_delta", "partial_json": ' "Oslo"}'},
)
ANTHROPIC = message_events(THINKING, text_block(1, "Hello", " world"), CALL, stop="tool_use")

# Gemini.


def gemini(*parts: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One event: a candidate with these parts."""
    return b"data: " + gemini_body(*parts, finish=finish, index=index, **more) + b"\r\n\r\n"


def gemini_body(*parts: dict[str, Any], finish: str | None = "STOP", index: int = 0, **more: Any) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "safetyRatings": []}
    candidate |= {"index": index} if index else {}
    candidate |= {"finishReason": finish} if finish else {}
    return json.dumps(gemini_head([candidate]) | more).encode()


def gemini_head(candidates: list[Any]) -> dict[str, Any]:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5, "totalTokenCount": 12}
    return {
        "candidates": candidates,
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mAitaLmkHPPlz7IPvtfUqQ4",
    }


WEATHER = {
    "functionCall": {"name": "get_weather", "args": {"city": "Oslo"}, "id": "fc_1"},
    "thoughtSignature": SIGNATURE,
}
GEMINI = [
    gemini({"text": "Let me", "thought": True}),
    gemini({"text": " see.", "thought": True}),
    gemini({"text": "Hello"}),
    gemini({"text": " world"}, WEATHER),
    gemini({"text": "", "thoughtSignature": SIGNATURE}, finish="STOP"),
]
GEMINI_REFUSAL = b'data: {"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"modelVersion":"m"}\r\n\r\n'

# What both of them say.
SAID = {
    "reasoning_content": "Let me see.",
    "content": "Hello world",
    "tool_calls.0.name": "get_weather",
}


def gemini_text(*parts: str, finish: str = "STOP") -> list[bytes]:
    return [*(gemini({"text": part}) for part in parts), gemini(finish=finish)]


def anthropic_text(*parts: str, stop: str = "end_turn") -> list[bytes]:
    return message_events(text_block(0, *parts), stop=stop)


def adapter_of(dialect: str, *, is_body: bool = False, **options: Any) -> Adapter:
    endpoint = TRANSLATED[dialect, CHAT]
    return (endpoint.body if is_body else endpoint.stream)(Options(**{"model": "m", **options}))


def stream_of(
    dialect: str, policy: Policy | None = None, *, is_body: bool = False, choices: int = 1, **options: Any
) -> tuple[ModeratedStream, Adapter]:
    adapter = adapter_of(dialect, is_body=is_body, choices=choices, **options)
    framing = BodyFraming(1 << 20) if is_body else EventFraming(1 << 20)
    return ModeratedStream(framing, adapter, policy or Policy(), Expected(choices=choices)), adapter


def joined(chunks: Iterable[bytes]) -> bytes:
    return b"".join(chunks)
