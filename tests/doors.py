"""What each door speaks: how a client asks there, how an upstream answers, and what the client reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters import ENDPOINTS
from adapters.base import Adapter, Options
from proxy.framing import BodyFraming, EventFraming
from proxy.policy import Policy
from proxy.sse import EventDecoder
from proxy.stream import Expected, ModeratedStream
from tests import driver
from tests.driver import DONE

Asked = dict[str, Any]


@dataclass
class Heard:
    """What a client understood of an answer."""

    text: str = ""
    finish: str | None = None
    error: Mapping[str, Any] | None = None
    is_ended: bool = False  # the dialect's own last word came
    events: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Door:
    path: str
    ask: Asked
    answer: Callable[[Sequence[str]], list[bytes]]  # the parts of a streamed answer -> chunks
    body: Callable[[str], bytes]
    hear: Callable[[bytes], Heard]  # a whole stream
    hear_body: Callable[[bytes], Heard]
    stop: str = "stop"  # how a complete answer ends
    cut: str = "content_filter"

    def stream_of(
        self, policy: Policy | None = None, *, is_body: bool = False, expected: Expected | None = None, **options: Any
    ) -> tuple[ModeratedStream, Adapter]:
        expected = expected or Expected()
        endpoint = ENDPOINTS[self.path]
        adapter = (endpoint.body if is_body else endpoint.stream)(
            Options(model="m", choices=expected.choices, **options)
        )
        framing = BodyFraming(1 << 20) if is_body else EventFraming(1 << 20)
        return ModeratedStream(framing, adapter, policy or Policy(), expected), adapter

    def chunks(self, text: str, *, is_body: bool, size: int = 5) -> list[bytes]:
        """An upstream's answer that says `text`."""
        return [self.body(text)] if is_body else self.answer([text[at : at + size] for at in range(0, len(text), size)])

    def understood(self, sent: bytes, *, is_body: bool) -> Heard:
        return self.hear_body(sent) if is_body else self.hear(sent)


def events_of(sent: bytes) -> list[Any]:
    """The events of a stream of ours, in the order sent; `[DONE]` as it is."""
    events = EventDecoder().feed(sent)
    return [event.data if event.data == "[DONE]" else json.loads(event.data) for event in events]


def sse_event(body: Mapping[str, Any]) -> bytes:
    """An event whose type is said twice, as Anthropic and Responses do."""
    return f"event: {body['type']}\ndata: {json.dumps(body)}\n\n".encode()


# Chat.


def _hear_chat(sent: bytes) -> Heard:
    found = driver.read(sent)
    return Heard(found.content, found.finish.get(0), found.error, found.is_done, list(found.events))


def _hear_chat_body(sent: bytes) -> Heard:
    body = json.loads(sent)
    if "error" in body:
        return Heard(error=body["error"])
    [choice] = body["choices"]
    return Heard(choice["message"]["content"] or "", choice["finish_reason"], None, True, [body])


CHAT = Door(
    "/v1/chat/completions",
    {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    driver.answer,
    lambda text: driver.body({"content": text}),
    _hear_chat,
    _hear_chat_body,
)


# Completions.


def completion_chunk(text: str, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    logprobs = more.pop("logprobs", None)
    choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": [choice]} | more).encode() + b"\n\n"


def completion_body(*texts: str, **more: Any) -> bytes:
    choices = [{"text": t, "index": i, "logprobs": None, "finish_reason": "stop"} for i, t in enumerate(texts)]
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    return json.dumps(head | {"choices": choices} | more).encode()


def _hear_completion(sent: bytes) -> Heard:
    heard = Heard()
    for event in events_of(sent):
        if event == "[DONE]":
            heard.is_ended = True
            continue
        heard.events.append(event)
        heard.error = event.get("error", heard.error)
        for choice in event.get("choices", ()):
            assert heard.finish is None or not choice["text"]
            heard.text += choice["text"]
            heard.finish = choice["finish_reason"] or heard.finish
    return heard


def _hear_completion_body(sent: bytes) -> Heard:
    body = json.loads(sent)
    if "error" in body:
        return Heard(error=body["error"])
    [choice] = body["choices"]
    return Heard(choice["text"], choice["finish_reason"], None, True, [body])


COMPLETIONS = Door(
    "/v1/completions",
    {"model": "m", "prompt": "hello"},
    lambda parts: [*map(completion_chunk, parts), completion_chunk("", "stop"), DONE],
    completion_body,
    _hear_completion,
    _hear_completion_body,
)

# Anthropic's Messages.

MESSAGE: Mapping[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


def block_events(index: int, block: Asked, *deltas: Asked) -> list[bytes]:
    return [
        sse_event({"type": "content_block_start", "index": index, "content_block": block}),
        *(sse_event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas),
        sse_event({"type": "content_block_stop", "index": index}),
    ]


def text_block(index: int, *parts: str) -> list[bytes]:
    return block_events(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": part} for part in parts))


def message_events(*blocks: list[bytes], stop: str = "end_turn") -> list[bytes]:
    delta = {"stop_reason": stop, "stop_sequence": None}
    return [
        sse_event({"type": "message_start", "message": dict(MESSAGE)}),
        sse_event({"type": "ping"}),
        *(event for block in blocks for event in block),
        sse_event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}),
        sse_event({"type": "message_stop"}),
    ]


def message_body(*blocks: Asked, **more: Any) -> bytes:
    return json.dumps({**MESSAGE, "content": blocks, "stop_reason": "end_turn", **more}).encode()


def _hear_message(sent: bytes) -> Heard:
    heard, is_open = Heard(), False
    for event in events_of(sent):
        assert not heard.is_ended
        heard.events.append(event)
        kind = event["type"]
        if kind == "content_block_start":
            assert not is_open, "two blocks at once"
            is_open = True
        elif kind == "content_block_delta":
            assert is_open
            heard.text += event["delta"].get("text", "")
        elif kind == "content_block_stop":
            is_open = False
        elif kind == "message_delta":
            assert not is_open
            heard.finish = event["delta"]["stop_reason"]
        heard.error = event.get("error", heard.error)
        heard.is_ended = kind == "message_stop"
    return heard


def _hear_message_body(sent: bytes) -> Heard:
    body = json.loads(sent)
    if "error" in body:
        return Heard(error=body["error"])
    text = "".join(block.get("text", "") for block in body["content"])
    return Heard(text, body["stop_reason"], None, True, [body])


MESSAGES = Door(
    "/v1/messages",
    {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}]},
    lambda parts: message_events(text_block(0, *parts)),
    lambda text: message_body({"type": "text", "text": text}),
    _hear_message,
    _hear_message_body,
    stop="end_turn",
    cut="refusal",
)

