"""Qwen3's split of a text into pre-tokens, and what a pre-token at the end of a text may become."""

import re
from collections.abc import Iterator, Set
from enum import StrEnum
from typing import Final

from proxy.normalizer import A_LETTER, A_SIGN
from proxy.vocabulary.classes import LETTERS, NUMBERS, SPACES

_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")


def _members(characters: Set[str]) -> str:
    """Inside a character class, as ranges. Only the basic plane: `re` turns that into a bitmap."""
    runs: list[list[int]] = []
    for one in sorted(ord(c) for c in characters if c <= "\uffff"):
        if runs and one == runs[-1][1] + 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in runs)


# For use inside [...]; SIGN is a class of its own, negated.
LETTER, NUMBER, BLANK = _members(LETTERS), _members(NUMBERS), _members(SPACES)
SIGN = f"^{LETTER}{NUMBER}{BLANK}"
_CONTRACTION = "'(?:[sS\u017ftTmMdD]|[rRvV][eE]|[lL][lL])"  # (?i:'s) also takes the long s
# The pattern of Qwen3's tokenizer.json with its classes spelled out.
_PRE_TOKEN: Final = re.compile(
    f"{_CONTRACTION}|[^\r\n{LETTER}{NUMBER}]?[{LETTER}]+|[{NUMBER}]| ?[{SIGN}]+[\r\n]*"
    f"|[{BLANK}]*[\r\n]+|[{BLANK}]+(?![^{BLANK}])|[{BLANK}]+"
)
_find_all: Final = _PRE_TOKEN.findall
_is_contraction = re.compile(_CONTRACTION).fullmatch
_BLANKS = "".join(sorted(SPACES))


def _stand_in(match: re.Match[str]) -> str:
    if match[0] in LETTERS:
        return A_LETTER
    return "0" if match[0] in NUMBERS else A_SIGN


def split(text: str) -> list[str]:
    """The pre-tokens of a whole normalized text."""
    if text.isascii() or not _ASTRAL.search(text):
        return _find_all(text)
    shadow = _ASTRAL.sub(_stand_in, text)
    return [text[match.start() : match.end()] for match in _PRE_TOKEN.finditer(shadow)]


def split_lazily(text: str) -> Iterator[str]:
    """The same, one after the other: the splitting of a long text can be left, and never stalls a thread."""
    shadow = text if text.isascii() else _ASTRAL.sub(_stand_in, text)
    for match in _PRE_TOKEN.finditer(shadow):
        yield text[match.start() : match.end()]


def is_blank(piece: str) -> bool:
    return not piece.strip(_BLANKS)


def split_growing(text: str, ahead: str) -> tuple[list[str], str]:
    """The pre-tokens that no continuation of the text can change, and the one that may still grow.

    `ahead` stands for the next character, where its class is known already. A run of white space
    comes back as one: where it is cut depends on what ends it.
    """
    pieces = split(text + ahead)
    if not pieces:
        return pieces, ""
    tail = pieces.pop()
    if ahead:
        return pieces, tail[:-1]
    last = tail[-1]
    if last in SPACES:
        if pieces and pieces[-1][-1] in "\r\n" and is_blank(tail) and is_blank(pieces[-1]):
            tail = pieces.pop() + tail
    elif last in NUMBERS or (tail[0] == "'" and _is_contraction(tail)):
        pieces.append(tail)
        tail = ""
    return pieces, tail


class Growth(StrEnum):
    """What may follow within the same pre-token."""

    LETTERS = "letters"
    SIGNS = "signs, then line ends"
    LINE_ENDS = "line ends"
    BLANKS = "white space"
    AFTER_SIGN = "letters, or signs and line ends"  # a single sign: it may lead a word or a run of signs
    AFTER_SPACE = "letters, or signs and line ends, or white space"
    AFTER_BLANK = "letters, or white space"


def growth(piece: str) -> Growth:
    """How an unfinished pre-token (never empty, never finished) may go on."""
    last = piece[-1]
    if last in LETTERS:
        return Growth.LETTERS
    if last not in SPACES:
        return Growth.SIGNS if len(piece) > 1 else Growth.AFTER_SIGN
    if not is_blank(piece):
        return Growth.LINE_ENDS
    if len(piece) > 1 or last in "\r\n":
        return Growth.BLANKS
    return Growth.AFTER_SPACE if last == " " else Growth.AFTER_BLANK
