"""Records in a SQLite file: written ahead to a log, so that readers never wait and a crash loses little."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.store.base import StoreCorrupt, StoreError
from proxy.store.row import COLUMNS, Row
from proxy.store.schema import VERSION, check_version, steps_from
from proxy.store.sql import DELETE_OLDEST, INSERT, PRUNE_ROWS, SqlStore, values_of

# For another writer's transaction; the thread that waits is not one that serves.
BUSY_SECONDS = 2.0
# What the write-ahead log keeps of its size after a flood.
MAX_IDLE_LOG_BYTES = 16 << 20
TYPES = {"id": "TEXT", "real": "REAL", "blob": "BLOB"}
INSERT_ONE = INSERT.format(f"VALUES ({', '.join('?' * len(COLUMNS))})")
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteFile:
    """Where the store is."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def name(self) -> str:
        return str(self._file)

    def open(self, *, is_reader: bool = False) -> "SqliteStore":
        return SqliteStore(self._file, is_reader=is_reader)

    def set_aside(self) -> str:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        for ending in ("-shm", "-wal", ""):  # the file itself last: it is what the next one would trip over
            file = self._file.with_name(self._file.name + ending)
            if file.exists():
                file.rename(f"{file}.broken-{stamp}")
        return f"{self._file}.broken-{stamp}"


class SqliteStore(SqlStore):
    def __init__(self, file: Path, *, is_reader: bool = False) -> None:
        """A reader makes and changes nothing, and finds no records of another version. Raises StoreError."""
        self._file = file
        with _told():
            if not is_reader:
                # Records are for nobody else to read; SQLite gives its other files the same mode.
                os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
            uri = f"{file.absolute().as_uri()}?mode={'ro' if is_reader else 'rw'}"
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._inode = self._found()
        try:
            if not is_reader:
                self._prepare()
            check_version(self._version())
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._ask("PRAGMA auto_vacuum = INCREMENTAL")  # counts before the first table is made
        self._ask("PRAGMA journal_mode = WAL")
        self._ask("PRAGMA synchronous = NORMAL")
        self._ask(f"PRAGMA journal_size_limit = {MAX_IDLE_LOG_BYTES}")
        if self._version() != VERSION:
            with self._transaction():  # in which the version is read again: another process may have been faster
                for version, statements in steps_from(self._version(), TYPES):
                    for statement in statements:
                        self._ask(statement)
                    self._ask(f"PRAGMA user_version = {version}")

    def _version(self) -> int:
        return int(self._number("PRAGMA user_version"))

    def _found(self) -> tuple[int, int]:
        status = self._file.stat()
        return status.st_dev, status.st_ino

    def write(self, rows: Sequence[Row]) -> None:
        with _told():
            if self._found() != self._inode:
                raise StoreError("the file was replaced")
            with self._transaction():
                self._connection.executemany(INSERT_ONE, values_of(rows))

    def prune(self, oldest: float, max_bytes: int) -> int:
        count = 0
        while (deleted := self._delete(oldest)) or self.used_bytes() > max_bytes:
            deleted = deleted or self._delete(float("inf"))
            if not deleted:
                break
            count += deleted
        if count:
            with _told():
                self._connection.executescript("PRAGMA incremental_vacuum")  # `execute` would take one step of it
        return count

    def _delete(self, before: float) -> int:
        with _told():
            return self._connection.execute(DELETE_OLDEST, (before, PRUNE_ROWS)).rowcount

    def used_bytes(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return int(pages * self._number("PRAGMA page_size"))

    def _number(self, sql: str) -> Any:
        return self._ask(sql)[0][0]

    def _ask(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with _told():
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._ask("BEGIN IMMEDIATE")
        try:
            yield
            self._ask("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # what went wrong before says more
                self._connection.rollback()
            raise

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _told() -> Iterator[None]:
    """SQLite's and the system's failures as ours."""
    try:
        yield
    except sqlite3.Error as exc:
        # The low byte is the failure itself, what is above it a detail.
        is_broken = getattr(exc, "sqlite_errorcode", 0) & 0xFF in BROKEN
        raise (StoreCorrupt if is_broken else StoreError)(str(exc)) from exc
    except OSError as exc:
        raise StoreError((exc.strerror or "unknown reason").lower()) from exc
