"""Records in a file: what is written is found again, and what is too old or too much goes."""

import json
import os
import sqlite3
import stat
import time
from dataclasses import astuple
from pathlib import Path

import pytest

from proxy.store.base import StoreCorrupt, StoreError, StoreUnusable
from proxy.store.filters import Filter
from proxy.store.row import row_of
from proxy.store.schema import STEPS, VERSION
from proxy.store.sqlite import TYPES, SqliteFile, SqliteStore
from tests.store.records import START, cut, ids, record, store_with


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def test_what_is_written_is_found_again_once(file: Path) -> None:
    store = store_with(file, [record(1), cut(2)])
    store.write([row_of(cut(2)), row_of(record(3))])  # a batch whose end was not seen is written again
    assert ids(store.find(Filter())) == [3, 2, 1]
    store.close()
    again = SqliteStore(file, is_reader=True)
    assert ids(again.find(Filter(outcome="cut"))) == [2]
    again.close()


def test_only_the_owner_may_read_it(file: Path) -> None:
    store = store_with(file, [record(1)])
    for one in file.parent.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    store.close()


def test_what_is_too_old_goes(file: Path) -> None:
    store = store_with(file, [record(number) for number in range(1000)])
    assert store.prune(START + 900, 1 << 30) == 900
    assert ids(store.find(Filter())) == list(range(999, 899, -1))
    assert store.prune(START + 900, 1 << 30) == 0
    store.close()


def test_what_is_too_much_goes_the_oldest_first_and_the_disk_gets_it_back(file: Path) -> None:
    store = store_with(file, [record(number) for number in range(5000)])
    before = file.stat().st_size + file.with_name("records.db-wal").stat().st_size
    assert before > 3 << 20
    assert store.prune(0.0, 1 << 20) > 0
    left = ids(store.find(Filter()))
    assert left == list(range(4999, 4999 - len(left), -1))
    assert len(left) > 500
    store.close()
    assert file.stat().st_size < (1 << 20) + (1 << 18)


def test_a_limit_below_an_empty_database_ends(file: Path) -> None:
    store = store_with(file, [record(1)])
    assert store.prune(0.0, 1) == 1
    store.close()


def test_a_reader_needs_a_database_of_this_version(file: Path) -> None:
    with pytest.raises(StoreError):
        SqliteStore(file, is_reader=True)
    assert not file.exists()
    sqlite3.connect(file).close()
    file.touch()
    with pytest.raises(StoreUnusable, match="older version"):
        SqliteStore(file, is_reader=True)


def test_a_database_of_the_first_version_is_brought_up_to_date(file: Path) -> None:
    old = sqlite3.connect(file)
    for statement in STEPS[0]:
        old.execute(statement.format_map(TYPES))
    row = astuple(row_of(record(1)))[:-1]
    old.execute(f"INSERT INTO records VALUES ({', '.join('?' * len(row))})", row)
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    with pytest.raises(StoreUnusable, match="older version"):
        SqliteStore(file, is_reader=True)
    store = SqliteStore(file)
    store.write([row_of(record(2))])
    assert ids(store.find(Filter())) == [2, 1]
    assert store.show(f"weir-{1:032x}") == json.loads(row[-1])
    store.close()


def test_a_database_of_a_newer_weir_is_left_alone(file: Path) -> None:
    store_with(file, [record(1)]).close()
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreUnusable, match="upgrade Weir"):
        SqliteStore(file)


@pytest.mark.parametrize("size", [600, 5000])
def test_what_is_no_database_is_corrupt_and_can_be_set_aside(file: Path, size: int) -> None:
    file.write_bytes(b"x" * size)
    with pytest.raises(StoreCorrupt):
        SqliteStore(file)
    where = SqliteFile(file).set_aside()
    assert Path(where).read_bytes() == b"x" * size
    store = SqliteFile(file).open()
    store.write([row_of(record(1))])
    store.close()


def test_a_file_that_was_replaced_is_noticed(file: Path) -> None:
    store = store_with(file, [record(1)])
    file.unlink()
    with pytest.raises(StoreError, match="no such file"):
        store.write([row_of(record(2))])
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="replaced"):
        store.write([row_of(record(2))])
    store.close()


def test_a_lock_of_another_is_an_error_that_passes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.store.sqlite.BUSY_SECONDS", 0.05)
    store = store_with(file, [record(1)])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.write([row_of(record(2))])
    other.execute("ROLLBACK")
    store.write([row_of(record(2))])
    other.close()
    store.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_an_error(file: Path) -> None:
    file.parent.chmod(0o500)
    with pytest.raises(StoreError, match="permission"):
        SqliteStore(file)
    file.parent.chmod(0o700)


def test_ten_thousand_records_are_written_and_searched_in_seconds(file: Path) -> None:
    rows = [row_of(cut(number) if number % 100 == 0 else record(number)) for number in range(10_000)]
    store = SqliteStore(file)
    begin = time.perf_counter()
    for at in range(0, len(rows), 500):
        store.write(rows[at : at + 500])
    written = time.perf_counter()
    assert len(list(store.find(Filter(category="Violent")))) == 100
    assert len(list(store.find(Filter(), most=50))) == 50
    searched = time.perf_counter()
    assert store.show(f"weir-{9_999:032x}") is not None
    assert len(list(store.find(Filter(), newest_first=False))) == 10_000
    store.close()
    # About 0.3 s and 0.01 s where it was made; what is far off has lost an index or its batches.
    assert written - begin < 5
    assert searched - written < 0.5
