"""A request's body, read strictly: what is judged must be what the upstream will read.

Two JSON readers that disagree (about a key given twice, a number without end, half a character)
would let the guard judge one conversation and the model answer another. So whatever readers are
known to disagree about is refused, and the upstream gets our own writing of what we understood.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from proxy.limits import Limit

# No field of the API has a longer name; tools' parameters have names of their own.
MAX_KEY_CHARS = 1024
# A million empty lists fit the largest body and take seconds to look at; real requests hold some thousand values.
MAX_VALUES = 200_000
MAX_BRACKETS = 2 * MAX_VALUES  # counted before parsing, those in texts included


class BadRequest(Exception):
    """A body that cannot be accepted. The message repeats nothing of it but names of the API's own."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, limit: str = ""
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.status = status
        self.message = message
        self.param = param
        self.code = code


def check_headers(content_type: str | None, content_encoding: str | None) -> None:
    """Only plain JSON in UTF-8 is read. Raises BadRequest (415)."""
    if (content_encoding or "identity").strip().lower() not in ("identity", ""):
        raise BadRequest(415, "Send the body without a content-encoding.", code="unsupported_content_encoding")
    media_type, *parameters = (content_type or "").split(";")
    if media_type.strip().lower() != "application/json":
        raise BadRequest(415, "Send the body as content-type: application/json.", code="unsupported_media_type")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise BadRequest(415, "Send the body in UTF-8.", code="unsupported_charset")


def read_object(raw: bytes | bytearray, *, max_depth: int) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadRequest for all else, and for what JSON readers disagree about."""
    if raw.startswith(b"\xef\xbb\xbf"):
        _refuse("The body begins with a byte order mark; send plain UTF-8.")
    if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS:
        _refuse(f"The body holds more than {MAX_BRACKETS} brackets.", Limit.BRACKETS)
    try:
        value = _READER.decode(raw.decode())
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    except json.JSONDecodeError as exc:
        _refuse(f"The body is not JSON (line {exc.lineno}, column {exc.colno}).")
    except RecursionError:
        _refuse(f"The body is nested deeper than {max_depth} levels.", Limit.DEPTH)
    except ValueError:  # an integer of more digits than Python reads
        _refuse("The body holds a number with too many digits.")
    if not isinstance(value, dict):
        _refuse("The body must be a JSON object.")
    _check_tree(value, max_depth, may_be_halved=b"\\u" in raw)
    return value


def dump(forward: Mapping[str, Any]) -> bytes:
    """The body that goes upstream: every number, string and key as it was read."""
    return _WRITER.encode(forward).encode()


def _refuse(message: str, limit: str = "") -> NoReturn:
    raise BadRequest(400, message, code="invalid_json", limit=limit)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        _refuse("An object in the body gives the same key twice.")
    return table


def _refuse_constant(_: str) -> NoReturn:
    _refuse("The body holds NaN or Infinity, which are not JSON.")


def _finite(lexeme: str) -> float:
    number = float(lexeme)
    if math.isinf(number):
        _refuse("The body holds a number too large for a double.")
    return number


_READER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_float=_finite)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _check_tree(value: Any, max_depth: int, *, may_be_halved: bool) -> None:
    """Depth, key lengths and half characters; level by level, for recursion itself would have to be bounded.

    `may_be_halved`: there are escapes in it, with which alone UTF-8 can spell half a character.
    """
    level, depth, seen = [value], 0, 0
    while level:
        seen += len(level)
        if seen > MAX_VALUES:
            _refuse(f"The body holds more than {MAX_VALUES} values.", Limit.VALUES)
        if may_be_halved and not all(_is_encodable(item) for item in level if isinstance(item, str)):
            _refuse("A string in the body holds half of a surrogate pair.")
        tables = [item for item in level if isinstance(item, dict)]
        lists = [item for item in level if isinstance(item, list)]
        if depth == max_depth and (tables or lists):
            _refuse(f"The body is nested deeper than {max_depth} levels.", Limit.DEPTH)
        level = []
        for table in tables:
            if any(map(_is_long, table)):
                _refuse(f"The body has a key of more than {MAX_KEY_CHARS} characters.", Limit.KEY_CHARACTERS)
            level += table
            level += table.values()
        for items in lists:
            level += items
        depth += 1


def _is_long(key: str) -> bool:
    return len(key) > MAX_KEY_CHARS


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
