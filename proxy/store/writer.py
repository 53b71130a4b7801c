"""The thread that writes records. Whatever becomes of the disk, `put` returns at once and memory stays bounded.

A store that fails is closed and opened anew, later and later, until it works; what does not fit into the queue
meanwhile is dropped and counted. One that is corrupt is set aside, and a new one begun.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from proxy.errors import place_of
from proxy.records import Record
from proxy.redaction import Redactor
from proxy.store.base import Place, Store, StoreCorrupt, StoreError, StoreRefused
from proxy.store.row import NOTHING_ELSE, Row, row_of

LOGGER = logging.getLogger("weir.store")

# Records that wait for the disk. At 1,000 requests a second, a stall of 10 s loses none.
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 << 20
# Records of one transaction: enough that its cost does not count.
BATCH_ROWS = 500
# Between a failure and the next try.
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
# Between two looks for what is too old or too much.
PRUNE_SECONDS = 60.0
# Between two lines of the log that say that records are being lost.
TELL_SECONDS = 60.0
# How long a stop waits for what is queued.
CLOSE_SECONDS = 5.0
DAY_SECONDS = 86_400


class RecordWriter:
    """`put` and `close` are for any thread. Use from `start` to `close`."""

    def __init__(
        self,
        place: Place,
        *,
        keep_days: int,
        max_bytes: int,
        max_queued: int = MAX_QUEUED,
        redactor: Redactor = NOTHING_ELSE,
    ) -> None:
        self._place = place
        self._redactor = redactor
        self.retain(keep_days, max_bytes)
        self._max_queued = max_queued
        self._queue: deque[Record] = deque()
        self._bytes = 0  # of the queue
        self._change = threading.Condition()
        self._is_closing = False
        self._store: Store | None = None
        self._rows: list[Row] = []  # the batch that is to be written next
        self._retry_seconds = 0.0
        self._next_prune = 0.0
        self._is_pruning = False  # there is more to delete
        self._next_tell = 0.0
        self._is_failing = False
        self.written = 0
        self.dropped = 0
        self._told = 0  # of those dropped
        self._thread = threading.Thread(target=self._run, name="weir-records", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, record: Record) -> None:
        """Never waits for the disk. The record must not change any more."""
        with self._change:
            if len(self._queue) >= self._max_queued or self._bytes + record.bytes_held > MAX_QUEUED_BYTES:
                self.dropped += 1
            else:
                self._queue.append(record)
                self._bytes += record.bytes_held
                self._change.notify()

    def retain(self, keep_days: int, max_bytes: int) -> None:
        """Go by these limits, from the next look for what is too old or too much on."""
        self.keep_days, self.max_bytes = keep_days, max_bytes

    def hide(self, secrets: Sequence[str]) -> None:
        """Star these out as well, wherever they are said."""
        self._redactor = self._redactor.also(secrets)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is queued, if that can be done in time."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(seconds)
        left = len(self._queue) + len(self._rows)
        if left or self.dropped > self._told:
            LOGGER.warning("records: %d were lost", left + self.dropped - self._told)

    def _run(self) -> None:
        while self._wait():
            try:
                self._work()
            except StoreError as exc:
                self._fail(exc)
        if self._store is not None:
            self._store.close()

    def _wait(self) -> bool:
        """Until there is something to do; False once there never will be, or it cannot be done before the end."""
        with self._change:
            if self._is_failing:
                self._change.wait_for(lambda: self._is_closing, self._retry_seconds)
            elif not self._rows and not self._is_pruning:
                self._change.wait_for(lambda: self._queue or self._is_closing, PRUNE_SECONDS)
            return bool(self._queue or self._rows) or not self._is_closing

    def _work(self) -> None:
        if self._store is None:
            self._store = self._place.open()
        if not self._rows:
            self._rows = self._take()
        if self._rows:
            self._write(self._store)
        if self._is_pruning or time.monotonic() >= self._next_prune:
            self._is_pruning = self._store.prune(time.time() - self.keep_days * DAY_SECONDS, self.max_bytes) > 0
            self._next_prune = time.monotonic() + PRUNE_SECONDS
        self._recover()

    def _write(self, store: Store) -> None:
        """The rows in one go; where that is refused, one by one without those that cannot be kept."""
        try:
            store.write(self._rows)
            self.written += len(self._rows)
            self._rows = []
        except StoreRefused:
            while self._rows:
                self._write_one(store)

    def _write_one(self, store: Store) -> None:
        try:
            store.write(self._rows[:1])
            self.written += 1
        except StoreRefused as exc:
            LOGGER.error("records: one cannot be kept: %s", exc)
            self.dropped += 1
        del self._rows[0]

    def _take(self) -> list[Row]:
        with self._change:
            records = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_ROWS))]
            self._bytes -= sum(record.bytes_held for record in records)
        rows = [row for record in records if (row := _row(record, self._redactor)) is not None]
        with self._change:
            self.dropped += len(records) - len(rows)
        return rows

    def _fail(self, exc: StoreError) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        if isinstance(exc, StoreCorrupt) and self._set_aside(exc):
            pass  # it has been told
        elif not self._is_failing:
            LOGGER.warning("records: cannot be written: %s; up to %d wait in memory", exc, self._max_queued)
            self._next_tell = time.monotonic() + TELL_SECONDS
        self._retry_seconds = min(max(FIRST_RETRY_SECONDS, 2 * self._retry_seconds), LAST_RETRY_SECONDS)
        self._is_failing = True
        self._tell(exc)
        if self._is_closing:
            self._give_up()

    def _set_aside(self, exc: StoreCorrupt) -> bool:
        try:
            where = self._place.set_aside()
        except OSError:
            return False
        LOGGER.error("records: the database is broken (%s); it is now %s, and a new one is begun", exc, where)
        return True

    def _tell(self, exc: StoreError) -> None:
        if self.dropped > self._told and time.monotonic() >= self._next_tell:
            LOGGER.warning("records: %d were lost: %s", self.dropped - self._told, exc)
            self._told, self._next_tell = self.dropped, time.monotonic() + TELL_SECONDS

    def _recover(self) -> None:
        if self._is_failing:
            LOGGER.warning("records: are written again; %d were lost in all", self.dropped)
            self._told = self.dropped
        self._is_failing, self._retry_seconds = False, 0.0

    def _give_up(self) -> None:
        with self._change:
            self.dropped += len(self._queue) + len(self._rows)
            self._queue.clear()
            self._bytes = 0
            self._rows = []


def _row(record: Record, redactor: Redactor) -> Row | None:
    try:
        return row_of(record, redactor)
    except Exception as exc:  # a mistake of ours costs one record, not all that follow
        LOGGER.error("records: one cannot be kept: %s", place_of(exc))
        return None
