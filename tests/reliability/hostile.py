"""Inputs that try to cost much for each of their bytes: requests of clients, and answers of upstreams."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.fakes import framed
from tests.sockets import http_request

PLAIN = framed(b"".join(answer(WORDS)), "chunked", size=1 << 14)
JSON = "application/json"
SAID = {"role": "user", "content": "x"}
OF_A_CHUNK = len(chunk({"content": "x"}))


@dataclass(frozen=True)
class Input:
    """A request, and the answer to it, either of which is the hostile one."""

    request: bytes
    answer: bytes = PLAIN
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the hostile one."""
        return max(len(self.request), len(self.answer) if self.answer is not PLAIN else 0)


# Of so many bytes, about.
Build = Callable[[int], Input]


# Answers.


def streamed(data: bytes, *, size: int = 1 << 14, settings: Mapping[str, Any] | None = None, **asked: Any) -> Input:
    """`size`: of an HTTP chunk."""
    return Input(http_request(stream=True, **asked), framed(data, "chunked", size=size), settings or {})


def in_deltas(*texts: str, size: int = 1 << 14) -> Build:
    """The texts in turn, a chunk each."""

    def build(count: int) -> Input:
        number = count // (OF_A_CHUNK if size > 1 else 6 * OF_A_CHUNK)
        return streamed(b"".join(answer([texts[at % len(texts)] for at in range(number)])), size=size)

    return build


