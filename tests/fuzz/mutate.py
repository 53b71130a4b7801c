"""Bytes from bytes: cut, repeat, join, flip, and put in what parsers trip over. The same seed gives the same."""

import random
from collections.abc import Callable, Sequence

MAX_BYTES = 4096
TOKENS = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\x00", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"data: ", b"data:", b"event: error\n", b"id: 1\n", b"retry: 1\n", b": ", b"[DONE]", b"data: [DONE]\n\n",
    b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0000", b"\\ud83d", b"\\ude00", b"null", b"true", b"NaN", b"-0", b"1e400",
    b"18446744073709551616", b"-1", b"0.1", b'"canary"', b"canary", b"1" * 400, b"[" * 80, b'{"a":' * 40,
    b'"choices"', b'"delta"', b'"content"', b'"index"', b'"finish_reason"', b'"tool_calls"', b'"type"', b'"error"',
    b'"messages"', b'"role"', b'"stream"', b'"n"', b"<|im_end|>", b"<think>", "e\u0301".encode(), "\u200b".encode(),
    "\U000e0041".encode(), "\u2028".encode(), b"HTTP/1.1", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
]  # fmt: skip


def mutate(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A new input from one or two of the corpus."""
    data = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        data = rng.choice(CHANGES)(rng, data, corpus)[:MAX_BYTES]
    return data


def span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 64)))


def put(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at:]


def remove(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = span(rng, data)
    return data[:start] + data[end:]


def repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 30)) + data[end:]


def flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def join(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = rng.choice(corpus)
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def swap(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = span(rng, data)
    return data[:start] + rng.choice(TOKENS) + data[end:]


Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
CHANGES: tuple[Change, ...] = (put, put, remove, repeat, flip, join, swap)
