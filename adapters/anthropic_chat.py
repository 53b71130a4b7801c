"""An answer of Anthropic's Messages, told in chat.

| Anthropic                               | chat                                                   |
|-----------------------------------------|--------------------------------------------------------|
| text_delta                              | content                                                |
| thinking_delta                          | reasoning_content                                      |
| tool_use, input_json_delta              | tool_calls: id, name, arguments                        |
| usage                                   | usage; what was read from a cache is a part of it      |
| stop_reason                             | finish_reason, and native_finish_reason as it was      |
| any other block, delta or event         | left out and counted                                   |

Format: https://docs.anthropic.com/en/api/messages-streaming
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adapters.anthropic_messages_reader import CONTENT, REASONING, MessagesReader
from adapters.base import Delta, End, Event, Finish, Kind, Opaque, Options, Piece
from adapters.metadata import is_count
from adapters.translation import Chunk, TranslatedBody, TranslatedStream

FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
FIELDS: Mapping[str, str] = {CONTENT: "content", REASONING: "reasoning_content"}
# Counts of the prompt: what was sent, what was written to a cache, and what was read from one.
PROMPT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class AnthropicTranslator:
    """The reader of Messages knows the dialect; this one says its pieces in chat."""

    def __init__(self, options: Options) -> None:
        self._reader = MessagesReader(options)
        self._head: Chunk = {}
        self._counts: dict[str, Any] = {}
        self._calls: dict[int, int] = {}  # the index of a tool's block -> the index of its call
        self._said: set[int] = set()  # the blocks of calls that have arguments
        self._dropped = 0
        self.is_over = False

    @property
    def dropped(self) -> int:
        return self._dropped + self._reader.dropped

    def read(self, event: Event) -> Iterator[Chunk]:
        return self._told(self._reader.read(event))

    def read_body(self, event: Event) -> Iterator[Chunk]:
        return self._told(self._reader.read_body(event))

    def _told(self, pieces: list[Piece]) -> Iterator[Chunk]:
        for piece in pieces:
            if isinstance(piece, End):
                self.is_over = True
            elif isinstance(piece, Finish):
                yield self._finish(piece)
            elif isinstance(piece, Opaque):
                yield from self._tell_opaque(piece)
            else:
                yield from self._tell(piece)

    def _tell(self, piece: Delta) -> Iterator[Chunk]:
        if tell := TELLERS.get(piece.kind):
            yield from tell(self, piece)
        else:
            self._dropped += 1  # a value of the provider's own, for which chat has no place

    def _tell_text(self, piece: Delta) -> Iterator[Chunk]:
        yield self._chunk({FIELDS[piece.key.channel]: piece.text})

    def _tell_name(self, piece: Delta) -> Iterator[Chunk]:
        """A call of a tool of the provider's own is not the client's to make."""
        if piece.extra["type"] != "tool_use":
            self._dropped += 1
            return
        index = self._calls[piece.source] = len(self._calls)
        function = {"name": piece.text}
        yield self._call({"index": index, "id": piece.extra.get("id"), "type": "function", "function": function})

    def _tell_arguments(self, piece: Delta) -> Iterator[Chunk]:
        if piece.source not in self._calls:
            self._dropped += 1
            return
        self._said.add(piece.source)
        yield self._arguments(piece.source, piece.text)

    def _tell_opaque(self, piece: Opaque) -> Iterator[Chunk]:
        if head := piece.payload.get("message"):
            self._counts = dict(head["usage"])
            self._head = {name: head[name] for name in ("id", "model") if name in head}
            yield self._chunk({"role": "assistant", "content": None, "refusal": None})
        elif "stop" in piece.payload and piece.source in self._calls.keys() - self._said:
            yield self._arguments(piece.source, "{}")  # clients read the arguments as JSON, which "" is not

    def _arguments(self, block: int, text: str) -> Chunk:
        return self._call({"index": self._calls[block], "function": {"arguments": text}})

    def _call(self, call: dict[str, Any]) -> Chunk:
        return self._chunk({"tool_calls": [call]})

    def _chunk(self, delta: dict[str, Any]) -> Chunk:
        return {**self._head, "choices": [{"index": 0, "delta": delta}]}

    def _finish(self, piece: Finish) -> Chunk:
        choice = {"finish_reason": FINISH_REASONS[piece.reason], "native_finish_reason": piece.reason}
        counted = usage_of({**self._counts, **piece.source["usage"]})
        return {**self._head, "choices": [{"index": 0, "delta": {}, **choice}], **counted}


TELLERS: Mapping[Kind, Callable[[AnthropicTranslator, Delta], Iterator[Chunk]]] = {
    Kind.CONTENT: AnthropicTranslator._tell_text,
    Kind.REASONING: AnthropicTranslator._tell_text,
    Kind.NAME: AnthropicTranslator._tell_name,
    Kind.ARGUMENTS: AnthropicTranslator._tell_arguments,
}


def usage_of(counts: Mapping[str, Any]) -> dict[str, Any]:
    """{"usage": ...} in the words of chat, or nothing where nothing was counted."""
    prompt = sum(_number(counts.get(name)) for name in PROMPT_COUNTS)
    completion = _number(counts.get("output_tokens"))
    if not prompt and not completion:
        return {}
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached := _number(counts.get("cache_read_input_tokens")):
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    details = counts.get("output_tokens_details")
    if isinstance(details, dict) and (thought := _number(details.get("thinking_tokens"))):
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return {"usage": usage}


def _number(value: Any) -> int:
    return value if is_count(value) else 0


class AnthropicChatStream(TranslatedStream):
    translator = AnthropicTranslator


class AnthropicChatBody(TranslatedBody):
    translator = AnthropicTranslator
