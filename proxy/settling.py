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
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from proxy import vocabulary
from proxy.normalizer import A_LETTER, A_SIGN
from proxy.pretoken import Token, measure
from proxy.splitter import Growth, growth
from proxy.vocabulary.classes import LETTERS, NUMBERS, SPACES

LONGEST_ENTRY_BYTES = 128
# Of the entries that could go on, so many are tried beside the token before them.
MAX_TRIALS = 32
# A longer tail is settled in steps, so that a step costs the same however long the text is.
STEP_CHARACTERS = 256
# If the rule ever leaves more than this, all tokens but the last few count as final (see `Retokenizer.forced`).
MAX_UNSETTLED_BYTES = 1024
UNSETTLED_TOKENS = 32


class Tail(NamedTuple):
    """An unfinished pre-token: `context` and the first `skip` bytes of `text` are in emitted tokens."""

    context: str = ""  # stands for the emitted part; short, only its class matters to the split
    text: str = ""
    skip: int = 0
    last: int | None = None  # the token before, if it belongs to the same pre-token


class Settled(NamedTuple):
    tokens: tuple[Token, ...]
    tail: Tail
    forced: int = 0  # tokens given out by the limit and not by the rule


# What may follow, one sign a character: l letter, o sign, s white space, r line end, n number.
_MAY_FOLLOW = {
    Growth.LETTERS: re.compile("l*"),
    Growth.SIGNS: re.compile("o*r*"),
    Growth.LINE_ENDS: re.compile("r*"),
    Growth.BLANKS: re.compile("[sr]*"),
    Growth.AFTER_SIGN: re.compile("l*|o*r*"),
    Growth.AFTER_SPACE: re.compile("l*|o*r*|[sr]*"),
    Growth.AFTER_BLANK: re.compile("l*|[sr]*"),
}


def _class_of(character: str) -> str:
    if character in LETTERS:
        return "l"
    if character in NUMBERS:
        return "n"
    if character in SPACES:
        return "r" if character in "\r\n" else "s"
    return "o"


@functools.lru_cache(maxsize=2048)
def _classes_begun(lead: bytes) -> str:
    """The classes of the characters whose UTF-8 form begins with these bytes."""
    size = 2 if lead[0] < 0xE0 else 3 if lead[0] < 0xF0 else 4
    if len(lead) < size - 1:
        return "losr"  # thousands of characters: not worth a look
    forms = (lead + bytes([byte]) for byte in range(0x80, 0xC0))
    return "".join({_class_of(character) for character in b"".join(forms).decode("utf-8", "ignore")})


def _fits(extra: bytes, growing: Growth) -> bool:
    """Whether the pre-token may go on with these bytes (which may end within a character)."""
    characters = extra.decode("utf-8", "ignore")
    lead = extra[len(characters.encode()) :]
    shape = "".join(map(_class_of, characters))
    may_follow = _MAY_FOLLOW[growing].fullmatch
    if not lead:
        return may_follow(shape) is not None
    if not 0xC2 <= lead[0] <= 0xF4:
        return False  # bytes that continue no text
    return any(may_follow(shape + last) for last in _classes_begun(lead))


@functools.cache
def _ordered() -> list[bytes]:
    return sorted(vocabulary.load().entries)


class Extensions(NamedTuple):
    entries: tuple[bytes, ...]
    are_all: bool


