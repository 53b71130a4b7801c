"""Records in a file: what is written is found again, and what is too old or too much goes."""

import sqlite3
import stat
from pathlib import Path

import pytest

from proxy.store.base import StoreCorrupt, StoreError, StoreUnusable
from proxy.store.filters import Filter
from proxy.store.row import row_of
from proxy.store.sqlite import SqliteFile, SqliteStore
from tests.store.records import ids, record, store_with
from tests.store.unprivileged import as_nobody


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def test_only_the_owner_may_read_it(file: Path) -> None:
    store = store_with(file, [record(1)])
    for one in file.parent.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
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


def test_a_reader_needs_a_database_of_this_version(file: Path) -> None:
    with pytest.raises(StoreError):
        SqliteStore(file, is_reader=True)
    assert not file.exists()
    sqlite3.connect(file).close()
    file.touch()
    with pytest.raises(StoreUnusable, match="no records yet"):
        SqliteStore(file, is_reader=True)


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


def test_a_folder_that_is_read_only_is_an_error() -> None:
    with as_nobody() as folder:
        folder.chmod(0o500)
        with pytest.raises(StoreError, match="permission"):
            SqliteStore(folder / "records.db")
        folder.chmod(0o700)
