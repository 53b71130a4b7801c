"""Unicode normalization (NFC) of a stream, and where each normalized character came from.

The reference normalizes the whole text first. A stream may do the same as long as it holds back the
characters that a later one could still change: the last letter, if a combining mark could join it.
"""

import re
import unicodedata

from proxy.vocabulary.classes import COMPOSABLE, COMPOSING, LETTERS, SINGLETONS

# More marks than this on one letter are not waited for. Unicode's stream-safe limit is 30. The only
# inexactness: marks beyond it that belong, in canonical order, before the ones already passed on.
MAX_MARKS = 64

# Stand-ins for "the next character is a letter" and "... is a sign", where its final form is still open.
A_LETTER = "Q"  # no contraction ('s, 't, ...) is spelled with it, and no mark composes with it
A_SIGN = "="

_STAND_INS = {character: A_LETTER if character in LETTERS else A_SIGN for character in COMPOSABLE}

_MARKS = "".join(sorted(COMPOSING))
_BASES = "".join(sorted(COMPOSABLE - COMPOSING))
_ALONE = "".join(sorted(SINGLETONS - COMPOSING))
# What NFC could change: a letter with its marks, marks alone, or a character it replaces.
_CHANGEABLE = re.compile(f"[{_BASES}][{_MARKS}]{{1,{MAX_MARKS}}}|[{_MARKS}]{{1,{MAX_MARKS}}}|[{_ALONE}]")
_RARE = COMPOSING | SINGLETONS | frozenset(map(chr, range(0xD800, 0xE000)))
# A quick look first. All of the astral planes are in it, so that the class stays a bitmap in `re`.
_SUSPECT = re.compile(f"[{''.join(c for c in sorted(_RARE) if c <= chr(0xFFFF))}\U00010000-\U0010ffff]")
_SURROGATE = re.compile(r"[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


# What is looked at in one go: each suspect that is found takes 80 bytes until the next.
_LOOK = 256


def needs_work(text: str) -> bool:
    """True if NFC might change the text, or if it holds a surrogate."""
    if text.isascii():
        return False
    if len(text) > _LOOK:
        return any(needs_work(text[start : start + _LOOK]) for start in range(0, len(text), _LOOK))
    return any(character in _RARE for character in _SUSPECT.findall(text))


def _join(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def join_surrogates(text: str) -> str:
    """Pairs become their character, lone ones U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub(_join, text)


def normalize(text: str) -> str:
    """NFC of a whole text, as the stream does it."""
    if not needs_work(text):
        return text
    return _CHANGEABLE.sub(lambda match: unicodedata.normalize("NFC", match[0]), join_surrogates(text))


def _is_open(source: str, form: str) -> bool:
    """Whether a later mark could change this letter with its marks, given with its normal form."""
    marks = len(source) - (source[0] not in COMPOSING)
    if marks >= MAX_MARKS:
        return False
    last_starter = max((at for at, c in enumerate(form) if not unicodedata.combining(c)), default=0)
    return not COMPOSABLE.isdisjoint(form[last_starter:])


class Normalizer:
    """`feed` returns the normalized text that nothing to come can change; `finish` the rest."""

    __slots__ = ("_held", "_high", "_weights", "ahead", "count", "lengths")

    def __init__(self, prefix: str = "") -> None:
        self._held = ""  # the last letter with its marks, as they came
        self._weights: bytes | None = None  # source characters of each held one; None: one each
        self._high = ""  # a high surrogate that waits for its partner
        self.ahead = ""  # stands for the first held character: its class is known, its form is not
        self.count = 0  # normalized characters returned
        # Source characters of each of the newest normalized ones that were returned, up to `count`. Empty while each
        # stands for exactly one; what was read is forgotten. A byte each: a letter and `MAX_MARKS`, of two at most.
        self.lengths = bytearray()
        if prefix:
            self._held = join_surrogates(prefix)
            self._weights = bytes(len(self._held))

    def clone(self) -> "Normalizer":
        other = Normalizer()
        other._held, other._weights, other._high = self._held, self._weights, self._high
        other.ahead, other.count, other.lengths = self.ahead, self.count, self.lengths.copy()
        return other

    @property
    def held(self) -> int:
        """Source characters received and not yet returned."""
        weight = len(self._held) if self._weights is None else sum(self._weights)
        return weight + len(self._high)

    @property
    def merged(self) -> int:
        """Source characters that `lengths` counts beyond one for each."""
        return sum(self.lengths) - len(self.lengths)

    def forget(self, count: int) -> None:
        """So many of `lengths`; and the rest, where each stands for exactly one, as nearly always."""
        del self.lengths[:count]
        if self.lengths.count(1) == len(self.lengths):
            self.lengths.clear()

    def feed(self, text: str) -> str:
        if self._weights is not None or self._high or needs_work(text):
            return self._feed_slowly(text)
        text = self._held + text
        # All but the last letter is its own normal form, whatever comes.
        self.ahead = _STAND_INS.get(text[-1:], "")
        if self.ahead:
            self._held = text[-1]
            text = text[:-1]
        else:
            self._held = ""
        if self.lengths:
            self.lengths += b"\x01" * len(text)
        self.count += len(text)
        return text

    def finish(self) -> str:
        text, weights = self._take("\ufffd" if self._high else "", b"\x01" if self._high else b"")
        self._high = ""
        return self._settle(text, weights, is_final=True)

    def _feed_slowly(self, text: str) -> str:
        text = self._high + text
        self._high = ""
        if text and 0xD800 <= ord(text[-1]) <= 0xDBFF:
            self._high = text[-1]
            text = text[:-1]
        joined = join_surrogates(text)
        weights = bytearray(b"\x01" * len(joined))
        if len(joined) != len(text):
            pairs = (match.start() for match in _SURROGATE.finditer(text) if len(match[0]) == 2)
            for earlier_pairs, start in enumerate(pairs):
                weights[start - earlier_pairs] = 2
        return self._settle(*self._take(joined, bytes(weights)), is_final=False)

    def _take(self, text: str, weights: bytes) -> tuple[str, bytes]:
        """The text with what was held before it; nothing is held then."""
        before = b"\x01" * len(self._held) if self._weights is None else self._weights
        text, weights = self._held + text, before + weights
        self._held, self._weights, self.ahead = "", None, ""
        return text, weights

    def _settle(self, text: str, weights: bytes, *, is_final: bool) -> str:
        parts: list[str] = []
        at = 0
        for match in () if text.isascii() else _CHANGEABLE.finditer(text):
            start, end = match.span()
            parts.append(self._pass(text[at:start], weights[at:start]))
            at = start
            form = unicodedata.normalize("NFC", match[0])
            if end == len(text) and not is_final and _is_open(match[0], form):
                self._held, self._weights = match[0], weights[start:]
                self.ahead = A_LETTER if match[0][0] in LETTERS else A_SIGN
                return "".join(parts)
            parts.append(self._replace(match[0], form, weights[start:end]))
            at = end
        if at < len(text) and text[-1] in COMPOSABLE and not is_final:
            parts.append(self._pass(text[at:-1], weights[at:-1]))
            self._held, self._weights = text[-1], None if weights[-1] == 1 else weights[-1:]
            self.ahead = _STAND_INS[text[-1]]
        else:
            parts.append(self._pass(text[at:], weights[at:]))
        return "".join(parts)

    def _pass(self, text: str, weights: bytes) -> str:
        """These characters stand for themselves."""
        if self.lengths or weights.count(1) != len(weights):
            self.lengths += weights
        self.count += len(text)
        return text

    def _replace(self, source: str, form: str, weights: bytes) -> str:
        """What NFC merged or reordered is complete only with its last normalized character."""
        same_at_end = 0
        shorter = min(len(source), len(form)) - 1  # one character at least is left between start and end
        while same_at_end < shorter and source[-1 - same_at_end] == form[-1 - same_at_end]:
            same_at_end += 1
        same = 0
        shorter -= same_at_end
        while same < shorter and source[same] == form[same]:
            same += 1
        last, last_source = len(form) - same_at_end, len(source) - same_at_end
        self._pass(form[:same], weights[:same])
        merged = bytes(last - same - 1) + bytes([sum(weights[same:last_source])])
        self._pass(form[same:last], merged)
        self._pass(form[last:], weights[last_source:])
        return form
