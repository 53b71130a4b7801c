"""Every field of a chat message in which text travels, as pieces.

The same reader serves a chunk's `delta` and a body's `message`: they differ in the name alone.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from adapters.base import Delta, Key, Kind, Opaque, Options, Piece
from adapters.errors import AdapterError
from adapters.metadata import ID, index_of, is_count, leftovers, matches
from adapters.openai_chat_calls import TOOL_TEXTS, CallBook
from adapters.openai_chat_logprobs import pair
from adapters.strict_json import write

MAX_UNKNOWN_CHANNELS = 16  # of one response: each is a text that the guard must follow
BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
UNKNOWN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

ROLES = frozenset({"assistant", "developer", "system", "tool", "user"})
# Fields that clients expect to find, if only as null, where the upstream's message had them so.
NULLABLE = (
    "content",
    "refusal",
    "reasoning_content",
    "reasoning",
    "annotations",
    "audio",
    "function_call",
    "tool_calls",
)

# A part of a list of content: its type -> (the field of its text, the channel that it belongs to).
# Mistral's thinking joins the field in which the other dialects' clients look for reasoning.
PARTS: Mapping[str, tuple[str, str]] = {
    "text": ("text", "content"),
    "refusal": ("refusal", "refusal"),
    "thinking": ("thinking", "reasoning_content"),
}
KINDS: Mapping[str, Kind] = {"reasoning_content": Kind.REASONING, "reasoning": Kind.REASONING}

CALL_FIELDS = frozenset({"index", "id", "type", "extra_content", *TOOL_TEXTS})
PART_FIELDS = frozenset({"type", "index"})
DETAIL_TEXTS = ("text", "summary")
DETAIL_FIELDS = frozenset({"type", "index", "id", "format", *DETAIL_TEXTS})
AUDIO_FIELDS = frozenset({"id", "expires_at", "data", "transcript"})
LOGPROB_CHANNELS = ("content", "refusal")


def _json_text(value: dict[str, Any]) -> str:
    try:
        return write(value)
    except (ValueError, RecursionError):
        raise AdapterError("the arguments of a tool call are not JSON") from None


@lru_cache(maxsize=1024)
def key_of(choice: int, channel: str) -> Key:
    """For short names: nearly always the same object for the same text, known again faster than an equal one."""
    return Key(choice, channel)


class FieldReader:
    """Reads the messages of one response, choice by choice."""

    def __init__(self, options: Options) -> None:
        self.calls = CallBook()
        self._dropped = 0
        self._allow_unscanned = options.allow_unscanned
        self._introduced: set[int] = set()  # choices whose role is known
        self._unknown: set[Key] = set()
        self._choice = 0
        self._source: Any = None
        self._pieces: list[Piece] = []

    @property
    def dropped(self) -> int:
        return self._dropped + self.calls.dropped

    def read(self, choice: int, fields: Mapping[str, Any], source: Any) -> list[Piece]:
        self._choice, self._source, self._pieces = choice, source, []
        if "role" in fields and choice not in self._introduced:
            self._read_role(fields)
        for name, read in READERS.items():
            if value := fields.get(name):
                read(self, name, value)
        if not fields.keys() <= KNOWN_FIELDS:
            self._read_unknown(fields)
        if audio := fields.get("audio"):
            self._read_audio(audio)
        return self._pieces

    def attach_logprobs(self, pieces: list[Piece], logprobs: Any) -> None:
        """Put the entries beside the text that they repeat, in place."""
        if not isinstance(logprobs, dict):
            self._dropped += 1
            return
        for channel in LOGPROB_CHANNELS:
            if entries := logprobs.get(channel):
                self._attach(pieces, channel, entries)
        self._dropped += leftovers(logprobs, LOGPROB_CHANNELS)

    def _attach(self, pieces: list[Piece], channel: str, entries: Any) -> None:
        places = [i for i, piece in enumerate(pieces) if isinstance(piece, Delta) and piece.key.channel == channel]
        if len(places) != 1:
            self._dropped += len(entries) if isinstance(entries, list) else 1
            return
        delta = pieces[places[0]]
        assert isinstance(delta, Delta)
        paired, dropped = pair(entries, delta.text, self._allow_unscanned)
        self._dropped += dropped
        pieces[places[0]] = delta.beside(paired)

    def _add(self, channel: str, kind: Kind, text: str, extra: Mapping[str, Any] | None = None) -> None:
        if text:
            key = key_of(self._choice, channel)
            self._pieces.append(Delta(key, kind, text, self._source, extra or {}))

    def _read_role(self, fields: Mapping[str, Any]) -> None:
        role = fields["role"]
        if not role:
            return
        if not isinstance(role, str) or role not in ROLES:
            self._dropped += 1
            role = "assistant"
        self._introduced.add(self._choice)
        blanks = {name: fields[name] for name in NULLABLE if name in fields and fields[name] in (None, "", [])}
        self._pieces.append(Opaque(self._choice, {"role": role, **blanks}, self._source))

    def _read_text(self, name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise AdapterError(f"{name} is a JSON {type(value).__name__}, not text")
        self._add(name, KINDS.get(name, Kind.CONTENT), value)

    def _read_reasoning(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            self._add(name, Kind.REASONING, value)
        else:
            self._dropped += 1  # some gateways put an object of settings under this name

    def _read_content(self, name: str, value: Any) -> None:
        if not isinstance(value, list):
            return self._read_text(name, value)
        for part in value:
            self._read_part(part)
        return None

    def _read_part(self, part: Any) -> None:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in PARTS:
            self._dropped += 1
            return
        field, channel = PARTS[kind]
        self._dropped += leftovers(part, PART_FIELDS | {field})
        value = part.get(field)
        if isinstance(value, str):
            self._add(channel, KINDS.get(channel, Kind.CONTENT), value)
        elif isinstance(value, list):  # Mistral: a thinking part is a list of text parts
            for inner in value:
                text = inner.get("text") if isinstance(inner, dict) else None
                if isinstance(text, str):
                    self._add(channel, KINDS.get(channel, Kind.CONTENT), text)
                else:
                    self._dropped += 1
        else:
            self._dropped += bool(value)

    def _read_details(self, name: str, value: Any) -> None:
        """OpenRouter's `reasoning_details`. What is encrypted or signed cannot be judged and stays out."""
        for position, detail in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(detail, dict):
                self._dropped += 1
                continue
            index = index_of(detail.get("index"), position)
            extra = {
                field: detail[field]
                for field, pattern in (("id", ID), ("format", ID))
                if matches(detail.get(field), pattern)
            }
            for field in DETAIL_TEXTS:
                text = detail.get(field)
                if isinstance(text, str):
                    self._add(f"{name}.{index}.{field}", Kind.REASONING, text, extra)
                else:
                    self._dropped += bool(text)
            self._dropped += leftovers(detail, DETAIL_FIELDS)

    def _read_function_call(self, name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise AdapterError("function_call is not an object")
        self._read_named(name, value, "arguments", Kind.ARGUMENTS)

    def _read_named(self, channel: str, body: Mapping[str, Any], field: str, kind: Kind) -> None:
        """A name and the text that follows it, of a tool call or of its ancestor `function_call`."""
        name, text = body.get("name"), body.get(field)
        if isinstance(text, dict):
            text = _json_text(text)  # some servers send the arguments as an object
        if not isinstance(name, str | None) or not isinstance(text, str | None):
            raise AdapterError("the name or the text of a tool call is not a string")
        self._add(f"{channel}.name", Kind.NAME, name or "")
        self._add(f"{channel}.{field}", kind, text or "")
        self._dropped += leftovers(body, ("name", field))

    def _read_tool_calls(self, name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise AdapterError("tool_calls is not a list")
        for position, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise AdapterError("a tool call is not an object")
            call = self.calls.enter(self._choice, entry, position)
            for part, (field, kind) in TOOL_TEXTS.items():
                if body := entry.get(part):
                    if not isinstance(body, dict):
                        raise AdapterError(f"the {part} of a tool call is not an object")
                    self._read_named(f"{name}.{call.index}", body, field, kind)
            self._dropped += leftovers(entry, CALL_FIELDS)

    def _read_unknown(self, fields: Mapping[str, Any]) -> None:
        """A string in a place that we do not know may be text: it is judged like text."""
        for name, value in fields.items():
            if name in KNOWN_FIELDS or not value:
                continue
            key = Key(self._choice, f"delta.{name}")
            if isinstance(value, str) and UNKNOWN_NAME.fullmatch(name) and self._may_open(key):
                self._add(key.channel, Kind.CONTENT, value)
            else:
                self._dropped += 1

    def _may_open(self, key: Key) -> bool:
        if len(self._unknown) < MAX_UNKNOWN_CHANNELS:
            self._unknown.add(key)
        return key in self._unknown

    def _read_audio(self, audio: Any) -> None:
        if not isinstance(audio, dict):
            raise AdapterError("audio is not an object")
        transcript = audio.get("transcript")
        if not isinstance(transcript, str | None):
            raise AdapterError("an audio transcript is not text")
        checks: dict[str, bool] = {
            "id": matches(audio.get("id"), ID),
            "expires_at": is_count(audio.get("expires_at")),
            "data": self._allow_unscanned and matches(audio.get("data"), BASE64),
        }
        passed = {name: audio[name] for name, is_good in checks.items() if is_good}
        self._dropped += sum(1 for name in checks if audio.get(name) and name not in passed)
        self._dropped += leftovers(audio, AUDIO_FIELDS)
        if passed:
            self._pieces.append(Opaque(self._choice, {"audio": passed}, self._source))
        self._add("audio.transcript", Kind.CONTENT, transcript or "")


# The order of the pieces of one event: reasoning is thought before it is said, and said before done.
READERS: Mapping[str, Callable[[FieldReader, str, Any], None]] = {
    "reasoning_content": FieldReader._read_reasoning,
    "reasoning": FieldReader._read_reasoning,
    "reasoning_details": FieldReader._read_details,
    "content": FieldReader._read_content,
    "refusal": FieldReader._read_text,
    "function_call": FieldReader._read_function_call,
    "tool_calls": FieldReader._read_tool_calls,
}
KNOWN_FIELDS = frozenset({"role", "audio", *READERS})
