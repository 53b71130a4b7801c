"""Drives the pure stream without a network: bytes in, a rule for a guard, what the client reads out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters import ENDPOINTS
from adapters.base import Adapter, Key, Options
from proxy.framing import BodyFraming, EventFraming
from proxy.policy import Policy
from proxy.risk import Category, Risk
from proxy.stream import Expected, ModeratedStream, Outcome
from proxy.structs import Batch
from proxy.vocabulary import decode_bytes
from tests.fakes import Rule, all_safe, risk

CHAT = "/v1/chat/completions"

# Ten words, each one token of the vocabulary, so that the n-th label is the n-th word's.
WORDS = ["one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten"]


@dataclass
class Guard:
    """What the classifier and a guard do, without either: one id list a key and view."""

    rule: Rule = all_safe
    category: Category = Category.VIOLENT
    ids: dict[tuple[Key, int], list[int]] = field(default_factory=dict)

    def classify(self, batch: Batch) -> list[Risk]:
        ids = self.ids.setdefault((batch.key, batch.view), [])
        assert batch.position <= len(ids)
        del ids[batch.position :]
        risks = []
        for one in batch.ids:
            ids.append(one)
            content = ids[1:] if decode_bytes(ids[:1]).strip(b"\n") == b"" else ids
            risks.append(risk(self.rule(content) if content else all_safe([]), self.category))
        return risks


def stream_of(
    policy: Policy | None = None, *, is_body: bool = False, expected: Expected | None = None, **options: Any
) -> tuple[ModeratedStream, Adapter]:
    expected = expected or Expected()
    endpoint = ENDPOINTS[CHAT]
    wanted = Options(model="m", choices=expected.choices, **options)
    adapter = (endpoint.body if is_body else endpoint.stream)(wanted)
    framing = BodyFraming(1 << 20) if is_body else EventFraming(1 << 20)
    return ModeratedStream(framing, adapter, policy or Policy(), expected), adapter


def judge(stream: ModeratedStream, guard: Guard) -> bytes:
    """Everything that may leave once all tokens so far are judged."""
    sent = stream.data_to_send()
    while batches := stream.tokens_to_classify():
        stream.receive_risks(batches, [guard.classify(batch) for batch in batches])
    return sent + stream.data_to_send()


def drive(stream: ModeratedStream, chunks: Iterable[bytes], guard: Guard | None = None, *, ends: bool = True) -> bytes:
    """What the client got of the whole answer."""
    guard = guard or Guard()
    sent = b""
    for chunk in chunks:
        stream.receive_data(chunk)
        sent += judge(stream, guard)
    if ends:
        stream.receive_end()
        sent += judge(stream, guard)
    return sent + last_words(stream)


def last_words(stream: ModeratedStream) -> bytes:
    """What a client that has got a part is told of a failure."""
    failure = stream.failure if stream.outcome is Outcome.FAILED else None
    return b"" if failure is None else stream.encode_failure(failure)


def read(sent: bytes) -> "Read":
    """What any client makes of our events."""
    found = Read()
    for line in sent.decode().split("\n"):
        if not line:
            continue
        assert line.startswith("data: "), line
        if line == "data: [DONE]":
            found.is_done = True
            continue
        event = json.loads(line[6:])
        found.events.append(event)
        if "error" in event:
            found.error = event["error"]
        for choice in event.get("choices", ()):
            found.read_choice(choice)
    return found


@dataclass
class Read:
    texts: dict[tuple[int, str], str] = field(default_factory=dict)
    finish: dict[int, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False
    error: dict[str, Any] | None = None

    def read_choice(self, choice: dict[str, Any]) -> None:
        delta = choice["delta"]
        for name, value in delta.items():
            if isinstance(value, str) and name != "role":
                self._add(choice["index"], name, value)
        for call in delta.get("tool_calls", ()):
            for name in ("name", "arguments"):
                self._add(choice["index"], f"tool_calls.{call['index']}.{name}", call["function"].get(name) or "")
        if choice.get("finish_reason"):
            assert choice["index"] not in self.finish, "a second finish"
            self.finish[choice["index"]] = choice["finish_reason"]

    def _add(self, index: int, name: str, text: str) -> None:
        if text:
            assert index not in self.finish, "text after the finish"
            self.texts[index, name] = self.texts.get((index, name), "") + text

    @property
    def content(self) -> str:
        return self.texts.get((0, "content"), "")


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One chat chunk as bytes."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": [choice]} | more).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def answer(parts: Sequence[str], finish: str = "stop") -> list[bytes]:
    """A whole streamed answer, one chunk a part."""
    role = chunk({"role": "assistant", "content": ""})
    return [role, *(chunk({"content": part}) for part in parts), chunk({}, finish), DONE]


def call(index: int, name: str | None = None, arguments: str = "") -> bytes:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    entry = {"index": index, "function": function} | ({"id": f"call_{index}", "type": "function"} if name else {})
    return chunk({"tool_calls": [entry]})


def body(message: dict[str, object], finish: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish, "logprobs": None}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()