# Responses.

RESPONSE: Mapping[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
    "metadata": {},
}
RESPONSE_USAGE: Mapping[str, Any] = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


def message_item(text: str, index: int = 0) -> Asked:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"id": f"msg_{index}", "type": "message", "status": "completed", "content": [part], "role": "assistant"}


def call_item(index: int, name: str, arguments: str) -> Asked:
    head = {"id": f"fc_{index}", "type": "function_call", "status": "completed"}
    return {**head, "arguments": arguments, "call_id": f"call_{index}", "name": name}


def message_item_events(parts: Sequence[str], index: int = 0) -> list[Asked]:
    text, place = "".join(parts), {"item_id": f"msg_{index}", "output_index": index, "content_index": 0}
    whole = message_item(text, index)
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": whole | {"content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", **place, "part": whole["content"][0] | {"text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": part, "logprobs": []} for part in parts),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole["content"][0]},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    ]


def call_item_events(index: int, name: str, parts: Sequence[str]) -> list[Asked]:
    whole, place = call_item(index, name, "".join(parts)), {"item_id": f"fc_{index}", "output_index": index}
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": whole | {"arguments": "", "status": "in_progress"},
        },
        *({"type": "response.function_call_arguments.delta", **place, "delta": part} for part in parts),
        {"type": "response.function_call_arguments.done", **place, "arguments": whole["arguments"], "name": name},
        {"type": "response.output_item.done", "output_index": index, "item": whole},
    ]


def response_events(*items: list[Asked], status: str = "completed", **more: Any) -> list[Asked]:
    output = [item[-1]["item"] for item in items]
    whole = {**RESPONSE, "status": status, "output": output, "usage": dict(RESPONSE_USAGE), **more}
    events: list[Asked] = [
        {"type": "response.created", "response": dict(RESPONSE)},
        {"type": "response.in_progress", "response": dict(RESPONSE)},
        *(event for item in items for event in item),
        {"type": f"response.{status}", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def response_body(*items: Asked, **more: Any) -> bytes:
    return json.dumps({**RESPONSE, "status": "completed", "output": items, "usage": RESPONSE_USAGE, **more}).encode()


def _hear_response(sent: bytes) -> Heard:
    heard = Heard()
    for number, event in enumerate(events_of(sent)):
        assert not heard.is_ended
        assert event["sequence_number"] == number
        heard.events.append(event)
        kind = event["type"]
        if kind == "response.output_text.delta":
            heard.text += event["delta"]
        elif kind in ("response.completed", "response.incomplete"):
            found = _heard_in(event["response"])
            assert found.text == heard.text
            heard.finish, heard.is_ended = found.finish, True
        heard.error = event.get("error", heard.error)
    return heard


def _heard_in(response: Mapping[str, Any]) -> Heard:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    finish = (response["incomplete_details"] or {}).get("reason") or response["status"]
    return Heard(text, finish, None, True, [response])


def _hear_response_body(sent: bytes) -> Heard:
    body = json.loads(sent)
    return Heard(error=body["error"]) if body.get("error") else _heard_in(body)


RESPONSES = Door(
    "/v1/responses",
    {"model": "m", "input": "hello"},
    lambda parts: [sse_event(event) for event in response_events(message_item_events(parts))],
    lambda text: response_body(message_item(text)),
    _hear_response,
    _hear_response_body,
    stop="completed",
)

DOORS = {door.path.removeprefix("/v1/"): door for door in (CHAT, COMPLETIONS, MESSAGES, RESPONSES)}
