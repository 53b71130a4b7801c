"""Records in PostgreSQL, where several instances share them.

Nothing is kept in a session but what `_transaction` sets for one transaction, so that a pooler may stand between.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from threading import Timer
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from proxy.store.base import StoreError, StoreRefused, StoreUnusable
from proxy.store.row import Row
from proxy.store.schema import VERSION, check_version, steps_from
from proxy.store.sql import DELETE_OLDEST, INSERT, SqlStore, values_of

# The server ends a statement that takes longer, as one that waits for another's lock. Looking for old records in a
# large database takes seconds.
STATEMENT_SECONDS = 20
# A server that says nothing for longer is gone, whatever its connection looks like.
SILENCE_SECONDS = 30
# For an old database that is brought up to date.
MIGRATION_SECONDS = 3600
# What the URL does not set. A network that swallows packets is noticed before SILENCE_SECONDS.
DEFAULTS = {
    "application_name": "weir",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",  # milliseconds
    "client_encoding": "UTF8",
}
# With others, some text could never be written.
ENCODINGS = ("UTF8", "SQL_ASCII")
MAX_SAID_CHARACTERS = 300

TYPES = {"id": 'TEXT COLLATE "C"', "real": "DOUBLE PRECISION", "blob": "BYTEA"}
# The table gives no space back to the disk, so what its records take is summed up, from an index that is small.
# 400: a row's other columns, its header and its places in the indexes.
SIZED = (
    "ALTER TABLE records ADD COLUMN size INTEGER "
    "GENERATED ALWAYS AS (length(body) + COALESCE(length(trace), 0) + 400) STORED",
    "CREATE INDEX records_size ON records (size)",
)
MORE = {2: SIZED}
# All rows in one statement, a column a parameter, and in binary: a statement a row, or text, which has to be escaped,
# takes five times as long.
KINDS: Mapping[object, str] = {str: "TEXT", float: "DOUBLE PRECISION", int: "INTEGER", bytes | None: "BYTEA"}
INSERT_COLUMNS = INSERT.format(
    f"SELECT * FROM unnest({', '.join(f'%b::{KINDS[field.type]}[]' for field in fields(Row))})"
)
USED_BYTES = "SELECT COALESCE(SUM(size), 0) FROM records"
# The fewest of the oldest that together are as large as is asked for.
DELETE_BYTES = (
    "DELETE FROM records WHERE id IN (SELECT id FROM ("
    "SELECT id, SUM(size) OVER (ORDER BY started, id) - size AS before "
    "FROM (SELECT id, started, size FROM records ORDER BY started, id LIMIT ?) AS oldest) AS summed WHERE before < ?)"
)
# Deleted in one transaction; between two of them records are written.
PRUNE_ROWS = 5000
# Two numbers name a lock: ours and what it is for, and the schema that the tables are in.
MIGRATE_LOCK, PRUNE_LOCK = 0x57454952, 0x57454953
LOCKED = "({}, hashtext(current_schema()::text))"
LIMITS = (
    "SELECT set_config('statement_timeout', ?, true), set_config('lock_timeout', ?, true), "
    "set_config('idle_in_transaction_session_timeout', ?, true)"
)
VISIBLE = "SELECT COUNT(*) FROM pg_catalog.pg_class WHERE relname = ? AND pg_catalog.pg_table_is_visible(oid)"
NOT_OURS = "there is a table named records that is not Weir's: name a database or a schema of its own"


class PostgresPlace:
    """Where the store is, as libpq's URLs tell it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def name(self) -> str:
        found = _parameters(self._url)
        host = found.get("host") or found.get("hostaddr") or found.get("service") or "the default host"
        return f"{host}{':' * ('port' in found)}{found.get('port', '')}/{found.get('dbname', '')}"

    def open(self, *, is_reader: bool = False) -> "PostgresStore":
        return PostgresStore(self._url, is_reader=is_reader)

    def set_aside(self) -> str:
        raise OSError("a server mends itself")  # and calls nothing of it corrupt


