"""JSON values that are judged whole, as their text, and strings that no one can judge.

Search results, citations, outputs of a provider's own tools: their shapes change often and hold text
anywhere. So such a value is one text to the guard, and leaves as it was judged or not at all.
"""

import base64
import binascii
import json
import re
from typing import Any, TypeGuard

from adapters.base import Delta, Key, Kind
from adapters.errors import AdapterError
from adapters.strict_json import write

# Data, not words: images, sound, ciphertext. Words without a space in this many letters are left out with it.
MIN_DATA_CHARACTERS = 64
DATA = re.compile(rf"(?:data:[^,]{{0,100}},.*|[A-Za-z0-9+/_-]{{{MIN_DATA_CHARACTERS},}}={{0,2}})", re.DOTALL)

# A signature over text that is judged, or the provider's own ciphertext of a thought.
SIGNATURE = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+/_-]{32,1048576}={0,2}")


def readable(value: Any) -> tuple[Any, int]:
    """The value without what is data and not words, and how many strings that were."""
    if isinstance(value, dict):
        found = {key: readable(one) for key, one in value.items() if not is_data(key)}
        dropped = len(value) - len(found) + sum(count for _, count in found.values())
        return {key: one for key, (one, _) in found.items() if one is not _DATA}, dropped
    if isinstance(value, list):
        inner = [readable(one) for one in value]
        return [one for one, _ in inner if one is not _DATA], sum(count for _, count in inner)
    return (_DATA, 1) if is_data(value) else (value, 0)


_DATA = object()  # stands for what is left out, until its place is too


def is_data(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= MIN_DATA_CHARACTERS and DATA.fullmatch(value) is not None


def is_signature(value: Any) -> TypeGuard[str]:
    """Base64 that no one reads words in, neither as it stands nor decoded."""
    if not isinstance(value, str) or SIGNATURE.fullmatch(value) is None:
        return False
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        base64.b64decode(plain + "=" * (-len(plain) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return True
    return False


def whole(key: Key, value: dict[str, Any], source: Any, *, keep_data: bool) -> tuple[Delta, int]:
    """The delta of a value that is judged whole, and how many strings were left out of it. Raises AdapterError."""
    kept, dropped = (value, 0) if keep_data else readable(value)
    try:
        return Delta(key, Kind.OBJECT, write(kept), source), dropped
    except (ValueError, RecursionError):
        raise AdapterError("a value is not JSON") from None


def value_of(delta: Delta) -> dict[str, Any]:
    """What `whole` was given, as it was judged."""
    value: dict[str, Any] = json.loads(delta.text)
    return value
