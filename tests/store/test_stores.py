"""What every store does, a file's and a server's: written records are found again, old ones go, versions are told."""

import json
import time
from functools import cache
from pathlib import Path

import pytest

from proxy.record_settings import RecordSettings
from proxy.store.base import StoreError, StoreUnusable
from proxy.store.filters import Filter
from proxy.store.places import place_of
from proxy.store.row import COLUMNS, Row, row_of
from proxy.store.schema import STEPS, VERSION
from proxy.store.sqlite import TYPES
from proxy.trace import unpack
from tests.store.records import KINDS, START, cut, execute, ids, opened, record, settings_for


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> RecordSettings:
    return settings_for(request.param, tmp_path)


def types_of(settings: RecordSettings) -> dict[str, str]:
    if settings.file is not None:
        return TYPES
    from proxy.store.postgres import TYPES as POSTGRES_TYPES

    return POSTGRES_TYPES


def set_version(settings: RecordSettings, version: int, *, is_new: bool = False) -> None:
    if settings.file is not None:
        execute(settings, f"PRAGMA user_version = {version}")
    elif is_new:
        execute(settings, "CREATE TABLE weir_records_version (version INTEGER NOT NULL)")
        execute(settings, f"INSERT INTO weir_records_version VALUES ({version})")
    else:
        execute(settings, f"UPDATE weir_records_version SET version = {version}")


def test_what_is_written_is_found_again_once(settings: RecordSettings) -> None:
    store = opened(settings, [record(1), cut(2)])
    store.write([row_of(cut(2)), row_of(record(3))])  # a batch whose end was not seen is written again
    assert ids(store.find(Filter())) == [3, 2, 1]
    store.close()
    again = place_of(settings).open(is_reader=True)
    assert ids(again.find(Filter(outcome="cut"))) == [2]
    again.close()


def test_a_row_comes_back_as_it_was_whatever_is_in_it(settings: RecordSettings) -> None:
    one = cut(7, model="g\u00fc\u4f60\U0001f600'\"\\%s?{}", error="\x00\ud800 '; DROP TABLE records; --")
    one.trace([{"role": "user", "content": "\u4f60 ?%b"}], {}, keeps_text=True)
    store = opened(settings, [one])
    found = store.show(row_of(one).id)
    assert found is not None
    packed = row_of(one).trace
    assert packed is not None
    assert found.pop("trace") == unpack(packed)
    assert found == json.loads(row_of(one).body)
    assert ids(store.find(Filter(model=one.model))) == [7]
    store.close()


def test_a_reader_finds_what_is_there_and_changes_nothing(settings: RecordSettings) -> None:
    with pytest.raises(StoreError):
        place_of(settings).open(is_reader=True)
    opened(settings, [record(1)]).close()
    reader = place_of(settings).open(is_reader=True)
    with pytest.raises(StoreError, match=r"read-?only"):
        reader.write([row_of(record(2))])
    with pytest.raises(StoreError, match=r"read-?only"):
        reader.prune(START + 10, 1)
    assert ids(reader.find(Filter())) == [1]
    reader.close()


def test_what_is_too_old_goes(settings: RecordSettings) -> None:
    store = opened(settings, [record(number) for number in range(1000)])
    assert store.prune(START + 900, 1 << 30) == 900
    assert ids(store.find(Filter())) == list(range(999, 899, -1))
    assert store.prune(START + 900, 1 << 30) == 0
    store.close()


def test_what_is_too_much_goes_the_oldest_first(settings: RecordSettings) -> None:
    store = opened(settings, [record(number) for number in range(3000)])
    before = store.used_bytes()
    assert before > 2 << 20
    assert store.prune(0.0, 1 << 20) > 0
    while store.prune(0.0, 1 << 20):
        pass
    left = ids(store.find(Filter()))
    assert left == list(range(2999, 2999 - len(left), -1))
    assert len(left) > 500
    assert (1 << 20) - (1 << 18) < store.used_bytes() <= 1 << 20
    store.close()


def test_a_limit_below_an_empty_database_ends(settings: RecordSettings) -> None:
    store = opened(settings, [record(1)])
    assert store.prune(0.0, 1) == 1
    assert store.prune(0.0, 1) == 0
    store.close()


def test_a_database_of_the_first_version_is_brought_up_to_date(settings: RecordSettings) -> None:
    row = row_of(record(1))
    execute(settings, *(statement.format_map(types_of(settings)) for statement in STEPS[0]))
    values = ", ".join(
        f"'{text}'" if isinstance(text := getattr(row, name), str) else str(text) for name in COLUMNS[:-1]
    )
    execute(settings, f"INSERT INTO records VALUES ({values})")
    set_version(settings, 1, is_new=True)
    with pytest.raises(StoreUnusable, match="older version"):
        place_of(settings).open(is_reader=True)
    store = opened(settings, [record(2)])
    assert ids(store.find(Filter())) == [2, 1]
    assert store.show(row.id) == json.loads(row.body)
    assert store.used_bytes() > 0
    store.close()


def test_a_database_of_a_newer_weir_is_left_alone(settings: RecordSettings) -> None:
    opened(settings, [record(1)]).close()
    set_version(settings, VERSION + 1)
    for is_reader in (True, False):
        with pytest.raises(StoreUnusable, match="upgrade Weir"):
            place_of(settings).open(is_reader=is_reader)


@cache
def ten_thousand_rows() -> list[Row]:
    return [row_of(cut(number) if number % 100 == 0 else record(number)) for number in range(10_000)]


def test_ten_thousand_records_are_written_and_searched_in_seconds(settings: RecordSettings) -> None:
    rows, store = ten_thousand_rows(), opened(settings)
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
    # About 0.5 s and 0.02 s where it was made; what is far off has lost an index or its batches.
    assert written - begin < 20
    assert searched - written < 5
