"""Turning requests away before they are read, while a server has more to do than it can.

Crowds that are refused come again every second, so a refusal must cost little. What comes as one plain request to an
endpoint that is judged, whole and as the first of its connection, is answered here, in bytes; there is no record of it,
only numbers. Whatever is in any doubt goes the usual way.
"""

import json
import re
from collections.abc import Callable, Mapping

from proxy.doors import DOORS, error_body
from proxy.errors import ApiError

HEAD = re.compile(rb"POST (/v1/[a-z/]+) HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[^\r\n\x00]*\r\n)+)\r\n")
LENGTH = re.compile(rb"^content-length: *([0-9]{1,9}) *\r\n", re.IGNORECASE | re.MULTILINE)
# What changes where a body ends, or what becomes of the connection.
UNUSUAL = re.compile(rb"^(?:transfer-encoding|expect|upgrade|connection) *:", re.IGNORECASE | re.MULTILINE)


class Shedding:
    """`refusal` says why nothing more is taken at the moment, None where all is well; `told` counts it."""

    def __init__(self, refusal: Callable[[], ApiError | None], told: Callable[[str, ApiError], None]) -> None:
        self._refusal = refusal
        self._told = told

    def answer(self, data: bytes) -> bytes | None:
        """The refusal of a request, if `data` is the whole of one that is to be refused."""
        error = self._refusal()
        path = path_of(data) if error is not None else None
        if error is None or path is None:
            return None
        self._told(path, error)
        return written(path, error)


def path_of(data: bytes) -> str | None:
    """Of a door, where `data` is one request to it, whole and plain; None for anything else."""
    head = HEAD.match(data)
    if head is None or (path := head[1].decode()) not in DOORS or UNUSUAL.search(head[2]):
        return None
    lengths = LENGTH.findall(head[2])
    is_whole = len(lengths) == 1 and head.end() + int(lengths[0]) == len(data)
    return path if is_whole and head[2].lower().count(b"content-length") == 1 else None


def written(path: str, error: ApiError) -> bytes:
    body = json.dumps(error_body(path, error)).encode()
    headers: Mapping[str, str] = {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        **error.headers,
    }
    lines = [f"HTTP/1.1 {error.status} Service Unavailable", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
