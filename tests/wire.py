"""Builders of bytes and events, and readers of what was sent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STREAMS = Path(__file__).parent / "streams"  # recorded from a llama.cpp server with a Gemma model
DONE = "[DONE]"

Said = Mapping[str, Any] | str


def recorded(name: str) -> bytes:
    return (STREAMS / f"{name}.txt").read_bytes()


def chat_chunk(
    content: str | None = None,
    *,
    index: int = 0,
    finish_reason: str | None = None,
    delta: Mapping[str, Any] | None = None,
    logprobs: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """One `chat.completion.chunk`; `delta` joins the content, `more` lies beside the choices."""
    fields = {} if content is None else {"content": content}
    choice = {"index": index, "delta": fields | dict(delta or {}), "logprobs": logprobs, "finish_reason": finish_reason}
    return chunk_of(choice, **more)


def chunk_of(*choices: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "some-model",
        "choices": list(choices),
        **more,
    }


def chat_body(content: str | None = None, *, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """One `chat.completion` of one choice."""
    fields = {"role": "assistant", "content": content, **message}
    return body_of({"index": 0, "message": fields, "logprobs": None, "finish_reason": finish_reason})


def body_of(*choices: Any, **more: Any) -> dict[str, Any]:
    return chunk_of(*choices, **{"object": "chat.completion", **more})


def sse(*events: Said) -> bytes:
    """Each event as one `data` line."""
    texts = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunks_of(sent: bytes) -> list[dict[str, Any]]:
    """The JSON events of a stream of ours, which has one shape alone; `[DONE]` is left out."""
    lines = [line for line in sent.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line[6:] != DONE]


def is_done(sent: bytes) -> bool:
    return sent.endswith(f"data: {DONE}\n\n".encode())


def _choices(sent: bytes, index: int) -> Iterator[dict[str, Any]]:
    for chunk in chunks_of(sent):
        for choice in chunk.get("choices", ()):
            if choice["index"] == index:
                yield choice


def text_of(sent: bytes, name: str = "content", index: int = 0) -> str:
    return "".join(choice["delta"].get(name) or "" for choice in _choices(sent, index))


def finish_reasons_of(sent: bytes, index: int = 0) -> list[str]:
    return [choice["finish_reason"] for choice in _choices(sent, index) if choice["finish_reason"]]


def finish_reason_of(sent: bytes, index: int = 0) -> str | None:
    reasons: Sequence[str] = finish_reasons_of(sent, index)
    assert len(reasons) <= 1, reasons
    return reasons[0] if reasons else None
