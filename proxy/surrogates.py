"""Lone surrogates: JSON can spell them, UTF-8 cannot carry them.

What the guard reads and what the client gets must be the same text, so both see the repaired one.
"""

from adapters.base import Delta


def repair(text: str) -> str:
    """Join surrogate pairs; replace the lone ones by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class SurrogateJoiner:
    """Repairs a text that arrives in parts: a high surrogate at a part's end waits for its partner."""

    def __init__(self) -> None:
        self._high = ""

    def feed(self, text: str) -> str:
        if not self._high:
            try:
                text.encode()
            except UnicodeEncodeError:
                pass
            else:
                return text
        text = self._high + text
        self._high = ""
        if text and 0xD800 <= ord(text[-1]) <= 0xDBFF:
            text, self._high = text[:-1], text[-1]
        return repair(text)

    @property
    def is_waiting(self) -> bool:
        """For the other half of a character."""
        return bool(self._high)

    def finish(self) -> str:
        """The replacement of what still waits, or nothing."""
        rest, self._high = self._high, ""
        return repair(rest)


class DeltaJoiner:
    """The same for the deltas of one channel. Logprobs that no longer repeat the text are left out."""

    def __init__(self) -> None:
        self._joiner = SurrogateJoiner()
        self._last: Delta | None = None

    def feed(self, delta: Delta) -> Delta:
        if delta.text.isascii() and not self._joiner.is_waiting:
            return delta
        self._last = delta
        text = self._joiner.feed(delta.text)
        return delta if text == delta.text else Delta(delta.key, delta.kind, text, delta.source, delta.extra)

    def finish(self) -> Delta | None:
        rest = self._joiner.finish()
        last = self._last
        return Delta(last.key, last.kind, rest, last.source) if rest and last is not None else None
