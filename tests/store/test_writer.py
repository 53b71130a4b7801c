"""The thread that writes: whatever the store does, `put` returns, memory is bounded, and it recovers."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.records import Record
from proxy.store import writer as writer_module
from proxy.store.base import StoreCorrupt, StoreError, StoreRefused
from proxy.store.filters import Filter
from proxy.store.row import Row
from proxy.store.writer import RecordWriter
from tests.sockets import PATIENCE_SECONDS
from tests.store.records import record


@dataclass
class Scripted:
    """A place and its store: keeps rows in memory, fails and waits on demand."""

    fault: StoreError | None = None
    hangs: threading.Event | None = None  # writes wait for it
    rows: list[Row] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    aside: int = 0
    pruned: list[tuple[float, int]] = field(default_factory=list)
    to_prune: int = 0  # parts
    refused: str = ""  # a row's id

    def name(self) -> str:
        return "in memory"

    def open(self, *, is_reader: bool = False) -> "Scripted":
        self.opened += 1
        if self.fault is not None:
            raise self.fault
        return self

    def write(self, rows: Sequence[Row]) -> None:
        if self.hangs is not None:
            self.hangs.wait(PATIENCE_SECONDS)
        if self.fault is not None:
            raise self.fault
        if any(row.id == self.refused for row in rows):
            raise StoreRefused("no such row")
        self.rows += rows
        self.batches.append(len(rows))

    def prune(self, oldest: float, max_bytes: int) -> int:
        self.pruned.append((oldest, max_bytes))
        self.to_prune -= 1
        return max(0, self.to_prune)

    def used_bytes(self) -> int:
        raise NotImplementedError  # it prunes by it, and the writer does not ask

    def find(self, wanted: Filter, *, newest_first: bool = True, most: int | None = None) -> Iterator[dict[str, Any]]:
        raise NotImplementedError  # a writer never reads

    def show(self, name: str) -> dict[str, Any] | None:
        raise NotImplementedError  # nor does it show

    def close(self) -> None:
        self.closed += 1

    def set_aside(self) -> str:
        self.aside += 1
        self.fault = None
        return "elsewhere"


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "LAST_RETRY_SECONDS", 0.02)


def writing(place: Scripted, max_queued: int = 100) -> RecordWriter:
    writer = RecordWriter(place, keep_days=7, max_bytes=1000, max_queued=max_queued)
    writer.start()
    return writer


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def written_at_once(place: Scripted, count: int) -> RecordWriter:
    """So many records, all of which wait before the first is written."""
    place.hangs = threading.Event()
    writer = writing(place)
    for number in range(count):
        writer.put(record(number))
    place.hangs.set()
    writer.close()
    return writer


def test_all_is_written_in_order_and_in_batches() -> None:
    place = Scripted()
    writer = written_at_once(place, 60)
    assert [row.started for row in place.rows] == sorted(row.started for row in place.rows)
    assert (len(place.rows), writer.written, writer.dropped, place.closed) == (60, 60, 0, 1)
    assert len(place.batches) <= 3


def test_a_store_that_hangs_costs_records_and_no_time(caplog: pytest.LogCaptureFixture) -> None:
    place = Scripted(hangs=threading.Event())
    writer = writing(place, max_queued=50)
    for number in range(5000):
        writer.put(record(number))  # the store hangs until this is over
    assert not place.batches
    assert writer.dropped >= 4800
    writer.close(0.05)
    assert "were lost" in caplog.text
    assert place.hangs is not None
    place.hangs.set()


def test_a_store_that_fails_is_opened_again_and_nothing_is_lost_that_fits(caplog: pytest.LogCaptureFixture) -> None:
    place = Scripted(fault=StoreError("database or disk is full"))
    writer = writing(place)
    for number in range(20):
        writer.put(record(number))
    until(lambda: place.opened > 3)
    place.fault = None
    until(lambda: writer.written == 20)
    place.fault = StoreError("database is locked")
    writer.put(record(20))
    until(lambda: place.closed > 0)
    place.fault = None
    until(lambda: writer.written == 21)
    writer.close()
    assert [row.id for row in place.rows] == [f"weir-{number:032x}" for number in range(21)]
    said = [line.getMessage() for line in caplog.records]
    assert said == [
        "records: cannot be written: database or disk is full; up to 100 wait in memory",
        "records: are written again; 0 were lost in all",
        "records: cannot be written: database is locked; up to 100 wait in memory",
        "records: are written again; 0 were lost in all",
    ]


def test_what_is_lost_is_told_once_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "TELL_SECONDS", 0.1)
    place = Scripted(fault=StoreError("x"))
    writer = writing(place, max_queued=5)
    begin = time.monotonic()
    while time.monotonic() < begin + 0.5:
        writer.put(record(1))
        time.sleep(0.001)
    place.fault = None
    writer.close()
    seconds = time.monotonic() - begin
    lines = [line.getMessage() for line in caplog.records if "were lost: x" in line.getMessage()]
    assert 1 <= len(lines) <= seconds / 0.1 + 1
    assert f"{writer.dropped} were lost in all" in caplog.text


def test_a_corrupt_store_is_set_aside_and_a_new_one_begun(caplog: pytest.LogCaptureFixture) -> None:
    place = Scripted(fault=StoreCorrupt("file is not a database"))
    writer = writing(place)
    writer.put(record(1))
    until(lambda: writer.written == 1)
    writer.close()
    assert place.aside == 1
    assert "file is not a database" in caplog.text
    assert "elsewhere" in caplog.text


def test_a_stop_while_the_store_fails_is_quick_and_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FIRST_RETRY_SECONDS", 3600)
    monkeypatch.setattr(writer_module, "LAST_RETRY_SECONDS", 3600)
    place = Scripted(fault=StoreError("x"))
    writer = writing(place)
    writer.put(record(1))
    until(lambda: place.opened > 0)
    begin = time.monotonic()
    writer.close(3600)
    assert time.monotonic() - begin < PATIENCE_SECONDS
    assert "1 were lost" in caplog.text


def test_a_record_that_cannot_be_kept_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    place = Scripted()
    writer = writing(place)
    bad: Record = record(1)
    bad.channels = None  # type: ignore[assignment]
    for one in (record(0), bad, record(2)):
        writer.put(one)
    writer.close()
    assert (writer.written, writer.dropped) == (2, 1)
    assert "cannot be kept: TypeError" in caplog.text


def test_what_is_old_is_looked_for_from_the_start() -> None:
    place = Scripted()
    writer = writing(place)
    writer.put(record(1))
    writer.close()
    [(oldest, most)] = place.pruned
    assert abs(time.time() - 7 * 86_400 - oldest) < 10
    assert most == 1000


def test_what_goes_in_parts_goes_at_once_and_records_are_written_between() -> None:
    place = Scripted(to_prune=5)
    writer = writing(place)
    writer.put(record(1))
    until(lambda: len(place.pruned) == 5)
    writer.put(record(2))
    until(lambda: writer.written == 2)
    writer.close()
    assert len(place.pruned) == 5


def test_a_row_that_is_refused_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    place = Scripted(refused=f"weir-{3:032x}")
    writer = written_at_once(place, 6)
    assert [row.id for row in place.rows] == [f"weir-{number:032x}" for number in (0, 1, 2, 4, 5)]
    assert (writer.written, writer.dropped) == (5, 1)
    assert "one cannot be kept: no such row" in caplog.text


def test_limits_may_change_while_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "PRUNE_SECONDS", 0.05)
    place = Scripted()
    writer = writing(place)
    writer.put(record(1))
    until(lambda: bool(place.pruned))
    writer.retain(1, 2000)
    until(lambda: place.pruned[-1][1] == 2000)
    writer.close()
    assert abs(time.time() - 86_400 - place.pruned[-1][0]) < 60
