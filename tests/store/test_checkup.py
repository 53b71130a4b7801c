"""What `weir doctor` says of the records."""

import stat
from pathlib import Path

import pytest

from proxy.record_settings import RecordSettings
from proxy.store.checkup import check_records
from proxy.store.schema import VERSION
from tests.store.records import KINDS, execute, opened, record, settings_for
from tests.store.unprivileged import as_nobody


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_is_told_with_its_version_and_how_full_it_is(tmp_path: Path, kind: str) -> None:
    settings = settings_for(kind, tmp_path, keep_days=7, max_bytes=5 << 20)
    before = check_records(settings)
    assert (before.status, before.todo) == ("ok", "")
    assert "`weir serve` makes" in before.said
    opened(settings, [record(1)]).close()
    found = check_records(settings)
    assert found.status == "ok"
    assert f"version {VERSION}, 0.0 MiB of 5.0 MiB, kept 7 days" in found.said
    changed = f"UPDATE weir_records_version SET version = {VERSION + 1}"
    execute(settings, f"PRAGMA user_version = {VERSION + 1}" if kind == "sqlite" else changed)
    newer = check_records(settings)
    assert newer.status == "fail"
    assert "upgrade Weir" in newer.said


def test_a_place_that_cannot_be_stops_the_start(tmp_path: Path) -> None:
    for file in (tmp_path / "no" / "where.db", tmp_path):
        found = check_records(RecordSettings(file=file))
        assert found.status == "fail"
        assert "does not start" in found.todo


def test_a_place_that_cannot_be_written_costs_records() -> None:
    with as_nobody() as folder:
        file = folder / "records.db"
        opened(RecordSettings(file=file)).close()
        for one in (file, folder):
            mode = stat.S_IMODE(one.stat().st_mode)
            one.chmod(0o500 if one.is_dir() else 0o400)
            found = check_records(RecordSettings(file=file))
            one.chmod(mode)
            assert found.status == "warn"
            assert "cannot be written" in found.said


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    file.write_bytes(b"x" * 5000)
    found = check_records(RecordSettings(file=file))
    assert found.status == "warn"
    assert "sets it aside" in found.todo


def test_a_disk_that_is_smaller_than_the_limit_is_told(tmp_path: Path) -> None:
    settings = RecordSettings(file=tmp_path / "records.db", max_bytes=1 << 50)
    opened(settings).close()
    found = check_records(settings)
    assert found.status == "warn"
    assert "max_bytes" in found.todo


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    pytest.importorskip("psycopg", reason='no PostgreSQL driver: pip install "weir-proxy[postgres]"')
    found = check_records(RecordSettings.model_validate({"url": "postgresql://u:hunter2hunter2@127.0.0.1:1/weir"}))
    assert found.status == "warn"
    assert found.said.startswith("127.0.0.1:1/weir cannot be read: ")
    assert "hunter2" not in found.said + found.todo
    broken = check_records(RecordSettings.model_validate({"url": "postgresql://u:hunter2hunter2%zz@h/weir"}))
    assert broken.status == "fail"
    assert "hunter2" not in broken.said + broken.todo
