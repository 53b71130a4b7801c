"""The store that the settings name, and its writer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from proxy.config_file import ConfigError
from proxy.record_settings import RecordSettings
from proxy.redaction import Redactor
from proxy.settings import Settings
from proxy.store.base import Place, Store, StoreError, StoreUnusable
from proxy.store.row import NOTHING_ELSE
from proxy.store.sqlite import SqliteFile
from proxy.store.writer import RecordWriter

NOT_SET = (
    "No records are kept: set [records] file in weir.toml, WEIR_RECORDS__FILE or --records-file, for `weir serve` too; "
    "or [records] url, WEIR_RECORDS__URL, for PostgreSQL."
)
NO_DRIVER = '[records] url needs the driver of PostgreSQL: pip install "weir-proxy[postgres]"'


def place_of(settings: RecordSettings) -> Place:
    """Raises ConfigError."""
    if settings.url is not None:
        return _postgres(settings.url.get_secret_value())
    if settings.file is None:
        raise ConfigError(NOT_SET)
    if not settings.file.absolute().parent.is_dir():
        raise ConfigError(f"[records] file: there is no folder {settings.file.absolute().parent}.")
    if settings.file.is_dir():
        raise ConfigError(f"[records] file: {settings.file} is a folder.")
    return SqliteFile(settings.file)


def _postgres(url: str) -> Place:
    try:
        from proxy.store.postgres import PostgresPlace  # optional
    except ImportError as exc:
        raise ConfigError(f"{NO_DRIVER}.") from exc
    return PostgresPlace(url)


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
    return [one.get_secret_value() for one in own if one is not None] + settings.records.passwords()


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
    place = place_of(settings)
    if settings.url is None and settings.file is not None and not settings.file.exists():
        raise ConfigError(f"There are no records yet: {settings.file} is not there. `weir serve` makes it.")
    store = place.open(is_reader=True)
    try:
        yield store
    finally:
        store.close()
