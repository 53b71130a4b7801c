"""Builders of finished records, and of a store with some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.base import Note
from proxy.records import ChannelRecord, Record, RequestOutcome, Scanned
from proxy.store.row import row_of
from proxy.store.sqlite import SqliteStore

START = 1_750_000_000.0


def record(number: int = 0, **values: Any) -> Record:
    """The n-th began n seconds after START."""
    found = Record(f"weir-{number:032x}", "/v1/chat/completions", "default", "scripted@0", started=START + number)
    found.model, found.outcome, found.status, found.scanned = "m", RequestOutcome.COMPLETE, 200, Scanned.FULL
    found.channels = [ChannelRecord(0, "content", 13, 13, 13, 3, Note("content", 0, 3, "Safe", None, 0.9))]
    for name, value in values.items():
        setattr(found, name, value)
    return found


def cut(number: int = 0, category: str = "Violent", **values: Any) -> Record:
    flagged = Note("content", 3, 13, "Unsafe", category, 0.9)
    channel = ChannelRecord(0, "content", 13, 13, 3, 3, flagged, flagged)
    return record(number, outcome=RequestOutcome.CUT, channels=[channel], **values)


def store_with(file: Path, records: Sequence[Record]) -> SqliteStore:
    store = SqliteStore(file)
    store.write([row_of(one) for one in records])
    return store


def ids(found: Any) -> list[int]:
    """The numbers of the records, in their order."""
    return [int(one["request_id"].removeprefix("weir-"), 16) for one in found]
