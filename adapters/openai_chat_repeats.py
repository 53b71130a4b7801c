"""Events that repeat one another but for their text, as those of an answer nearly always do.

JSON knows no context: where a string stands in the place of another, all else reads as it did. So in an event that has
the same characters around its text as one that was read, the text alone is new; and beside it a string that says
nothing, where an upstream sends one to hide how long its texts are.
"""

import re
from typing import Final

import msgspec

from adapters.openai_chat_plain import decode_plain

_STRING = r'[ \t]*:[ \t]*("[^"\\]*+(?:\\.[^"\\]*+)*+")'
_TEXT, _NOISE = re.compile('"content"' + _STRING), re.compile('"obfuscation"' + _STRING)
_PROBE = "\x00 \x00"
_WRITTEN_PROBE = r'"\u0000 \u0000"'
# Each takes as long as two events, and some servers may put something new into each.
MAX_LESSONS: Final = 8
# Nor is there much to save where nearly all of an event is its text.
MAX_CHARACTERS: Final = 4_096

_decode_text: Final = msgspec.json.Decoder(str).decode


class Repeats:
    """What stands around the text of the events of one response."""

    def __init__(self) -> None:
        self._before = self._behind = ""
        self._between = ""  # the text's closing quote, and what follows up to the noise; nothing where there is none
        self._lessons = 0

    def learn(self, data: str) -> bool:
        """From an event that `decode_plain` has read. False where what repeats it could not be read by its text."""
        if self._lessons >= MAX_LESSONS or len(data) > MAX_CHARACTERS:
            return False
        self._lessons += 1
        self._before = ""
        text = _TEXT.search(data)
        if text is None:
            return False
        before, behind, between = data[: text.start(1)], data[text.end(1) :], ""
        probe = before + _WRITTEN_PROBE
        if (noise := _NOISE.search(behind)) is not None:
            between, behind = '"' + behind[: noise.start(1)], behind[noise.end(1) :]
            probe += between[1:] + _WRITTEN_PROBE
        # With another text in this place the event is the same, with that text.
        try:
            chunk = decode_plain(probe + behind)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        if chunk.choices[0].delta.content != _PROBE or (between and chunk.obfuscation != _PROBE):
            return False
        self._before, self._between, self._behind = before, between, behind
        return True

    def read(self, data: str) -> str | None:
        """The text of an event that repeats the one that was learned; None of any other."""
        before, between, behind = self._before, self._between, self._behind
        if not before or not data.startswith(before) or not data.endswith(behind):
            return None
        start, end = len(before), len(data) - len(behind)
        try:
            if between:
                closing = data.find(between, start)
                _decode_text(data[closing + len(between) : end])
                end = closing + 1
            return _decode_text(data[start:end])
        except (msgspec.MsgspecError, ValueError):
            return None
