"""Which tool call a fragment belongs to, and what a client must know when a call begins."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.base import Key, Kind
from adapters.metadata import ID, index_of, leftovers, matches
from adapters.structures import is_signature

# What may hang in a call: the field of its text, and what sort of text that is.
TOOL_TEXTS: Mapping[str, tuple[str, Kind]] = {
    "function": ("arguments", Kind.ARGUMENTS),
    "custom": ("input", Kind.CONTENT),
}
# The other way round: "arguments" -> "function".
TOOL_TYPES: Mapping[str, str] = {field: kind for kind, (field, _) in TOOL_TEXTS.items()}


@dataclass(slots=True)
class ToolCall:
    """The identity of a call. Clients need all of it in the first chunk of the call."""

    index: int
    id: str = ""
    type: str = "function"
    signature: str = ""  # Gemini's, over the thought behind the call: it wants it back with the call
    is_announced: bool = False

    def announce(self) -> dict[str, Any]:
        """What the first chunk says; a call without a usable id gets one of ours."""
        self.is_announced = True
        self.id = self.id or f"call_{secrets.token_hex(12)}"
        signed = {"extra_content": {"google": {"thought_signature": self.signature}}} if self.signature else {}
        return {"id": self.id, "type": self.type, **signed}


class CallBook:
    """The tool calls of one response."""

    def __init__(self) -> None:
        self._calls: dict[Key, ToolCall] = {}  # by choice and "tool_calls.<index>"
        self.dropped = 0

    def enter(self, choice: int, entry: Mapping[str, Any], position: int) -> ToolCall:
        """The call of this fragment. Its id stays what it was first."""
        index = self._index(choice, entry, position)
        call = self._calls.setdefault(Key(choice, f"tool_calls.{index}"), ToolCall(index))
        call_id = entry.get("id")
        if matches(call_id, ID):
            call.id = call.id or call_id
        else:
            self.dropped += bool(call_id)
        self._read_type(call, entry)
        if extra := entry.get("extra_content"):
            self._read_signature(call, extra)
        return call

    def _read_signature(self, call: ToolCall, extra: Any) -> None:
        google = extra.get("google") if isinstance(extra, dict) else None
        if isinstance(google, dict) and is_signature(signature := google.get("thought_signature")):
            call.signature = call.signature or signature
            self.dropped += leftovers(extra, ("google",)) + leftovers(google, ("thought_signature",))
        else:
            self.dropped += 1

    def _read_type(self, call: ToolCall, entry: Mapping[str, Any]) -> None:
        kind = entry.get("type")
        if isinstance(kind, str) and kind in TOOL_TEXTS:
            call.type = kind
        else:
            self.dropped += bool(kind)
        for kind in TOOL_TEXTS:  # what hangs in the call is a surer sign
            if entry.get(kind):
                call.type = kind

    def find(self, key: Key) -> ToolCall:
        """The call of a text: ("tool_calls.0.name") -> the call that was entered as 0."""
        return self._calls[Key(key.choice, key.channel.rpartition(".")[0])]

    def _index(self, choice: int, entry: Mapping[str, Any], position: int) -> int:
        """Servers that send no index send whole calls, in one list or one by one: then the id tells them apart."""
        index, call_id = entry.get("index"), entry.get("id")
        if index is not None or not matches(call_id, ID):
            return index_of(index, position)
        known = {call.id: call.index for key, call in self._calls.items() if key.choice == choice}
        return index_of(known.get(call_id), max(known.values(), default=-1) + 1)
