"""Searching: order, pages, and every filter beside a slow judge."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from proxy.records import RequestOutcome
from proxy.store.filters import Filter
from proxy.store.row import category_of
from tests.store.records import KINDS, START, cut, ids, opened, record, settings_for

MODELS = ["gpt-4", "GPT-4o", "100%", "a_b", "axb"]
RECORDS = [
    (cut if number % 3 == 0 else record)(number, model=MODELS[number % 5], started=START + number // 2)
    for number in range(60)
]
FILTERS = [
    Filter(),
    Filter(since=START + 7),
    Filter(until=START + 7),
    Filter(since=START + 3, until=START + 20, outcome="cut"),
    Filter(category="Violent"),
    Filter(category="Sexual Content"),
    Filter(model="gpt-*"),
    Filter(model="100%"),
    Filter(model="A_B"),
    Filter(model="*", outcome="complete"),
    Filter(key="nobody"),
]


def fits(wanted: Filter, number: int) -> bool:
    one = RECORDS[number]
    return (
        (wanted.since is None or one.started >= wanted.since)
        and (wanted.until is None or one.started < wanted.until)
        and (wanted.outcome is None or one.outcome == wanted.outcome)
        and (wanted.category is None or category_of(one.as_dict()) == wanted.category)
        and (wanted.key is None or wanted.key == "")
        and (wanted.model is None or fnmatchcase(one.model.lower(), wanted.model.lower()))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 7, 500])
def test_every_filter_finds_what_a_slow_judge_finds_in_order_whatever_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, kind: str
) -> None:
    monkeypatch.setattr("proxy.store.sql.PAGE_ROWS", rows)
    store = opened(settings_for(kind, tmp_path), RECORDS)
    for wanted in FILTERS:
        expected = [number for number in range(60) if fits(wanted, number)]
        assert ids(store.find(wanted, newest_first=False)) == expected
        assert ids(store.find(wanted)) == expected[::-1]
        assert ids(store.find(wanted, most=9)) == expected[::-1][:9]
    store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_shown_by_its_id_or_by_a_beginning_that_is_its_alone(tmp_path: Path, kind: str) -> None:
    settings = settings_for(kind, tmp_path)
    store = opened(settings, [record(0x10)])
    assert store.show("weir-0") is not None
    store.close()
    store = opened(settings, [record(0x11, outcome=RequestOutcome.ERROR)])
    found = store.show(f"weir-{0x11:032x}")
    assert found is not None
    assert found["outcome"] == "error"
    assert store.show(f"weir-{0x11:032x}"[:-1]) is None
    store.write([])
    assert store.show("weir-1") is None
    assert store.show("%") is None
    store.close()
