"""What an upstream says of its answer beside the text: why it ended, its name, what it counted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from adapters.base import Adapter, Delta, Event, Finish, Opaque, Piece

# Where the dialects have a head of the answer within a payload.
HEADS = ("message", "response", "head")


class AnswerFacts:
    """Read from pieces, whose words and numbers the adapters have checked. Never from a text."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.reasons: dict[int, str] = {}  # of each choice
        self.usage: dict[str, Any] = {}

    def note(self, piece: Piece) -> None:
        if isinstance(piece, Finish):
            self.reasons[piece.choice] = piece.reason
        if isinstance(piece, Finish | Opaque):
            for head in _heads(piece):
                usage, id, model = head.get("usage"), head.get("id"), head.get("model")
                self.usage.update(usage if isinstance(usage, Mapping) else {})
                self.id = self.id or (id if isinstance(id, str) else None)
                self.model = self.model or (model if isinstance(model, str) else None)

    def counts(self) -> dict[str, int]:
        """The upstream's own counts under the conventions' names; what it has not said is not there."""
        usage, found = self.usage, {}
        fresh = _number(usage, "prompt_tokens", "input_tokens")
        read, written = _number(usage, "cache_read_input_tokens"), _number(usage, "cache_creation_input_tokens")
        if fresh is not None:
            # Anthropic counts what it had in its cache apart from the rest; the conventions do not.
            found["input_tokens"] = fresh + (read or 0) + (written or 0)
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        spent = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        more = {
            "output_tokens": _number(usage, "completion_tokens", "output_tokens"),
            "cache_read.input_tokens": read if read is not None else _number(details, "cached_tokens"),
            "cache_creation.input_tokens": written,
            "reasoning.output_tokens": _number(spent, "reasoning_tokens"),
        }
        return found | {name: count for name, count in more.items() if count is not None}


def _heads(piece: Finish | Opaque) -> Iterator[Mapping[str, Any]]:
    payload = piece.payload if isinstance(piece, Opaque) else None
    for outer in (payload, piece.source, getattr(piece.source, "fields", None)):
        if isinstance(outer, Mapping):
            yield outer
            yield from (outer[name] for name in HEADS if isinstance(outer.get(name), Mapping))


def _number(counts: object, *names: str) -> int | None:
    values = [counts.get(name) for name in names] if isinstance(counts, Mapping) else []
    return next((value for value in values if type(value) is int), None)


class _Watched:
    """An adapter with somebody who sees what it decodes."""

    def __init__(self, adapter: Adapter, facts: AnswerFacts) -> None:
        self._adapter, self._facts = adapter, facts

    def decode(self, event: Event) -> Sequence[Piece]:
        pieces = self._adapter.decode(event)
        for piece in pieces:
            if type(piece) is not Delta:
                self._facts.note(piece)
        return pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def watched(adapter: Adapter, notes: "Noting | None") -> Adapter:
    """The same adapter where nobody wants to know."""
    return adapter if notes is None else cast(Adapter, _Watched(adapter, notes.facts))


class Noting(Protocol):
    facts: AnswerFacts
