"""/v1/completions, streamed and as one body: chat whose message is one text, with logprobs of an older form."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import Delta, Event, Logprob, Note, Options, Piece
from adapters.errors import AdapterError
from adapters.metadata import is_number, leftovers
from adapters.openai_chat import ChatStream
from adapters.openai_chat_body import BodyChoice, ChatBody
from adapters.openai_chat_reader import ChatReader, Shape

CHUNK = Shape("text_completion", "text", is_whole=False, id_prefix="cmpl")
BODY = Shape("text_completion", "text", is_whole=True, id_prefix="cmpl")

CONTENT = "content"  # the channel, as in chat: the same text gets the same verdict at either door
# How a token that is a part of a character is spelt.
BYTES_TOKEN = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")
LOGPROB_FIELDS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
MAX_ALTERNATIVES = 20


class CompletionReader(ChatReader):
    def _fields_of(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        text = choice.get("text")
        if not isinstance(text, str | None):
            raise AdapterError("the text of a choice is not a string")
        return {CONTENT: text}

    def _attach_logprobs(self, pieces: list[Piece], logprobs: Any) -> None:
        for place, piece in enumerate(pieces):
            if isinstance(piece, Delta):
                paired, dropped = pair(logprobs, piece.text, self._options.allow_unscanned)
                pieces[place] = piece.beside(paired)
                self._dropped += dropped
                return
        self._dropped += bool(logprobs)


class CompletionStream(ChatStream):
    def _open_reader(self, options: Options) -> ChatReader:
        return CompletionReader(options, CHUNK)

    def _plain(self, piece: Delta, note: Note | None) -> Event | None:
        return None  # its choices have another shape

    def _choice(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        text = delta.get(CONTENT, "")
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, piece: Delta) -> dict[str, Any] | None:
        return written_logprobs([logprob.entry for logprob in piece.logprobs])


class CompletionBody(ChatBody):
    def _open_reader(self, options: Options) -> ChatReader:
        return CompletionReader(options, BODY)

    def _written(self, index: int, choice: BodyChoice) -> dict[str, Any]:
        logprobs = written_logprobs(choice.logprobs.get(CONTENT, []))
        written = {"text": choice.text(CONTENT), "index": index, "logprobs": logprobs, "finish_reason": None}
        return written | choice.end


def pair(logprobs: Any, text: str, keep_alternatives: bool) -> tuple[tuple[Logprob, ...], int]:
    """The entries whose tokens are the text, and how many things were left out.

    Tokens after the text are left out alone (a closing special token); where the two differ, all are.
    """
    if not isinstance(logprobs, dict):
        return (), 1
    dropped = leftovers(logprobs, LOGPROB_FIELDS)
    columns = [logprobs.get(name) or [] for name in LOGPROB_FIELDS]
    if not all(isinstance(column, list) for column in columns):
        return (), dropped + 1
    tokens, chances, alternatives, offsets = columns
    rows = zip(tokens, chances, _padded(alternatives, tokens), _padded(offsets, tokens), strict=False)
    whole, covered, paired = _utf8(text), 0, []
    for token, chance, others, offset in rows:
        spelt = _bytes_of(token)
        is_next = whole is not None and spelt is not None and covered < len(whole) and whole.startswith(spelt, covered)
        if not is_next or not (chance is None or is_number(chance)):  # an echoed prompt's first token has none
            break
        assert spelt is not None
        entry = {"token": token, "logprob": chance, "offset": offset if is_number(offset) else 0}
        if keep_alternatives:
            entry["top"] = _alternatives(others)
        covered += len(spelt)
        paired.append(Logprob(spelt, entry))
    if whole is None or covered < len(whole):
        return (), dropped + len(tokens)
    hidden = 0 if keep_alternatives else sum(1 for one in alternatives[: len(paired)] if one)
    return tuple(paired), dropped + hidden + len(tokens) - len(paired)


def written_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not entries:
        return None
    has_alternatives = any("top" in entry for entry in entries)
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [entry.get("top") for entry in entries] if has_alternatives else None,
        "text_offset": [entry["offset"] for entry in entries],
    }


def _alternatives(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    kept = {token: logprob for token, logprob in value.items() if is_number(logprob) and _utf8(token) is not None}
    return dict(list(kept.items())[:MAX_ALTERNATIVES])


def _padded(column: list[Any], tokens: list[Any]) -> list[Any]:
    return (column + [None] * len(tokens))[: len(tokens)]


def _bytes_of(token: Any) -> bytes | None:
    if not isinstance(token, str) or not token:
        return None
    if found := BYTES_TOKEN.fullmatch(token):
        return bytes.fromhex(found[1].replace("\\x", ""))
    return _utf8(token)


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate will be repaired: no token repeats what comes out
        return None
