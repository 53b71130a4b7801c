"""Chat requests, and what becomes of them."""

from typing import Any

from proxy.chat_request import read_chat_request
from proxy.dialects import call_of
from proxy.dialects.call import UpstreamCall
from proxy.request_fields import Terms
from proxy.server_settings import ServerSettings
from proxy.settings import Dialect, UpstreamSettings
from tests.adapters.test_structures import SIGNATURE

CHAT = "/v1/chat/completions"
MODELS: dict[Dialect, str] = {"openai": "gpt-5", "anthropic": "claude-sonnet-5", "gemini": "gemini-2.5-flash"}
HELLO = [{"role": "user", "content": "hello"}]
PIXEL = "data:image/png;base64,iVBORw0KGgo="

TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}
SIGNED = CALL | {"extra_content": {"google": {"thought_signature": SIGNATURE}}}
# Every kind of message.
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "S"},
    {"role": "developer", "content": [{"type": "text", "text": "D"}]},
    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": ""}]},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}], "name": "bob"},
    {"role": "assistant", "content": "two", "reasoning_content": "hm", "tool_calls": [SIGNED, CALL | {"id": "c2"}]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"b": "\\u0041"}'},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "three"}]},
    {"role": "user", "content": "four"},
]


def call(dialect: Dialect, **fields: Any) -> UpstreamCall:
    """What is sent to an upstream of that dialect. None takes a field away."""
    body = {"model": MODELS[dialect], "messages": HELLO, **fields}
    request = read_chat_request({k: v for k, v in body.items() if v is not None}, Terms(ServerSettings()))
    return call_of(request, CHAT, "", UpstreamSettings(dialect=dialect))


def sent(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    body = call(dialect, **fields).body
    assert body is not None
    return dict(body)
