"""What a record keeps beside its numbers: every token's risk by its place, and the text where that is wanted.

One view of a channel is a curve: for each token the source characters it covers, its level, and how likely the guard
held Unsafe and Controversial. With it an answer can be replayed token by token, without its text too.
"""

import json
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from adapters.base import Key
from proxy.risk import RISK_LEVELS, Risk, RiskLevel
from proxy.structs import Span

# Tokens of one response, all channels and views together: twice the longest answer that fits the guard's window.
MAX_TOKENS = 65_536
# Characters of one response that are kept, and of its prompt.
MAX_CHARACTERS = 262_144
MAX_PARTS = 10_000
MAX_NAME_CHARACTERS = 64
# Probabilities are kept in steps of 1/10,000.
STEPS = 10_000
LETTER_OF = {RiskLevel.SAFE: "S", RiskLevel.CONTROVERSIAL: "C", RiskLevel.UNSAFE: "U"}
LEVEL_OF = {letter: str(level) for level, letter in LETTER_OF.items()}
UNSAFE, CONTROVERSIAL = (RISK_LEVELS.index(level) for level in (RiskLevel.UNSAFE, RiskLevel.CONTROVERSIAL))


class Curve:
    """The tokens of one view."""

    def __init__(self) -> None:
        self.ends = array("I")  # of the characters that are covered
        self.levels: list[str] = []
        self.unsafe = array("H")
        self.controversial = array("H")
        self.categories: dict[int, str] = {}  # of the tokens that are not Safe
        self.left_out = 0  # tokens beyond the limit

    def __len__(self) -> int:
        return len(self.ends)

    def cut(self, index: int) -> None:
        """Take back the tokens from `index` on: they were judged as if the text ended there, and it went on."""
        for column in (self.ends, self.levels, self.unsafe, self.controversial):
            del column[index:]
        self.categories = {place: name for place, name in self.categories.items() if place < index}

    def add(self, end: int, risk: Risk) -> None:
        if risk.level is not RiskLevel.SAFE:
            self.categories[len(self)] = str(risk.category)
        self.ends.append(end)
        self.levels.append(LETTER_OF[risk.level])
        self.unsafe.append(round(risk.levels[UNSAFE] * STEPS))
        self.controversial.append(round(risk.levels[CONTROVERSIAL] * STEPS))

    def packed(self) -> dict[str, Any]:
        lengths = [end - start for start, end in zip([0, *self.ends], self.ends, strict=False)]
        return {
            "lengths": lengths,
            "levels": "".join(self.levels),
            "unsafe": self.unsafe.tolist(),
            "controversial": self.controversial.tolist(),
            "categories": self.categories,
            "left_out": self.left_out,
        }


class Trace:
    """One channel."""

    def __init__(self, traces: "Traces", key: Key) -> None:
        self._traces = traces
        self.key = key
        self.views: list[Curve] = []
        self.texts: list[str] = []

    def feed(self, text: str) -> None:
        if self._traces.keeps_text:
            text = text[: self._traces.characters_left]
            self._traces.characters_left -= len(text)
            self.texts.append(text)

    def put(self, view: int, index: int, span: Span) -> None:
        """The token number `index` of a view."""
        while len(self.views) <= view:
            self.views.append(Curve())
        curve = self.views[view]
        if index < len(curve):
            self._traces.tokens_left += len(curve) - index
            curve.cut(index)
        if self._traces.tokens_left and index == len(curve):
            self._traces.tokens_left -= 1
            curve.add(span.end, span.risk)
        else:
            curve.left_out = index + 1 - len(curve)


class Said(NamedTuple):
    """The messages of a prompt, and the text of each channel; nothing where none is kept."""

    prompt: Sequence[Any] = ()
    texts: Sequence[tuple[Key, str]] = ()


class Traces:
    """All channels of one response."""

    def __init__(self, *, keeps_text: bool = False, prompt: Sequence[Mapping[str, Any]] = ()) -> None:
        """`prompt`, the messages, is kept where the text is."""
        self.keeps_text = keeps_text
        self.tokens_left = MAX_TOKENS
        self.characters_left = MAX_CHARACTERS
        self._prompt = clipped(prompt) if keeps_text else []
        self._traces: list[Trace] = []

    @property
    def bytes_held(self) -> int:
        """About what it takes of memory."""
        characters = MAX_CHARACTERS - self.characters_left + (MAX_CHARACTERS if self._prompt else 0)
        return 16 * (MAX_TOKENS - self.tokens_left) + 2 * characters

    def open(self, key: Key) -> Trace:
        self._traces.append(Trace(self, key))
        return self._traces[-1]

    def pack(self, redact: Callable[[str], str], *, with_text: bool = True) -> bytes | None:
        """Small; None where there is nothing. Every text goes through `redact`, which keeps its length."""
        with_text = with_text and self.keeps_text
        channels = [self._channel(trace, redact, with_text=with_text) for trace in self._traces]
        found: dict[str, Any] = {"channels": channels}
        if with_text:
            found["prompt"] = self._asked(redact)
        if not channels and "prompt" not in found:
            return None
        return zlib.compress(json.dumps(found, separators=(",", ":")).encode())

    def said(self, redact: Callable[[str], str]) -> "Said":
        return Said(self._asked(redact), [(trace.key, redact("".join(trace.texts))) for trace in self._traces])

    def _asked(self, redact: Callable[[str], str]) -> list[Any]:
        found: list[Any] = json.loads(redact(json.dumps(self._prompt, ensure_ascii=False)))
        return found

    def _channel(self, trace: Trace, redact: Callable[[str], str], *, with_text: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"choice": trace.key.choice, "channel": trace.key.channel}
        if with_text:
            found["text"] = redact("".join(trace.texts))
        return found | {"views": [curve.packed() for curve in trace.views]}


def clipped(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Of a conversation so much, from its end, that its texts have no more than MAX_CHARACTERS, and few parts."""
    characters, parts = MAX_CHARACTERS, MAX_PARTS

    def clip(value: Any) -> Any:
        nonlocal characters, parts
        if not characters or not parts:
            return None
        parts -= 1
        if isinstance(value, str):
            value = value[:characters]
            characters -= len(value)
        elif isinstance(value, Mapping):
            return {str(name)[:MAX_NAME_CHARACTERS]: clip(one) for name, one in islice(value.items(), parts + 1)}
        elif isinstance(value, list):
            return [clip(one) for one in islice(value, parts + 1)]
        return value

    newest = [clip(message) for message in islice(reversed(messages), parts)]
    return [message for message in newest[::-1] if message is not None]


def unpack(data: bytes) -> dict[str, Any]:
    """As people and programs read it: each token's `ends`, `levels`, `unsafe`, `controversial` and `categories`."""
    found: dict[str, Any] = json.loads(zlib.decompress(data))
    for channel in found["channels"]:
        channel["views"] = [_unpacked(view) for view in channel["views"]]
    return found


def _unpacked(view: Mapping[str, Any]) -> dict[str, Any]:
    ends: list[int] = []
    for length in view["lengths"]:
        ends.append((ends[-1] if ends else 0) + length)
    return {
        "ends": ends,
        "levels": [LEVEL_OF[letter] for letter in view["levels"]],
        "unsafe": [step / STEPS for step in view["unsafe"]],
        "controversial": [step / STEPS for step in view["controversial"]],
        "categories": [view["categories"].get(str(place)) for place in range(len(ends))],
        "left_out": view["left_out"],
    }
