"""What goes to an upstream for one request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters import Endpoint


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    endpoint: Endpoint  # how its answer is read
    path: str  # after the base URL
    body: Mapping[str, Any] | None  # None for a GET
    query: str = ""
    moves_key: bool = False  # a client of chat has its key in `authorization`, where this upstream does not look
    dropped: tuple[str, ...] = ()  # fields of the request that the dialect has no place for, and that change no answer
