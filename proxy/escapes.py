"""The text that JSON escapes spell, as it streams.

A tool call's arguments are JSON: `\\u0062omb` reads as letters to whoever parses it and as noise
to a guard that reads the raw characters, so arguments are judged in both views.
"""

import re

_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PARTIAL = re.compile(r"\\(u[0-9a-fA-F]{0,3})?\Z")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"\\/bfnrt]))")


class EscapeDecoder:
    """Decodes JSON escapes outside and inside strings alike; a wrong escape stands for itself.

    Each character it returns comes with the number of source characters that it stands for.
    Surrogate pairs stay two characters; the retokenizer joins them.
    """

    def __init__(self) -> None:
        self._pending = ""  # an escape cut by the end of the text so far

    def feed(self, text: str) -> tuple[str, list[int]]:
        text = self._pending + text
        self._pending = ""
        # Backslashes pair up from the left, so only a whole scan knows whether the last one escapes.
        decoded: list[str] = []
        widths: list[int] = []
        at = 0
        while at < len(text):
            escape = text.find("\\", at)
            plain = text[at:] if escape < 0 else text[at:escape]
            decoded.append(plain)
            widths += [1] * len(plain)
            if escape < 0:
                break
            if _PARTIAL.match(text, escape):
                self._pending = text[escape:]
                break
            char, width = _read(text, escape)
            decoded.append(char)
            widths.append(width)
            at = escape + width
        return "".join(decoded), widths

    def finish(self) -> tuple[str, list[int]]:
        rest, self._pending = self._pending, ""
        return rest, [1] * len(rest)


def _read(text: str, at: int) -> tuple[str, int]:
    found = _ESCAPE.match(text, at)
    if found is None:
        return "\\", 1
    if found[1] is not None:
        return chr(int(found[1], 16)), 6
    return _SIMPLE[found[2]], 2
