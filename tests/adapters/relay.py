"""A relay that releases everything: what an adapter reads, it writes again."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from adapters.base import Adapter, Delta, End, Event, Finish, Note, Piece, Report
from proxy.sse import encode_event
from tests.wire import Said

UNKNOWN = Report()


def event_of(said: Said) -> Event:
    return Event(said if isinstance(said, str) else json.dumps(said))


def decoded(adapter: Adapter, *events: Said) -> list[Piece]:
    return [piece for event in events for piece in adapter.decode(event_of(event))]


def written(adapter: Adapter, pieces: Iterable[Piece], note: Note | None = None, report: Report = UNKNOWN) -> bytes:
    sent = b""
    for piece in pieces:
        if isinstance(piece, Finish):
            events = adapter.encode_finish(piece, report)
        elif isinstance(piece, End):
            events = adapter.encode_end()
        else:
            events = adapter.encode(piece, note if isinstance(piece, Delta) else None)
        sent += b"".join(encode_event(event) for event in events)
    return sent


def relayed(adapter: Adapter, *events: Said, note: Note | None = None, report: Report = UNKNOWN) -> bytes:
    return written(adapter, decoded(adapter, *events), note, report)


def texts_of(pieces: Iterable[Piece], choice: int = 0) -> dict[str, str]:
    """The text of each channel."""
    texts: dict[str, str] = {}
    for piece in pieces:
        if isinstance(piece, Delta) and piece.key.choice == choice:
            texts[piece.key.channel] = texts.get(piece.key.channel, "") + piece.text
    return texts


def body_sent(sent: bytes) -> dict[str, Any]:
    """The one body that was sent."""
    body: dict[str, Any] = json.loads(sent.removeprefix(b"data: "))
    return body


def choice_of(body: Mapping[str, Any], index: int = 0) -> dict[str, Any]:
    choice: dict[str, Any] = body["choices"][index]
    assert choice["index"] == index
    return choice


def added_up(chunks: Iterable[Mapping[str, Any]]) -> dict[int, Any]:
    """What openai-python makes of a stream."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=chunk))  # type: ignore[arg-type]
    snapshot = state.current_completion_snapshot.model_dump(warnings=False)
    return {
        choice["index"]: {
            "finish_reason": choice["finish_reason"],
            "texts": {name: choice["message"].get(name) or "" for name in ("content", "refusal", "reasoning_content")},
            "calls": [
                (call["id"], call["type"], call["function"]["name"], call["function"]["arguments"])
                for call in choice["message"].get("tool_calls") or []
            ],
        }
        for choice in snapshot["choices"]
    }
