"""One pre-token of text -> tokens, each with the characters it completes."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from proxy import vocabulary

# Longer pre-tokens do not repeat; keeping them would only fill the memory.
MAX_CACHED_CHARACTERS = 48
CACHED_PRETOKENS = 32768


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of the vocabulary. A character is complete when all its bytes are in tokens."""

    id: int
    length: int  # source characters that this token completes


token = functools.lru_cache(maxsize=65536)(Token)  # making a frozen object costs more than finding it


@functools.lru_cache(maxsize=65536)
def _characters_begun(token_id: int) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in vocabulary.load().entries[token_id])


def measure(raw: bytes, start: int, ids: Iterable[int]) -> list[Token]:
    """Tokens for `ids`, which encode `raw` (whole characters) from byte `start` on."""
    entries = vocabulary.load().entries
    tokens = []
    position = start
    open_characters = 1 if start else 0  # begun by a token and not yet complete
    for token_id in ids:
        position += len(entries[token_id])
        begun = open_characters + _characters_begun(token_id)
        open_characters = 1 if position < len(raw) and raw[position] & 0xC0 == 0x80 else 0
        tokens.append(token(token_id, begun - open_characters))
    return tokens


def _tokens_of(pretoken: str) -> tuple[Token, ...]:
    raw = pretoken.encode()
    return tuple(measure(raw, 0, vocabulary.load().encode_piece(raw)))


_cached_tokens_of = functools.lru_cache(maxsize=CACHED_PRETOKENS)(_tokens_of)


def tokens_of(pretoken: str) -> tuple[Token, ...]:
    """The tokens of a whole pre-token."""
    if len(pretoken) > MAX_CACHED_CHARACTERS:
        return _tokens_of(pretoken)
    return _cached_tokens_of(pretoken)
