"""One event of an Anthropic Messages stream -> pieces. A whole body is read as the stream that would say it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adapters.base import Delta, End, Event, Finish, Key, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.metadata import ID, MODEL, WORD, leftovers, matches, read_counts
from adapters.openai_chat_fields import UNKNOWN_NAME
from adapters.strict_json import read_object, write
from adapters.structures import is_signature, whole

CONTENT, REASONING = "content", "reasoning"
MAX_BLOCKS = 512

STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
    }
)
UNKNOWN_STOP_REASON = "end_turn"
# Of a usage object, the words; the rest of it is numbers.
USAGE_WORDS = ("service_tier", "inference_geo", "speed")
BLOCK_TEXTS = {"text": ("text", CONTENT, Kind.CONTENT), "thinking": ("thinking", REASONING, Kind.REASONING)}
BLANKS: Mapping[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
DELTA_TEXTS = {"text_delta": ("text", "text"), "thinking_delta": ("thinking", "thinking")}
MESSAGE_FIELDS = frozenset(
    {"id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage", "stop_details", "container"}
)
TOOL_BLOCKS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
TOOL_FIELDS = frozenset({"type", "id", "name", "input", "server_name"})


class MessagesReader:
    """Reads the events of one response. Keys are choice 0; `source` of a piece is the index of its block."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._blocks: dict[int, str] = {}  # the type of each block so far; "" where it is left out
        self._has_begun = False
        self._objects = 0
        self._is_over = False
        self.dropped = 0

    def read(self, event: Event) -> list[Piece]:
        if self._is_over:
            return []
        said = read_object(event.data)
        if event.type == "error" or said.get("error") or said.get("type") == "error":
            raise UpstreamReportedError("the upstream reports an error")
        return self.take(said)

    def read_body(self, event: Event) -> list[Piece]:
        message = read_object(event.data)
        if message.get("error") or message.get("type") == "error":
            raise UpstreamReportedError("the upstream reports an error")
        return [piece for said in as_stream(message) for piece in self.take(said)]

    def take(self, said: Mapping[str, Any]) -> list[Piece]:
        kind = said.get("type")
        if not isinstance(kind, str):
            raise AdapterError("an event has no type")
        read = READERS.get(kind)
        if read is None:
            self.dropped += kind != "ping"
            return []
        return list(read(self, said))

    def _read_start(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        message = _object(said, "message")
        if self._has_begun:
            self.dropped += 1
            return
        self._has_begun = True
        self.dropped += leftovers(message, MESSAGE_FIELDS) + bool(message.get("content"))
        head: dict[str, Any] = {}
        for name, pattern in (("id", ID), ("model", MODEL)):
            if matches(message.get(name), pattern):
                head[name] = message[name]
            else:
                self.dropped += bool(message.get(name))
        yield Opaque(0, {"message": {**head, "usage": self._usage(message.get("usage"))}})

    def _read_block_start(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        index, block = self._new_index(said), _object(said, "content_block")
        kind = block.get("type")
        if not matches(kind, UNKNOWN_NAME):
            raise AdapterError("a content block has no type")
        self._blocks[index] = kind
        if kind in BLOCK_TEXTS:
            yield from self._read_text_block(index, kind, block)
        elif kind in TOOL_BLOCKS:
            yield from self._read_tool_block(index, kind, block)
        elif kind == "redacted_thinking" and not self._options.allow_unscanned:
            self._blocks[index] = ""  # nothing of it can be read, so nothing of it is said
            self.dropped += 1
        else:
            yield self._whole(f"blocks.{index}", dict(block), index, "start")

    def _read_text_block(self, index: int, kind: str, block: Mapping[str, Any]) -> Iterator[Piece]:
        field, channel, sort = BLOCK_TEXTS[kind]
        yield Opaque(0, {"start": BLANKS[kind]}, index)
        yield from self._text(channel, sort, block.get(field) or "", index)
        if block.get("signature"):
            yield from self._signature(block["signature"], index)
        citations = block.get("citations") or []
        for citation in citations if isinstance(citations, list) else [citations]:
            if isinstance(citation, dict):
                yield from self._unknown_delta({"type": "citations_delta", "citation": citation}, index)
            else:
                self.dropped += 1
        self.dropped += leftovers(block, ("type", field, "signature", "citations"))

    def _read_tool_block(self, index: int, kind: str, block: Mapping[str, Any]) -> Iterator[Piece]:
        """A name is released whole, and with it the block begins: clients make the call from it."""
        name, given = block.get("name"), block.get("input")
        if not isinstance(name, str) or not isinstance(given, dict | None):
            raise AdapterError("a tool call has no name, or its input is no object")
        head = {field: block[field] for field in ("id", "server_name") if matches(block.get(field), ID)}
        self.dropped += leftovers(block, TOOL_FIELDS)
        self.dropped += sum(1 for field in ("id", "server_name") if block.get(field) and field not in head)
        key = Key(0, f"tool_calls.{index}.name")
        extra = {"type": kind, **head}
        blank = {**extra, "name": "", "input": {}}
        yield Delta(key, Kind.NAME, name, index, extra) if name else Opaque(0, {"start": blank}, index)
        if given:
            yield from self._text(f"tool_calls.{index}.arguments", Kind.ARGUMENTS, _json(given), index)

    def _read_delta(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        index, delta = self._known_index(said), _object(said, "delta")
        block, kind = self._blocks[index], delta.get("type")
        if not isinstance(kind, str):
            raise AdapterError("a delta has no type")
        if not block or (kind in DELTA_TEXTS and DELTA_TEXTS[kind][0] != block):
            self.dropped += 1
        elif kind in DELTA_TEXTS:
            field, channel, sort = BLOCK_TEXTS[block]
            yield from self._text(channel, sort, delta.get(field), index)
            self.dropped += leftovers(delta, ("type", field))
        elif kind == "signature_delta" and block == "thinking":
            yield from self._signature(delta.get("signature"), index)
        elif kind == "input_json_delta":
            yield from self._text(f"tool_calls.{index}.arguments", Kind.ARGUMENTS, delta.get("partial_json"), index)
            self.dropped += leftovers(delta, ("type", "partial_json"))
        else:
            yield from self._unknown_delta(dict(delta), index)

    def _unknown_delta(self, delta: dict[str, Any], index: int) -> Iterator[Piece]:
        if matches(delta["type"], UNKNOWN_NAME):
            self._objects += 1
            yield self._whole(f"deltas.{self._objects}", delta, index, "delta")
        else:
            self.dropped += 1

    def _read_block_stop(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        index = self._known_index(said)
        if self._blocks[index]:
            yield Opaque(0, {"stop": True}, index)

    def _read_end(self, said: Mapping[str, Any]) -> Iterator[Piece]:
        delta = _object(said, "delta")
        reason, sequence = delta.get("stop_reason"), delta.get("stop_sequence")
        self.dropped += leftovers(delta, ("stop_reason", "stop_sequence"))
        self.dropped += leftovers(said, ("type", "delta", "usage"))
        usage = self._usage(said.get("usage"))
        if not isinstance(reason, str | None):
            raise AdapterError("a stop reason is not a string")
        if reason is None:
            return
        if reason not in STOP_REASONS:
            self.dropped += 1
            reason = UNKNOWN_STOP_REASON
        if sequence is not None and sequence not in self._options.echo.get("stop_sequences", ()):
            self.dropped += 1
            sequence = None
        yield Finish(0, reason, {"stop_sequence": sequence, "usage": usage})

    def _read_stop(self, _: Mapping[str, Any]) -> Iterator[Piece]:
        self._is_over = True
        yield End()

    def _text(self, channel: str, kind: Kind, text: Any, index: int) -> Iterator[Piece]:
        if not isinstance(text, str):
            raise AdapterError("a text is not a string")
        if text:
            yield Delta(Key(0, channel), kind, text, index)

    def _signature(self, signature: Any, index: int) -> Iterator[Piece]:
        """Without it a thought cannot be sent back. It is no text, and may not look like any."""
        if is_signature(signature):
            yield Opaque(0, {"signature": signature}, index)
        else:
            self.dropped += bool(signature)

    def _whole(self, channel: str, value: dict[str, Any], index: int, place: str) -> Delta:
        key = Key(0, channel)
        delta, dropped = whole(key, value, (index, place), keep_data=self._options.allow_unscanned)
        self.dropped += dropped
        return delta

    def _usage(self, usage: Any) -> dict[str, Any]:
        if not isinstance(usage, dict):
            self.dropped += bool(usage)
            return {}
        words = {name: usage[name] for name in USAGE_WORDS if matches(usage.get(name), WORD)}
        counts, dropped = read_counts({name: value for name, value in usage.items() if name not in words})
        self.dropped += dropped
        return counts | words

    def _new_index(self, said: Mapping[str, Any]) -> int:
        index = said.get("index")
        if type(index) is not int or not 0 <= index < MAX_BLOCKS or index in self._blocks:
            raise AdapterError("the index of a content block is out of bounds, or there twice")
        return index

    def _known_index(self, said: Mapping[str, Any]) -> int:
        index = said.get("index")
        if type(index) is not int or index not in self._blocks:
            raise AdapterError("a content block has not begun")
        return index


READERS: Mapping[str, Callable[[MessagesReader, Mapping[str, Any]], Iterator[Piece]]] = {
    "message_start": MessagesReader._read_start,
    "content_block_start": MessagesReader._read_block_start,
    "content_block_delta": MessagesReader._read_delta,
    "content_block_stop": MessagesReader._read_block_stop,
    "message_delta": MessagesReader._read_end,
    "message_stop": MessagesReader._read_stop,
}


def as_stream(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a stream that says the same."""
    blocks = message.get("content")
    if not isinstance(blocks, list):
        raise AdapterError("a message has no list of content blocks")
    yield {"type": "message_start", "message": {**message, "content": []}}
    for index, block in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield {"type": "content_block_stop", "index": index}
    ending = {name: message[name] for name in ("stop_reason", "stop_sequence") if message.get(name) is not None}
    yield {"type": "message_delta", "delta": {"stop_reason": UNKNOWN_STOP_REASON} | ending}
    yield {"type": "message_stop"}


def _object(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise AdapterError(f"the {name} of an event is not an object")
    return value


def _json(value: dict[str, Any]) -> str:
    try:
        return write(value)
    except (ValueError, RecursionError):
        raise AdapterError("the input of a tool call is not JSON") from None