@functools.lru_cache(maxsize=65536)
def _extensions(start: bytes, growing: Growth) -> Extensions:
    """Entries that begin with `start` and go on as the pre-token may."""
    ordered = _ordered()
    low = bisect_right(ordered, start)
    if low == len(ordered) or not ordered[low].startswith(start):
        return Extensions((), True)  # by far the most common
    high = bisect_left(ordered, start + b"\xff" * LONGEST_ENTRY_BYTES, low)
    stride = -(-(high - low) // (8 * MAX_TRIALS))
    fitting = [entry for entry in ordered[low:high:stride] if _fits(entry[len(start) :], growing)]
    few = fitting[:: -(-len(fitting) // MAX_TRIALS)] if fitting else []
    return Extensions(tuple(few), stride == 1 and len(few) == len(fitting))


@functools.lru_cache(maxsize=32768)
def _encode(raw: bytes) -> tuple[int, ...]:
    return tuple(vocabulary.load().encode_piece(raw))


@functools.lru_cache(maxsize=65536)
def _stay_apart(first: int, second: bytes) -> bool:
    """Whether the two entries, side by side, are encoded as themselves."""
    words = vocabulary.load()
    return words.encode_piece(words.entries[first] + second) == [first, words.ranks[second]]


def _is_possible(last: int | None, extensions: Extensions) -> bool:
    if last is None or not extensions.are_all:
        return True
    return any(_stay_apart(last, entry) for entry in extensions.entries)


def _in_common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def _final_count(rem: bytes, growing: Growth, last: int | None) -> int:
    """How many of the tokens of `rem` every continuation begins with."""
    ids = _encode(rem)
    count = len(ids)
    for at in range(max(0, len(rem) - LONGEST_ENTRY_BYTES + 1), len(rem)):
        extensions = _extensions(rem[at:], growing)
        if not extensions.entries and extensions.are_all:
            continue
        before = _encode(rem[:at]) if at else ()
        common = _in_common(ids, before)
        if common < count and _is_possible(before[-1] if before else last, extensions):
            count = common
            if not count:
                break
    return count


def _final_count_of_blanks(text: str, rem: bytes) -> int:
    """The same for white space, whose last character the next word may take, and whose line ends
    gather all that stands before them."""
    count = _final_count(rem, Growth.BLANKS, None)
    start = 1 + max(text.rfind("\n"), text.rfind("\r"))
    skipped = len(text.encode()) - len(rem)
    ids = _encode(rem)
    lines = _encode(text[:start].encode()[skipped:]) if start else ()
    blanks = text[start:]
    if start and blanks:
        raw = blanks.encode()
        settled = _encode(raw)[: _final_count(raw, Growth.BLANKS, None)]
        count = min(count, _in_common(ids, lines + settled))
    if len(blanks) > (0 if start else 1):
        most = blanks[:-1].encode() if start else blanks[:-1].encode()[skipped:]
        count = min(count, _in_common(ids, lines + _encode(most) if most else lines))
    if count == len(ids) and text.endswith(" "):
        count -= 1  # never reached with this vocabulary; a lone space changes how the next sign is split
    return count


def _context(emitted: str, growing: Growth) -> str:
    """The shortest text that is continued as the emitted one is."""
    if growing is Growth.BLANKS or len(emitted) <= 2:
        # What is left of a run of white space is cut as if it stood alone.
        return "" if growing is Growth.BLANKS else emitted
    last = _class_of(emitted[-1])
    return A_LETTER if last == "l" else 2 * A_SIGN if last == "o" else 2 * A_SIGN + "\n"


def _emit(tail: Tail, raw: bytes, ids: tuple[int, ...], growing: Growth) -> tuple[list[Token], Tail]:
    tokens = measure(raw, tail.skip, ids)
    complete = sum(token.length for token in tokens)
    entries = vocabulary.load().entries
    end = tail.skip + sum(len(entries[token_id]) for token_id in ids)
    context = _context(tail.context + tail.text[:complete], growing)
    skip = end - len(tail.text[:complete].encode())
    last = None if growing is Growth.BLANKS else ids[-1]
    return tokens, Tail(context, tail.text[complete:], skip, last)


def _step(tail: Tail, ahead: str) -> tuple[list[Token], Tail, int]:
    """Settle a tail of limited length."""
    growing = growth(tail.context + tail.text + ahead)
    raw = tail.text.encode()
    rem = raw[tail.skip :]
    if growing is Growth.BLANKS:
        count = _final_count_of_blanks(tail.text, rem)
    else:
        count = _final_count(rem, growing, tail.last)
    ids = _encode(rem)
    forced = 0
    if len(rem) > MAX_UNSETTLED_BYTES:
        forced = max(0, len(ids) - UNSETTLED_TOKENS - count)
    if not count + forced:
        return [], tail, 0
    return *_emit(tail, raw, ids[: count + forced], growing), forced


def settle(tail: Tail, ahead: str) -> Settled:
    """The tokens of an unfinished pre-token that are final, and what is left of it."""
    tokens: list[Token] = []
    forced = 0
    waiting = tail.text
    tail = tail._replace(text="")
    while waiting:
        size = STEP_CHARACTERS
        tail = tail._replace(text=tail.text + waiting[:size])
        waiting = waiting[size:]
        more, tail, by_force = _step(tail, "" if waiting else ahead)
        tokens += more
        forced += by_force
    return Settled(tuple(tokens), tail, forced)


settle_cached = functools.lru_cache(maxsize=32768)(settle)
