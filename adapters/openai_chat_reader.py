"""One chat event -> pieces, for a stream's chunks and for a whole body alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from adapters.base import Delta, End, Event, Finish, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError, UpstreamReportedError
from adapters.metadata import ENVELOPE_FIELDS, WORD, Envelope, EnvelopeReader, leftovers, matches, read_counts
from adapters.openai_chat_fields import FieldReader, key_of
from adapters.openai_chat_plain import decode_plain
from adapters.openai_chat_repeats import Repeats
from adapters.strict_json import read_object


@dataclass(frozen=True, slots=True)
class Shape:
    """In what a stream's chunk and a whole body differ."""

    object: str
    message: str  # where a choice keeps its fields
    is_whole: bool
    id_prefix: str = "chatcmpl"


CHUNK = Shape("chat.completion.chunk", "delta", is_whole=False)
BODY = Shape("chat.completion", "message", is_whole=True)

COUNTS = ("usage", "timings")
# Rebuilt by us or of no use once the text is rewritten; none of it is worth a word in the record.
IGNORED = ("obfuscation", "prompt_filter_results", "moderation")
CHUNK_FIELDS = frozenset({"object", "choices", *ENVELOPE_FIELDS, *COUNTS, *IGNORED})
CHOICE_FIELDS = frozenset(
    {
        "index",
        "finish_reason",
        "native_finish_reason",
        "logprobs",
        "content_filter_results",
        "content_filter_offsets",
        "content_filter_result",
    }
)


# What clients understand, and a few servers' own words for the same.
FINISH_REASONS: Mapping[str, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "max_tokens": "length",
    "model_length": "length",
}
UNKNOWN_FINISH_REASON = "stop"
FAILED_FINISH_REASONS = frozenset({"error", "insufficient_system_resource", "abort"})


# Asked for with each chunk; a look into the enum takes 0.15 us in Python 3.11.
_CONTENT: Final = Kind.CONTENT


