"""Which tokens of an unfinished pre-token are final: the tight rule.

Let `rem` be the bytes of a growing pre-token. In any continuation some token covers the end of `rem`: it
starts at a boundary i and begins with `rem[i:]`, a proper prefix of a vocabulary entry; or a token ends
just there. What stands before a boundary is encoded as if it stood alone, so what `bpe(rem)` and all the
possible `bpe(rem[:i])` begin with is final. An i is possible if some entry extends `rem[i:]` by characters
that may follow, and stays whole beside the token before it. A check that is given up counts as
"possible": that holds text back, and is never wrong.
"""

import functools
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, final

from proxy import vocabulary
from proxy.normalizer import A_LETTER, A_SIGN
from proxy.pretoken import Token, measure
from proxy.splitter import BLANK, LETTER, SIGN, Growth, growth
from proxy.vocabulary.beginnings import Beginnings
from proxy.vocabulary.classes import LETTERS

LONGEST_ENTRY_BYTES = 128
# Of the entries that could go on, a few are tried first; then all, if they are not more than this.
TRIALS = (12, 256)
# Below this, encoding is faster than a look into a cache; above it, texts are mostly runs of one character.
SHORT_BYTES = 40
# A longer tail is settled in steps, so that a step costs the same however long the text is.
STEP_CHARACTERS: Final = 256
# If the rule ever leaves more than this, all tokens but the last few count as final (see `Retokenizer.forced`).
MAX_UNSETTLED_BYTES = 1024
UNSETTLED_TOKENS = 32


# Tails repeat as words do; this many are some megabytes.
CACHED_TAILS = 16384


@final
class Tail:
    """An unfinished pre-token: `context` and the first `skip` bytes of `text` are in emitted tokens."""

    __slots__ = ("context", "last", "skip", "text")

    def __init__(self, context: str, text: str, skip: int = 0, last: int | None = None) -> None:
        self.context: Final = context  # stands for the emitted part; short, only its class matters to the split
        self.text: Final = text
        self.skip: Final = skip
        self.last: Final = last  # the token before, if it belongs to the same pre-token


@final
class Settled:
    __slots__ = ("forced", "tail", "tokens")

    def __init__(self, tokens: Sequence[Token], tail: Tail, forced: int) -> None:
        self.tokens: Final = tokens
        self.tail: Final = tail
        self.forced: Final = forced  # tokens given out by the limit and not by the rule


# What may follow, in the characters of the basic plane; with others, anything may.
_MAY_FOLLOW = {
    Growth.LETTERS: re.compile(f"[{LETTER}]*"),
    Growth.SIGNS: re.compile(f"[{SIGN}]*[\r\n]*"),
    Growth.LINE_ENDS: re.compile("[\r\n]*"),
    Growth.BLANKS: re.compile(f"[{BLANK}]*"),
    Growth.AFTER_SIGN: re.compile(f"[{LETTER}]*|[{SIGN}]*[\r\n]*"),
    Growth.AFTER_SPACE: re.compile(f"[{LETTER}]*|[{SIGN}]*[\r\n]*|[{BLANK}]*"),
    Growth.AFTER_BLANK: re.compile(f"[{LETTER}]*|[{BLANK}]*"),
}


class _Words(NamedTuple):
    entries: tuple[bytes, ...]
    encode: Callable[[bytes], Sequence[int]]
    ordered: list[bytes]
    beginnings: Beginnings


@functools.cache
def _words() -> _Words:
    words = vocabulary.load()
    ordered = sorted(words.entries)
    return _Words(words.entries, words.encode_piece, ordered, Beginnings(ordered))


class _Extensions(NamedTuple):
    entries: Sequence[bytes]
    are_all: bool  # or a sample


