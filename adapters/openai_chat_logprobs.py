"""`logprobs` repeat the text token by token; only entries that repeat released text may leave."""

from typing import Any

from adapters.base import Logprob
from adapters.metadata import is_number, leftovers

ENTRY_FIELDS = frozenset({"token", "logprob", "bytes", "top_logprobs", "id"})  # id: llama.cpp's token number
MAX_ALTERNATIVES = 20


def pair(entries: Any, text: str, keep_alternatives: bool) -> tuple[tuple[Logprob, ...], int]:
    """The entries that together are the text, byte for byte, and how many things were left out.

    Entries after the text are left out alone (a closing special token); where the bytes do not
    come out equal, all are.
    """
    if not isinstance(entries, list):
        return (), bool(entries)
    whole = _bytes_of(text)
    if whole is None:
        return (), len(entries)
    paired: list[Logprob] = []
    covered, dropped = 0, 0
    for entry in entries:
        logprob = _read(entry, keep_alternatives) if covered < len(whole) else None
        if logprob is None or not whole.startswith(logprob.text, covered):
            break
        covered += len(logprob.text)
        dropped += _left_out(entry, keep_alternatives)
        paired.append(logprob)
    if covered < len(whole):
        return (), len(entries)
    return tuple(paired), dropped + len(entries) - len(paired)


def _bytes_of(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate will be repaired: no entry repeats what comes out
        return None


def _read(entry: Any, keep_alternatives: bool) -> Logprob | None:
    rebuilt = _rebuilt(entry)
    if rebuilt is None:
        return None
    alternatives = entry.get("top_logprobs") if keep_alternatives else None
    if isinstance(alternatives, list):
        kept = [_rebuilt(alternative) for alternative in alternatives[:MAX_ALTERNATIVES]]
        rebuilt["top_logprobs"] = [alternative for alternative in kept if alternative is not None]
    else:
        rebuilt["top_logprobs"] = []
    return Logprob(bytes(rebuilt["bytes"]), rebuilt)


def _rebuilt(entry: Any) -> dict[str, Any] | None:
    if not isinstance(entry, dict) or not is_number(entry.get("logprob")):
        return None
    data = entry.get("bytes")
    token = entry.get("token")
    if data is None and isinstance(token, str):
        data = _bytes_of(token)
    elif not _is_byte_list(data):
        data = None
    if data is None:
        return None
    data = bytes(data)
    return {"token": data.decode("utf-8", "replace"), "logprob": entry["logprob"], "bytes": list(data)}


def _is_byte_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in value)


def _left_out(entry: dict[str, Any], keep_alternatives: bool) -> int:
    return leftovers(entry, ENTRY_FIELDS) + (not keep_alternatives and bool(entry.get("top_logprobs")))