class ChatReader:
    """Reads the events of one response."""

    def __init__(self, options: Options, shape: Shape) -> None:
        self._options = options
        self._choices = options.choices
        self._shape = shape
        self._choice_fields = CHOICE_FIELDS | {shape.message}
        self._fields = FieldReader(options)
        self._envelopes = EnvelopeReader(options, shape.object, shape.id_prefix)
        self._finished: set[int] = set()
        self._repeats = Repeats()
        # Of the event that is repeated.
        self._key = key_of(0, "content")
        self._raw: tuple[Any, ...] = ()
        self._counts: dict[str, Any] = {}  # the newest, not yet sent on
        self._dropped = 0
        self._is_over = False
        self._expects_plain = False  # to try it for what is something else is time lost
        self.native_reasons: dict[int, str] = {}
        self.calls = self._fields.calls

    @property
    def dropped(self) -> int:
        return self._dropped + self._fields.dropped + self._envelopes.dropped

    def envelope(self) -> Envelope:
        return self._envelopes.current()

    def read(self, event: Event) -> list[Piece]:
        if self._is_over:
            return []
        if self._expects_plain and not event.type and (plain := self._read_plain(event.data)) is not None:
            return [plain]
        chunk = read_object(event.data)
        _refuse_error(chunk, event.type)
        pieces = self.take(chunk)
        self._expects_plain = self._shape is CHUNK and len(pieces) == 1 and isinstance(pieces[0], Delta | Opaque)
        return pieces

    def take(self, chunk: dict[str, Any]) -> list[Piece]:
        choices = self._read_choices(chunk)
        source = self._envelopes.read(chunk, is_kept=bool(choices) or any(chunk.get(name) for name in COUNTS))
        pieces: list[Piece] = []
        for choice in choices:
            pieces += self._read_choice(choice, source)
        if not chunk.keys() <= CHUNK_FIELDS:
            self._dropped += leftovers(chunk, CHUNK_FIELDS)
        if chunk.get("usage") or chunk.get("timings"):
            self._read_counts(chunk)
        if self._shape.is_whole:
            return pieces + self.end()
        # Servers that count in every chunk send sums: only the last one is worth a place.
        if self._counts and (not choices or len(self._finished) == self._choices):
            pieces.append(self._flush(source))
        return pieces

    def _read_plain(self, data: str) -> Delta | None:
        """The one delta of an event that says nothing else, as nearly all do; the long way reads it alike."""
        text = self._repeats.read(data)
        if text is None:
            return self._read_whole(data)
        if not text or self._key.choice in self._finished:
            return None
        return Delta(self._key, _CONTENT, text, self._envelopes.read_fields(self._raw, is_kept=True))

    def _read_whole(self, data: str) -> Delta | None:
        try:
            chunk = decode_plain(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        choice = chunk.choices[0]
        index, text = choice.index, choice.delta.content
        if type(index) is not int or not 0 <= index < self._choices or index in self._finished:
            return None
        if not text or chunk.object != CHUNK.object or chunk.usage:
            return None
        key, raw = key_of(index, "content"), chunk.envelope
        if self._repeats.learn(data):
            self._key, self._raw = key, raw
        return Delta(key, _CONTENT, text, self._envelopes.read_fields(raw, is_kept=True))

    def end(self) -> list[Piece]:
        if self._is_over:
            return []
        self._is_over = True
        counts: list[Piece] = [self._flush(self.envelope())] if self._counts else []
        return [*counts, End()]

    def _read_choices(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        choices = chunk.get("choices")
        if choices is None and any(isinstance(chunk.get(name), dict) for name in COUNTS):
            return []
        if not isinstance(choices, list):
            raise AdapterError("an event has no list of choices")
        seen: set[int] = set()
        for choice in choices:
            if not isinstance(choice, dict):
                raise AdapterError("a choice is not an object")
            index = choice.get("index")
            if type(index) is not int or not 0 <= index < self._choices:
                raise AdapterError("the index of a choice is out of bounds")
            if index in seen and self._shape.is_whole:
                raise AdapterError("a choice is there twice")
            seen.add(index)
        return choices

    def _read_choice(self, choice: dict[str, Any], source: Envelope) -> list[Piece]:
        if choice.get("error"):
            raise UpstreamReportedError("the upstream reports an error in a choice")
        index: int = choice["index"]
        pieces = self._fields.read(index, self._fields_of(choice), source)
        if logprobs := choice.get("logprobs"):
            self._attach_logprobs(pieces, logprobs)
        if not choice.keys() <= self._choice_fields:
            self._dropped += leftovers(choice, self._choice_fields)
        return self._read_finish(index, choice, pieces, source)

    def _fields_of(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        fields = choice.get(self._shape.message)
        if not isinstance(fields, dict | None):
            raise AdapterError(f"the {self._shape.message} of a choice is not an object")
        fields = fields or {}
        if self._shape.is_whole:
            fields.setdefault("role", "assistant")
        return fields

    def _attach_logprobs(self, pieces: list[Piece], logprobs: Any) -> None:
        self._fields.attach_logprobs(pieces, logprobs)

    def _read_finish(self, index: int, choice: Mapping[str, Any], pieces: list[Piece], source: Envelope) -> list[Piece]:
        if index in self._finished:  # nothing is said after the end
            self._dropped += sum(1 for piece in pieces if isinstance(piece, Delta))
            return []
        reason = choice.get("finish_reason") or (UNKNOWN_FINISH_REASON if self._shape.is_whole else None)
        if reason is None:
            return pieces
        if not isinstance(reason, str):
            raise AdapterError("a finish reason is not a string")
        if reason in FAILED_FINISH_REASONS:
            raise UpstreamReportedError("the upstream reports that a choice failed")
        self._finished.add(index)
        self._dropped += reason not in FINISH_REASONS
        native = choice.get("native_finish_reason")
        if matches(native, WORD):
            self.native_reasons[index] = native
        else:
            self._dropped += bool(native)
        return [*pieces, Finish(index, FINISH_REASONS.get(reason, UNKNOWN_FINISH_REASON), source)]

    def _read_counts(self, chunk: Mapping[str, Any]) -> None:
        for name in COUNTS:
            value = chunk.get(name)
            if isinstance(value, dict):
                self._counts[name], dropped = read_counts(value)
                self._dropped += dropped
            else:
                self._dropped += bool(value)

    def _flush(self, source: Envelope) -> Opaque:
        counts, self._counts = self._counts, {}
        return Opaque(None, counts, source)


def _refuse_error(chunk: Mapping[str, Any], event_type: str) -> None:
    if chunk.get("error") or chunk.get("object") == "error" or event_type == "error":
        raise UpstreamReportedError("the upstream reports an error")
