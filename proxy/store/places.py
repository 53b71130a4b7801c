"""The store that the settings name, and its writer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from proxy.config_file import ConfigError
from proxy.record_settings import RecordSettings
from proxy.redaction import Redactor
from proxy.settings import Settings
from proxy.store.base import Place, Store, StoreError, StoreUnusable
from proxy.store.row import NOTHING_ELSE
from proxy.store.sqlite import SqliteFile, SqliteStore
from proxy.store.writer import RecordWriter

NOT_SET = (
    "No records are kept: set [records] file in weir.toml, WEIR_RECORDS__FILE or --records-file, for `weir serve` too."
)


def place_of(settings: RecordSettings) -> Place:
    """Raises ConfigError."""
    if settings.file is None:
        raise ConfigError(NOT_SET)
    if not settings.file.absolute().parent.is_dir():
        raise ConfigError(f"[records] file: there is no folder {settings.file.absolute().parent}.")
    if settings.file.is_dir():
        raise ConfigError(f"[records] file: {settings.file} is a folder.")
    return SqliteFile(settings.file)


def start_writer(settings: RecordSettings, redactor: Redactor = NOTHING_ELSE) -> RecordWriter | None:
    """None where no records are kept. What is wrong by tomorrow too is refused; all else the writer lives with.

    Raises ConfigError.
    """
    if not settings.is_on:
        return None
    place = place_of(settings)
    try:
        place.open().close()
    except StoreUnusable as exc:
        raise ConfigError(f"[records]: {exc}.") from exc
    except StoreError:
        pass  # the writer tells it, and tries again
    writer = RecordWriter(place, keep_days=settings.keep_days, max_bytes=settings.max_bytes, redactor=redactor)
    writer.start()
    return writer


def secrets_of(settings: Settings) -> list[str]:
    """Keys of our own: whatever somebody says or quotes, they are not kept."""
    own = [*(upstream.api_key for upstream in settings.upstreams), settings.guard.token]
    return [one.get_secret_value() for one in own if one is not None]


@asynccontextmanager
async def kept_records(settings: Settings) -> AsyncIterator[RecordWriter | None]:
    """The writer, from start to stop, off the event loop. Raises ConfigError."""
    writer = await asyncio.to_thread(start_writer, settings.records, Redactor(secrets_of(settings)))
    try:
        yield writer
    finally:
        if writer is not None:
            await asyncio.to_thread(writer.close)


@contextmanager
def open_reader(settings: RecordSettings) -> Iterator[Store]:
    """For `weir records`: changes nothing. Raises ConfigError, StoreError."""
    place_of(settings)
    file: Path | None = settings.file
    assert file is not None  # place_of would have refused
    if not file.exists():
        raise ConfigError(f"There are no records yet: {file} is not there. `weir serve` makes it.")
    store = SqliteStore(file, is_reader=True)
    try:
        yield store
    finally:
        store.close()
