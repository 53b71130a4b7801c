"""JSON as the dialects read and write it: objects only, no NaN, and errors that quote nothing."""

import json
from typing import Any, NoReturn

from adapters.base import AdapterError


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` with arguments make one at every call.
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def read_object(text: str) -> dict[str, Any]:
    """Raises AdapterError, which never holds a part of the text."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):  # RecursionError: nested too deep
        raise AdapterError("an event is not JSON") from None
    if not isinstance(value, dict):
        raise AdapterError(f"an event is a JSON {type(value).__name__}, not an object")
    return value


def write(value: Any) -> str:
    """One line of JSON; U+2028 and the like stay as they are, they end no line of an event."""
    return _encode(value)
