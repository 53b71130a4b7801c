"""Builders of finished records, and of stores of either kind with some."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.base import Note
from proxy.record_settings import RecordSettings
from proxy.records import ChannelRecord, Record, RequestOutcome, Scanned
from proxy.store.base import Store
from proxy.store.places import place_of
from proxy.store.row import row_of
from proxy.store.sqlite import SqliteStore

KINDS = ("sqlite", "postgres")
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


def settings_for(kind: str, folder: Path, **more: Any) -> RecordSettings:
    """A place that is empty; the test is skipped where there is no PostgreSQL."""
    if kind == "sqlite":
        return RecordSettings(file=folder / "records.db", **more)
    from tests.postgres import url_of_schema

    return RecordSettings.model_validate({"url": url_of_schema(), **more})


def opened(settings: RecordSettings, records: Sequence[Record] = ()) -> Store:
    store = place_of(settings).open()
    store.write([row_of(one) for one in records])
    return store


def execute(settings: RecordSettings, *statements: str) -> None:
    """As somebody else who has the database open."""
    if settings.file is not None:
        connection = sqlite3.connect(settings.file)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        return
    from tests.postgres import execute as run

    assert settings.url is not None
    run(settings.url.get_secret_value(), *statements)
