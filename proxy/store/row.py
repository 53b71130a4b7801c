"""A finished record as a row: what can be searched as columns, all of it as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from proxy.records import Record
from proxy.redaction import Redactor

# Clients choose some of the names. What a flood of long ones could cost is bounded here.
MAX_NAME_CHARACTERS = 256
MAX_ERROR_CHARACTERS = 1000
MAX_NAMES = 64  # in a list of them
NOTHING_ELSE = Redactor()


@dataclass(frozen=True, slots=True)
class Row:
    """In the order of the table's columns."""

    id: str
    started: float  # seconds since 1970
    seconds: float
    endpoint: str
    key: str  # the name of the caller's key, where keys are ours
    model: str
    upstream: str
    policy: str
    outcome: str
    status: int
    scanned: str
    category: str  # of what was flagged first, prompt before answer; "" where nothing was
    body: str  # all that the log line has, as JSON in ASCII
    trace: bytes | None = None  # `trace.unpack` reads it


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Row))


def row_of(record: Record, redactor: Redactor = NOTHING_ELSE) -> Row:
    values = _bounded(record.as_dict())
    named = {name: values.get(name, "") for name in COLUMNS if name not in ("id", "category", "body", "trace")}
    body = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    trace = record.pack_trace(redactor)
    return Row(id=values["request_id"], category=category_of(values), body=body, trace=trace, **named)


def category_of(values: Mapping[str, Any]) -> str:
    """What a record was flagged for; "" where it was not."""
    if values["prompt_flagged"] and values["prompt"]:
        return values["prompt"]["category"] or ""
    flagged = [channel["flagged"] for channel in values["channels"] if channel["flagged"]]
    return flagged[0]["category"] or "" if flagged else ""


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    found = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
    found["error"] = clean(values["error"], MAX_ERROR_CHARACTERS) if values["error"] is not None else None
    named = {name: value for name, value in values.items() if isinstance(value, list | tuple) and name != "channels"}
    return found | {name: [clean(str(part)) for part in value[:MAX_NAMES]] for name, value in named.items()}


def clean(text: str, most: int = MAX_NAME_CHARACTERS) -> str:
    """Text that every database takes: bounded, no lone surrogates, no NUL."""
    return text[:most].encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
