"""A request's conversation in the words of chat, as its items come; and what of them nobody can judge."""

from collections.abc import Mapping
from typing import Any

from adapters.strict_json import write
from adapters.structures import readable
from proxy.request_body import BadRequest
from proxy.request_fields import Terms

DATA = "data"  # what an item holds beside its words


class Transcript:
    """A dialect's reader adds the items that it knows; the rest is here for all of them."""

    def __init__(self, terms: Terms, unreadable: frozenset[str]) -> None:
        """`unreadable` are the dialect's kinds of items that hold nothing to read, as a record may name them."""
        self.terms = terms
        self.messages: list[dict[str, Any]] = []
        self.unscanned: list[str] = []
        self._unreadable = unreadable | {DATA}

    def add_result(self, text: str) -> None:
        """A tool's turn."""
        self.messages.append({"role": "tool", "content": text})

    def json_of(self, item: Mapping[str, Any], where: str) -> str:
        """An item that the dialect's reader does not know, as JSON. Raises BadRequest."""
        found, dropped = readable(dict(item))
        if dropped:
            self.leave_out(DATA, where)
        return write(found)

    def leave_out(self, kind: str, where: str) -> None:
        """Raises BadRequest unless what cannot be judged may pass."""
        if not self.terms.allow_unscanned:
            message = f"'{where}' cannot be read by the guard: only text can."
            raise BadRequest(400, message, where, "unscannable_content")
        self.unscanned.append(f"{where} ({kind if kind in self._unreadable else 'unknown type'})")