def in_one_delta(text: str, begin: str = "", **settings: Any) -> Build:
    def build(count: int) -> Input:
        each = len(json.dumps(text)) - 2
        return streamed(b"".join(answer([begin + text * (count // each)])), settings=settings)

    return build


def between(part: bytes, end: bytes = b"") -> Build:
    """The same bytes again and again, before the text."""
    first, *rest = answer(WORDS)
    return lambda count: streamed(first + part * (count // len(part)) + end + b"".join(rest))


def within(begin: bytes, part: bytes, end: bytes) -> Build:
    """One event, with the same bytes again and again."""
    first, *rest = answer(WORDS)

    def build(count: int) -> Input:
        inside = b",".join([part] * (1 + count // (len(part) + 1)))
        return streamed(first + b"data: " + begin + inside + end + b"\n\n" + b"".join(rest))

    return build


def in_calls(most: int, *, in_turn: bool) -> Build:
    """Arguments of one character, a chunk each."""

    def build(count: int) -> Input:
        number = count // len(call(0, None, "1"))
        calls = min(most, 1 + number // 4)
        order = (at % calls if in_turn else at * calls // number for at in range(number))
        begun = [call(at, "f") for at in range(calls)]
        return streamed(b"".join([*begun, *(call(at, None, "1") for at in order), chunk({}, "tool_calls"), DONE]))

    return build


def in_choices(number: int) -> Build:
    """Of each a character in every event."""

    def build(count: int) -> Input:
        choices = [
            {"index": at, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None} for at in range(number)
        ]
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        event = b"data: " + json.dumps(head | {"choices": choices}).encode() + b"\n\n"
        ends = b"".join(chunk({}, "stop", index=at) for at in range(number))
        data = event * (count // len(event)) + ends + DONE
        return streamed(data, settings={"server__max_choices": number}, n=number)

    return build


def alternating(count: int) -> Input:
    """Three texts of a choice in turn, each of which ends the one before."""
    kinds = ("content", "refusal", "reasoning_content")
    events = [chunk({kinds[at % 3]: "a"}) for at in range(count // OF_A_CHUNK)]
    return streamed(b"".join([*events, chunk({}, "stop"), DONE]))


def as_body(part: Any, name: str = "content", finish: str = "stop") -> Build:
    """An answer that is no stream: `part` again and again."""

    def build(count: int) -> Input:
        many = part * max(1, count // len(json.dumps(part)))
        return Input(http_request(), framed(body({"content": "x", name: many}, finish), "length", JSON))

    return build


CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}
ANSWERS: dict[str, Build] = {
    "words": in_deltas(" word", " other", ", the"),
    "a run of a letter": in_deltas("a"),
    "combining marks": in_deltas("\u0301"),
    "spaces": in_deltas(" "),
    "line ends": in_deltas("\n"),
    "spaces and line ends": in_deltas(" ", "\n"),
    "signs": in_deltas("="),
    "joined pictures": in_deltas("\U0001f469\u200d"),
    "tags": in_deltas("\U000e0041"),
    "escapes in JSON": in_deltas('{"a":"', *["\\u0061"] * 5000),
    "HTTP chunks of a byte": in_deltas(" word", size=1),
    "a long run of a letter": in_one_delta("a"),
    "a long run of spaces": in_one_delta(" "),
    "many marks on a letter": in_one_delta("\u0301", "a"),
    "many tags": in_one_delta("\U000e0041"),
    "many escapes in JSON": in_one_delta("\\u0061", '{"a":"'),
    "look-alikes, folded": in_one_delta("\u0430b\u200b", guard__folded_view=True),
    "120 calls in turn": in_calls(120, in_turn=True),
    "120 calls": in_calls(120, in_turn=False),
    "one call": in_calls(1, in_turn=True),
    "128 choices": in_choices(128),
    "three channels in turn": alternating,
    "comments": between(b":\n"),
    "empty lines": between(b"\n"),
    "carriage returns": between(b"\r"),
    "data in pieces": between(b"data:\n", b"\n"),
    "events without choices": between(b'data: {"choices":[]}\n\n'),
    "the shortest deltas": between(b'data:{"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'),
    "an event of choices": within(b'{"choices":[', b'{"index":0,"delta":{"content":"a"}}', b"]}"),
    "an event of calls": within(b'{"choices":[{"index":0,"delta":{"tool_calls":[', json.dumps(CALL).encode(), b"]}}]}"),
    "an event of lists": within(b'{"choices":[],"x":[', b"[]", b"]}"),
    "a deep event": lambda count: streamed(b'data: {"x":' + b"[" * count + b"\n\n"),
    "a body of words": as_body("the other word, "),
    "a body of control characters": as_body("\x01"),
    "a body of lists": as_body([[]], "x"),
}


# Requests.


def chat(**fields: Any) -> Input:
    data = json.dumps({"model": "m", "stream": True, "messages": [SAID], **fields}, ensure_ascii=False).encode()
    return Input(http_request(data))


def prompt(text: str, begin: str = "") -> Build:
    """One message that says it again and again."""
    each = len(text.encode())
    return lambda count: chat(messages=[{"role": "user", "content": begin + text * (count // each)}])


def scattered(first: int, last: int) -> Build:
    """A message of characters of this range, none of which has a token of its own beside the others."""

    def build(count: int) -> Input:
        dice = random.Random(7)
        number = count // len(chr(last).encode())
        return chat(
            messages=[{"role": "user", "content": "".join(chr(dice.randint(first, last)) for _ in range(number))}]
        )

    return build


def values(part: bytes, most: int = 190_000) -> Build:
    """A field of so many values as are let in."""
    head = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}],"metadata":['
    return lambda count: Input(http_request(head + b",".join([part] * min(count // len(part), most)) + b"]}"))


def repeated(part: bytes) -> Build:
    """A body that is not read to its end."""
    return lambda count: Input(http_request(part * (count // len(part))))


def many(value: Any, most: int = 4090) -> Callable[[int], list[Any]]:
    return lambda count: [value] * min(count // len(json.dumps(value)), most)


def in_drops(count: int) -> Input:
    """A body in HTTP chunks of one byte."""
    head, _, content = http_request(stream=True).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    drops = b"".join(b"1\r\n%c\r\n" % byte for byte in content + b" " * (count // 6)) + b"0\r\n\r\n"
    return Input(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + drops)


REQUESTS: dict[str, Build] = {
    "a prompt of words": prompt("the other word, "),
    "a prompt of one letter": prompt("a"),
    "a prompt of spaces": prompt(" "),
    "a prompt of marks": prompt("\u0301", "a"),
    "a prompt of mixed marks": prompt("\u0301\u0327", "a"),
    "a prompt of tags": prompt("\U000e0041"),
    "a prompt of control characters": prompt("\x01"),
    "a wide prompt": prompt("a", "\U00020000"),
    "a prompt without words": scattered(97, 122),
    "a prompt of rare signs": scattered(0x4E00, 0x9FFF),
    "a prompt beyond the basic plane": scattered(0x20000, 0x2A6D0),
    "lists": values(b"[]"),
    "lists in lists": values(b"[" * 50 + b"]" * 50, 3900),
    "objects": values(b"{}"),
    "objects of a key": values(b'{"":0}', 60_000),
    "numbers": values(b"1.5"),
    "long numbers": values(b"9" * 4000),
    "short texts": values(b'"ab"'),
    "a list of zeros": repeated(b"0,"),
    "open brackets": repeated(b"["),
    "white space": lambda count: Input(
        http_request(http_request(stream=True).partition(b"\r\n\r\n")[2] + b" " * count)
    ),
    "keys": lambda count: chat(logit_bias={str(at): 1 for at in range(count // 12)}),
    "messages": lambda count: chat(messages=many(SAID)(count)),
    "parts": lambda count: chat(messages=[{"role": "user", "content": many({"type": "text", "text": "x"})(count)}]),
    "calls of the past": lambda count: chat(
        messages=[SAID, {"role": "assistant", "content": None, "tool_calls": many(CALL, 120)(count)}]
    ),
    "drops": in_drops,
}
CORPUS: dict[str, Build] = {**ANSWERS, **REQUESTS}
