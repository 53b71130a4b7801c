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

DOORS = {door.path.removeprefix("/v1/"): door for door in (CHAT, COMPLETIONS)}
