"""One pre-token of text -> tokens, each with the characters it completes."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy import vocabulary

# Longer pre-tokens do not repeat; keeping them would only fill the memory.
MAX_CACHED_CHARACTERS: Final = 48
CACHED_PRETOKENS = 32768


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of the vocabulary. A character is complete when all its bytes are in tokens."""

    id: int
    length: int  # source characters that this token completes


token: Final = functools.lru_cache(maxsize=65536)(Token)  # making a frozen object costs more than finding it


@functools.lru_cache(maxsize=65536)
def _whole(token_id: int) -> Token | None:
    """The token, if it is made of whole characters."""
    try:
        return Token(token_id, len(vocabulary.load().entries[token_id].decode()))
    except UnicodeDecodeError:
        return None


def measure(raw: bytes, start: int, ids: Iterable[int]) -> list[Token]:
    """Tokens for `ids`, which encode `raw` (whole characters) from byte `start` on."""
    tokens: list[Token] = []
    entries = vocabulary.load().entries
    end = start
    is_open = start > 0  # a character was begun by a token and is not yet complete
    for token_id in ids:
        whole = _whole(token_id)
        end += len(entries[token_id])
        if whole is None:
            begun = is_open + sum(byte & 0xC0 != 0x80 for byte in entries[token_id])
            is_open = end < len(raw) and raw[end] & 0xC0 == 0x80
            whole = token(token_id, begun - is_open)
        tokens.append(whole)
    return tokens


def _tokens_of(pretoken: str) -> tuple[Token, ...]:
    raw = pretoken.encode()
    return tuple(measure(raw, 0, vocabulary.load().encode_piece(raw)))


tokens_of_cached: Final = functools.lru_cache(maxsize=CACHED_PRETOKENS)(_tokens_of)


def tokens_of(pretoken: str) -> tuple[Token, ...]:
    """The tokens of a whole pre-token."""
    return tokens_of_cached(pretoken) if len(pretoken) <= MAX_CACHED_CHARACTERS else _tokens_of(pretoken)
