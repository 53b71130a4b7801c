"""What passes beside the text without being judged: names and numbers, checked for shape and size.

A string that passes here could carry a message past the guard, so each has a pattern that text
does not fit, and the first valid value of a response holds for all of it.
"""

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from adapters.base import Options
from adapters.errors import AdapterError
from adapters.strict_json import write

ID = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}")
MODEL = re.compile(r"[A-Za-z0-9_.:/+=@()-]{1,200}")
WORD = re.compile(r"[A-Za-z_]{1,32}")
# "Google AI Studio": up to three words, capitals but for the first.
PROVIDER = re.compile(r"(?=.{1,32}\Z)[A-Za-z0-9_.:/+@()-]+(?: [A-Z0-9][A-Za-z0-9_.:/+@()-]*){0,2}")
COUNT_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

# What every client can hold exactly, and no place for a message in digits.
MAX_NUMBER = 1 << 53
MAX_INDEX = 127  # of tool calls and the like: each is a text that the guard must follow
MAX_COUNTS = 64
MAX_COUNT_DEPTH = 3  # usage.completion_tokens_details.reasoning_tokens is 2

# The names of a response, in the order in which they are written.
NAMES: Mapping[str, re.Pattern[str]] = {
    "model": MODEL,
    "system_fingerprint": ID,
    "service_tier": WORD,
    "provider": PROVIDER,
}
ENVELOPE_FIELDS = ("id", "created", *NAMES)


def matches(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= MAX_NUMBER  # NaN is not


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_NUMBER


def index_of(value: Any, position: int) -> int:
    """An index that an upstream gives, or else the place in its list."""
    index = position if value is None else value
    if type(index) is not int or not 0 <= index <= MAX_INDEX:
        raise AdapterError("an index is out of bounds")
    return index


def leftovers(fields: Mapping[str, Any], known: Iterable[str]) -> int:
    """How many fields outside `known` hold something."""
    return sum(1 for name in fields.keys() - known if fields[name])


def read_counts(fields: Mapping[str, Any], depth: int = 1) -> tuple[dict[str, Any], int]:
    """The numbers of a `usage` or `timings` object, and how many fields were left out."""
    counts: dict[str, Any] = {}
    dropped = 0
    for name, value in fields.items():
        if not COUNT_NAME.fullmatch(name) or len(counts) == MAX_COUNTS:
            dropped += 1
        elif value is None or is_number(value):
            counts[name] = value
        elif isinstance(value, dict) and depth < MAX_COUNT_DEPTH:
            counts[name], inner = read_counts(value, depth + 1)
            dropped += inner
        else:
            dropped += 1
    return counts, dropped


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields around the choices. `head` is their JSON up to where `choices` follows."""

    fields: Mapping[str, Any]
    head: str


class EnvelopeReader:
    """Keeps one envelope for a response; a name that comes late joins it."""

    def __init__(self, options: Options, object_name: str, id_prefix: str = "chatcmpl") -> None:
        self._model = options.model
        self._object = object_name
        self._id_prefix = id_prefix
        self._raw: tuple[Any, ...] | None = None  # the fields that `_envelope` was last read from
        self._envelope: Envelope | None = None
        self.dropped = 0

    def read(self, chunk: Mapping[str, Any], is_kept: bool) -> Envelope:
        """`is_kept` is False for an event that releases nothing: Azure opens with one of blank names."""
        return self.read_fields(tuple([chunk.get(name) for name in ENVELOPE_FIELDS]), is_kept)

    def read_fields(self, raw: tuple[Any, ...], is_kept: bool) -> Envelope:
        """The same, given the ENVELOPE_FIELDS in their order, None for those that are missing."""
        if self._envelope is not None and (raw is self._raw or raw == self._raw):
            self._raw = raw  # the same object, the next time
            return self._envelope
        envelope = self._merge(dict(zip(ENVELOPE_FIELDS, raw, strict=True)))
        if is_kept:
            self._raw, self._envelope = raw, envelope
        return envelope

    def current(self) -> Envelope:
        """For what we say ourselves, perhaps before the upstream has said anything."""
        if self._envelope is None:
            self._envelope = self._merge({})
        return self._envelope

    def _merge(self, seen: Mapping[str, Any]) -> Envelope:
        kept = self._envelope.fields if self._envelope is not None else {}
        names = {
            name: kept.get(name) or self._checked(pattern, seen.get(name))
            for name, pattern in {"id": ID, **NAMES}.items()
        }
        created = seen.get("created")
        fields = {
            "id": names.pop("id") or f"{self._id_prefix}-{secrets.token_hex(12)}",
            "object": self._object,
            "created": kept.get("created") or (created if is_count(created) else int(time.time())),
            "model": names.pop("model") or self._model,
        }
        fields |= {name: value for name, value in names.items() if value}
        return Envelope(fields, write(fields)[:-1] + ",")

    def _checked(self, pattern: re.Pattern[str], value: Any) -> str | None:
        if matches(value, pattern):
            return value
        self.dropped += bool(value)
        return None