@functools.lru_cache(maxsize=16384)
def _extensions(start: bytes, growing: Growth, most: int) -> _Extensions:
    """Entries that begin with `start` and go on with what may follow."""
    ordered = _words().ordered
    low = bisect_right(ordered, start)
    high = bisect_left(ordered, start + b"\xff" * LONGEST_ENTRY_BYTES, low)
    stride = -(-(high - low) // most)
    size = len(start)
    may_follow = _MAY_FOLLOW[growing].fullmatch
    fitting = []
    for entry in ordered[low:high:stride]:
        characters = entry[size:].decode("utf-8", "ignore")  # it may end within a character
        if may_follow(characters) or max(characters) > "\uffff":
            fitting.append(entry)
    return _Extensions(fitting, stride == 1)


def _stay_apart(first: int, second: bytes) -> bool:
    """Whether two entries, side by side, are encoded as themselves."""
    words = _words()
    ids = words.encode(words.entries[first] + second)
    return len(ids) == 2 and ids[0] == first and words.entries[ids[1]] == second


# Long entries are runs of one character: few, and slow to encode.
_stay_apart_cached = functools.lru_cache(maxsize=16384)(_stay_apart)


def _is_possible(last: int | None, start: bytes, growing: Growth) -> bool:
    """Whether, after the token `last`, an entry may follow that begins with `start` and goes on."""
    stay_apart = _stay_apart_cached if len(start) >= SHORT_BYTES else _stay_apart
    for most in TRIALS:
        extensions = _extensions(start, growing, most)
        for entry in extensions.entries:
            if last is None or stay_apart(last, entry):
                return True
        if extensions.are_all:
            return False
    return True


@functools.lru_cache(maxsize=4096)
def _encode_cached(raw: bytes) -> Sequence[int]:
    return array("I", _words().encode(raw))  # as a list, what is kept of long runs takes 10 MB


def _encode(raw: bytes) -> Sequence[int]:
    return _words().encode(raw) if len(raw) < SHORT_BYTES else _encode_cached(raw)


def _in_common(first: Sequence[int], second: Sequence[int]) -> int:
    for count, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return count
    return min(len(first), len(second))


def _final_count(rem: bytes, ids: Sequence[int], growing: Growth, last: int | None) -> int:
    """How many of `ids`, the tokens of `rem`, every continuation begins with."""
    words = _words()
    beginnings = words.beginnings
    if rem in beginnings and _is_possible(last, rem, growing):
        return 0
    count = len(ids)
    first = max(1, len(rem) - LONGEST_ENTRY_BYTES + 1)
    for at in [at for at in range(first, len(rem)) if rem[at:] in beginnings]:
        before = words.encode(rem[:at]) if at < SHORT_BYTES else _encode_cached(rem[:at])
        common = _in_common(ids, before)
        if common < count and _is_possible(before[-1], rem[at:], growing):
            if not common:
                return 0
            count = common
    return count


def _final_count_of_blanks(text: str, rem: bytes, ids: Sequence[int]) -> int:
    """The same for white space, whose last character the next word may take, and whose line ends
    gather all that stands before them."""
    count = _final_count(rem, ids, Growth.BLANKS, None)
    start = 1 + max(text.rfind("\n"), text.rfind("\r"))
    skipped = len(text.encode()) - len(rem)
    lines = list(_encode(text[:start].encode()[skipped:])) if start else []
    blanks = text[start:]
    if start and blanks:
        raw = blanks.encode()
        more = _encode(raw)
        settled = more[: _final_count(raw, more, Growth.BLANKS, None)]
        count = min(count, _in_common(ids, [*lines, *settled]))
    if len(blanks) > (0 if start else 1):
        most = blanks[:-1].encode() if start else blanks[:-1].encode()[skipped:]
        count = min(count, _in_common(ids, [*lines, *_encode(most)] if most else lines))
    return count


def _context(emitted: str, growing: Growth) -> str:
    """The shortest text that is continued as the emitted one is."""
    if growing is Growth.BLANKS:
        return ""  # what is left of a run of white space is cut as if it stood alone
    if len(emitted) <= 2:
        return emitted
    if emitted[-1] in LETTERS:
        return A_LETTER
    return 2 * A_SIGN + ("\n" if emitted[-1] in "\r\n" else "")


def _emit(tail: Tail, raw: bytes, ids: Sequence[int], growing: Growth) -> tuple[list[Token], Tail]:
    tokens = measure(raw, tail.skip, ids)
    complete = sum([token.length for token in tokens])
    size = sum([len(entry) for entry in map(vocabulary.load().entries.__getitem__, ids)])
    skip = tail.skip + size - len(tail.text[:complete].encode())
    context = _context(tail.context + tail.text[:complete], growing)
    last = None if growing is Growth.BLANKS else ids[-1]
    return tokens, Tail(context, tail.text[complete:], skip, last)


def _step(tail: Tail, ahead: str) -> tuple[list[Token], Tail, int]:
    """Settle a tail of limited length."""
    growing = growth(tail.context + tail.text + ahead)
    raw = tail.text.encode()
    rem = raw[tail.skip :]
    ids = _encode(rem)
    if growing is Growth.BLANKS:
        count = _final_count_of_blanks(tail.text, rem, ids)
    else:
        count = _final_count(rem, ids, growing, tail.last)
    forced = max(0, len(ids) - UNSETTLED_TOKENS - count) if len(rem) > MAX_UNSETTLED_BYTES else 0
    if not count + forced:
        return [], tail, 0
    return *_emit(tail, raw, ids[: count + forced], growing), forced


def settle(tail: Tail, ahead: str) -> Settled:
    """The tokens of an unfinished pre-token that are final, and what is left of it."""
    if len(tail.text) <= STEP_CHARACTERS:
        found, tail, by_force = _step(tail, ahead)
        return Settled(found, tail, by_force)
    tokens: list[Token] = []
    forced = 0
    waiting = tail.text
    tail = Tail(tail.context, "", tail.skip, tail.last)
    while waiting:
        tail = Tail(tail.context, tail.text + waiting[:STEP_CHARACTERS], tail.skip, tail.last)
        waiting = waiting[STEP_CHARACTERS:]
        more, tail, by_force = _step(tail, "" if waiting else ahead)
        tokens += more
        forced += by_force
    return Settled(tokens, tail, forced)


@functools.lru_cache(maxsize=CACHED_TAILS)
def settle_cached(context: str, text: str, skip: int, last: int | None, ahead: str) -> Settled:
    return settle(Tail(context, text, skip, last), ahead)