class PostgresStore(SqlStore):
    def __init__(self, url: str, *, is_reader: bool = False) -> None:
        """A reader makes and changes nothing, and finds no records of another version. Raises StoreError."""
        self._parameters = _parameters(url)
        self._is_reader = is_reader
        with self._told():
            self._connection = psycopg.connect(**self._parameters, autocommit=True, prepare_threshold=None)
            # For the timer's thread: a descriptor of its own, which stays ours until we close it.
            self._socket = socket.fromfd(self._connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        try:
            if (encoding := self._connection.info.parameter_status("server_encoding")) not in ENCODINGS:
                raise StoreUnusable(f"the database has the encoding {encoding}, and needs UTF8")
            with self._transaction():
                found = self._version()
            if found < VERSION and not is_reader:
                found = self._migrated()
            check_version(found)
        except BaseException:
            self.close()
            raise

    def _migrated(self) -> int:
        """By one instance; others wait for it. Returns the version that is there then."""
        with self._transaction(is_long=True):
            self._run(f"SELECT pg_advisory_xact_lock{LOCKED.format(MIGRATE_LOCK)}")
            found = self._version()  # again: another instance may have been faster
            if found == 0:
                if self._has("records"):
                    raise StoreUnusable(NOT_OURS)
                self._run("CREATE TABLE weir_records_version (version INTEGER NOT NULL)")
                self._run("INSERT INTO weir_records_version VALUES (0)")
            for version, statements in steps_from(found, TYPES, MORE):
                for statement in statements:
                    self._run(statement)
                self._run("UPDATE weir_records_version SET version = ?", [version])
            return self._version()

    def _version(self) -> int:
        """0 where there are no tables yet."""
        if not self._has("weir_records_version"):
            return 0
        return int(self._number("SELECT MAX(version) FROM weir_records_version"))

    def _has(self, table: str) -> bool:
        # Not by to_regclass, which may remember what it found before another instance made the table.
        return bool(self._number(VISIBLE, [table]))

    def write(self, rows: Sequence[Row]) -> None:
        if rows:
            with self._transaction():
                self._run(INSERT_COLUMNS, [list(column) for column in zip(*values_of(rows), strict=True)])

    def prune(self, oldest: float, max_bytes: int) -> int:
        """At most PRUNE_ROWS, and none while another instance does it."""
        with self._transaction():
            if not self._number(f"SELECT pg_try_advisory_xact_lock{LOCKED.format(PRUNE_LOCK)}"):
                return 0
            deleted = int(self._run(DELETE_OLDEST, [oldest, PRUNE_ROWS]).rowcount)
            if not deleted and (excess := self._number(USED_BYTES) - max_bytes) > 0:
                deleted = int(self._run(DELETE_BYTES, [PRUNE_ROWS, excess]).rowcount)
            return deleted

    def used_bytes(self) -> int:
        return int(self._ask(USED_BYTES)[0][0])

    def _ask(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._transaction():
            return list(self._run(sql, parameters).fetchall())

    def _number(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        [(number,)] = self._run(sql, parameters).fetchall()
        return number

    def _run(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        with self._told():
            return self._connection.execute(_numbered(sql), parameters)

    @contextmanager
    def _transaction(self, *, is_long: bool = False) -> Iterator[None]:
        """The server ends what takes longer than it should, and we what the server does not."""
        seconds = MIGRATION_SECONDS if is_long else STATEMENT_SECONDS
        timer = Timer(seconds + SILENCE_SECONDS - STATEMENT_SECONDS, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            with self._told(), self._connection.transaction():
                limits = [f"{limit * 1000:.0f}" for limit in (seconds, STATEMENT_SECONDS, SILENCE_SECONDS)]
                self._run(LIMITS, limits)
                if self._is_reader:
                    self._run("SET TRANSACTION READ ONLY")
                yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError):  # it is closed by now
            self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The driver's failures as ours, without a password."""
        try:
            yield
        except psycopg.Error as exc:
            is_refused = isinstance(exc, psycopg.DataError | psycopg.IntegrityError)
            raise (StoreRefused if is_refused else StoreError)(_said(exc, self._parameters)) from exc

    def close(self) -> None:
        self._socket.close()
        self._connection.close()


def _parameters(url: str) -> dict[str, Any]:
    try:
        return {**DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error:
        raise StoreUnusable("its URL is none that PostgreSQL's libpq reads") from None  # what it says quotes the URL


def _said(exc: psycopg.Error, parameters: dict[str, Any]) -> str:
    """One line. The server's own words; of a connection that failed, libpq's."""
    said = " ".join((exc.diag.message_primary or str(exc) or type(exc).__name__).split())[:MAX_SAID_CHARACTERS]
    secrets = [text for name, text in parameters.items() if "password" in name and text]
    for secret in secrets:
        said = said.replace(secret, "***")
    return said


def _numbered(sql: str) -> Any:
    """With the driver's sign for a parameter."""
    return sql.replace("?", "%s")
