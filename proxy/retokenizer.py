"""Text deltas, cut anywhere -> the Qwen3 tokens of the whole text, each as soon as it is final.

Three stages follow one another, as in the reference tokenizer: NFC (`normalizer`), the split into
pre-tokens (`splitter`), byte-pair encoding. Each hands on what no later text can change; of a pre-token
that is still growing, `settling` says which tokens are final all the same.
"""

from collections.abc import Iterator
from typing import Final

from proxy.normalizer import Normalizer, normalize
from proxy.pretoken import MAX_CACHED_CHARACTERS, Token, measure, token, tokens_of, tokens_of_cached
from proxy.settling import STEP_CHARACTERS, Tail, settle, settle_cached
from proxy.splitter import split, split_growing, split_lazily
from proxy.vocabulary import load

__all__ = ["Retokenizer", "Token", "encode"]

# A longer delta is read in slices of this many characters, so that no step is long.
MAX_SLICE_CHARACTERS: Final = 4096
# A longer pre-token is encoded in steps.
MAX_PIECE_CHARACTERS = 2048
_NO_TAIL: Final = Tail("", "")


def encode(text: str, *, limit: int | None = None) -> list[int]:
    """The ids of a whole text, as ordinary text: control ids never come of it.

    With a limit it stops soon after so many ids: for a text that is of no use if it is longer.
    """
    ids: list[int] = []
    encode_piece = load().encode_piece
    text = normalize(text)
    for pretoken in split(text) if len(text) <= MAX_SLICE_CHARACTERS else split_lazily(text):
        ids += encode_piece(pretoken.encode()) if len(pretoken) <= MAX_PIECE_CHARACTERS else _encode_long(pretoken)
        if limit is not None and len(ids) > limit:
            break
    return ids


def _encode_long(pretoken: str) -> list[int]:
    # Alone it is split as it was, into itself; in steps it does not hold the interpreter for a second.
    retokenizer = Retokenizer()
    ids: list[int] = []
    for part in _slices(pretoken):
        ids += [one.id for one in retokenizer.feed(part)]
    ids += [one.id for one in retokenizer.finish()]
    return ids


def _slices(text: str) -> Iterator[str]:
    for start in range(0, len(text), MAX_SLICE_CHARACTERS):
        yield text[start : start + MAX_SLICE_CHARACTERS]


class Retokenizer:
    """One text that arrives in deltas. `feed` returns the tokens that became final, `finish` the rest.

    `prefix` is encoded together with the text and counts no characters.
    """

    __slots__ = ("_normalizer", "_tail", "forced")

    def __init__(self, prefix: str = "") -> None:
        self._normalizer = Normalizer(prefix)
        self._tail = _NO_TAIL
        self.forced = 0  # tokens given out because too much was held, not because they were final

    @property
    def held(self) -> int:
        """Source characters received and not yet covered by the tokens given out."""
        normalizer = self._normalizer
        return normalizer.held + len(self._tail.text) + normalizer.merged

    def feed(self, text: str) -> list[Token]:
        if len(text) <= MAX_SLICE_CHARACTERS:
            return self._feed(text)
        tokens: list[Token] = []
        for part in _slices(text):
            tokens += self._feed(part)
        return tokens

    def finish(self) -> list[Token]:
        normalizer = self._normalizer
        complete = normalizer.count - len(self._tail.text)
        pieces = split(self._tail.context + self._tail.text + normalizer.finish())
        tokens = self._close(pieces)
        self._tail = _NO_TAIL
        return self._relength(tokens, complete) if normalizer.lengths else tokens

    def peek(self, text: str = "") -> list[Token]:
        """What `finish` would return now, or after `text`; the text may go on."""
        other = Retokenizer()
        other._normalizer = self._normalizer.clone()
        other._tail = self._tail
        return other.feed(text) + other.finish()

    def _feed(self, text: str) -> list[Token]:
        normalizer = self._normalizer
        tail = self._tail
        complete = normalizer.count - len(tail.text)
        settled = normalizer.feed(text)
        ahead = normalizer.ahead
        if not settled and not (ahead and tail.text):
            return []
        pieces, growing = split_growing(tail.context + tail.text + settled, ahead)
        if pieces:
            tokens = self._close(pieces)
            tail = Tail("", growing) if growing else _NO_TAIL
        else:
            tokens = []
            tail = Tail(tail.context, tail.text + settled, tail.skip, tail.last)
        if tail.text:
            if len(tail.text) <= STEP_CHARACTERS:
                done = settle_cached(tail.context, tail.text, tail.skip, tail.last, ahead)
            else:
                done = settle(tail, ahead)
            tokens += done.tokens
            tail = done.tail
            self.forced += done.forced
        self._tail = tail
        return self._relength(tokens, complete) if normalizer.lengths else tokens

    def _close(self, pieces: list[str]) -> list[Token]:
        """The tokens of finished pre-tokens; of the first, some may have been given out already."""
        tokens: list[Token] = []
        tail = self._tail
        if tail.context or tail.skip:
            raw = pieces[0][len(tail.context) :].encode()
            tokens += measure(raw, tail.skip, load().encode_piece(raw[tail.skip :])) if len(raw) > tail.skip else []
            pieces = pieces[1:]
        for pretoken in pieces:
            tokens += tokens_of_cached(pretoken) if len(pretoken) <= MAX_CACHED_CHARACTERS else tokens_of(pretoken)
        return tokens

    def _relength(self, tokens: list[Token], complete: int) -> list[Token]:
        """Lengths in source characters, where normalization changed the count."""
        normalizer = self._normalizer
        lengths = normalizer.lengths
        end = complete - normalizer.count + len(lengths)  # of the tokens, in `lengths`; it may begin within them
        read = 0
        relengthed = []
        for one in tokens:
            length = one.length
            end += length
            if end > read:
                length += sum(lengths[read:end]) - (end - read)
                read = end
            relengthed.append(token(one.id, length))
        normalizer.forget(read)
        return relengthed
