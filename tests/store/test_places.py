"""The store that the settings name."""

import sqlite3
import sys
from pathlib import Path

import pytest

from proxy.config_file import ConfigError
from proxy.record_settings import RecordSettings
from proxy.settings import Settings
from proxy.store.filters import Filter
from proxy.store.places import kept_records, open_reader, secrets_of, start_writer
from tests.store.records import KINDS, ids, record, settings_for, store_with


def test_without_a_file_no_records_are_kept() -> None:
    assert start_writer(RecordSettings()) is None
    with pytest.raises(ConfigError, match="--records-file"), open_reader(RecordSettings()):
        pass


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_writer_writes_the_reader_reads(tmp_path: Path, kind: str) -> None:
    settings = settings_for(kind, tmp_path, keep_days=36_500)
    async with kept_records(Settings(records=settings)) as writer:
        assert writer is not None
        writer.put(record(1))
    with open_reader(settings) as store:
        assert ids(store.find(Filter())) == [1]


@pytest.mark.parametrize(("name", "reason"), [("no/where.db", "there is no folder"), ("", "is a folder")])
def test_a_place_that_cannot_be_is_refused_at_the_start(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        start_writer(RecordSettings(file=tmp_path / name))


def test_a_newer_database_is_refused_and_a_broken_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    store_with(file, [record(1)]).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="version 99"):
        start_writer(RecordSettings(file=file))
    file.write_bytes(b"x" * 5000)
    writer = start_writer(RecordSettings(file=file))
    assert writer is not None
    writer.close()


def test_a_reader_says_that_there_is_nothing_yet_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no records yet"), open_reader(RecordSettings(file=tmp_path / "r.db")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_its_driver_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "proxy.store.postgres", raising=False)
    with pytest.raises(ConfigError, match=r"weir-proxy\[postgres\]"):
        start_writer(RecordSettings.model_validate({"url": "postgresql://h/db"}))


def test_our_own_secrets_are_known_to_the_redactor() -> None:
    urls = [
        "postgresql://u:p%40ss@h1:5432,h2/db?sslpassword=other&x=y",
        "postgresql:///db?password=p%40ss&sslpassword=other",
    ]
    for url in urls:
        settings = Settings.model_validate({"records": {"url": url}, "guard": {"token": "t"}})
        assert secrets_of(settings) == ["t", "p@ss", "other"]
    assert secrets_of(Settings()) == []
