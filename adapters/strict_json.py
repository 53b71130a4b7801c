"""JSON as the dialects read and write it: objects only, no NaN, and errors that quote nothing.

msgspec reads what it can, about four times as fast. What it refuses (lone surrogates, numbers beyond a double, broken
JSON) is read again by `json`, whose word is the last; what both read, they read alike.
"""

import json
from typing import Any, Final, NoReturn

import msgspec

from adapters.errors import AdapterError


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` with arguments make one at every call.
_decode_fast: Final = msgspec.json.Decoder().decode
_encode_fast: Final = msgspec.json.Encoder().encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def read_object(text: str) -> dict[str, Any]:
    """Raises AdapterError, which never holds a part of the text."""
    try:
        value = _decode_fast(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = _decode_slowly(text)
    if not isinstance(value, dict):
        raise AdapterError(f"an event is a JSON {type(value).__name__}, not an object")
    return value


def _decode_slowly(text: str) -> Any:
    try:
        return _decode(text)
    except (ValueError, RecursionError):  # RecursionError: nested too deep
        raise AdapterError("an event is not JSON") from None


def write(value: Any) -> str:
    """One line of JSON; U+2028 and the like stay as they are, they end no line of an event."""
    return _encode(value)


def write_checked(value: Any) -> str:
    """The same, faster, for what has no lone surrogate and no number that is not finite: the latter become null."""
    return _encode_fast(value).decode()
