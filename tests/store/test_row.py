"""A record as a row: bounded, and in words that every database takes."""

import json

import pytest

from adapters.base import Note
from proxy.store.row import COLUMNS, MAX_NAME_CHARACTERS, MAX_NAMES, category_of, clean, row_of
from tests.store.records import START, cut, record


def test_a_row_has_what_can_be_searched_and_all_of_it_as_json() -> None:
    row = row_of(cut(5, model="gpt", upstream="main", seconds=0.25))
    assert (row.id, row.started, row.model, row.upstream) == (f"weir-{5:032x}", START + 5, "gpt", "main")
    assert (row.outcome, row.status, row.scanned, row.category) == ("cut", 200, "full", "Violent")
    body = json.loads(row.body)
    assert body["channels"][0]["flagged"]["start"] == 3
    assert {name: body[name] for name in COLUMNS if name in body} == {
        name: getattr(row, name) for name in COLUMNS if name in body
    }


def test_the_category_is_of_what_was_flagged_prompt_before_answer() -> None:
    prompt = Note("prompt", 0, 0, "Unsafe", "Jailbreak", 0.9)
    assert category_of(cut().as_dict()) == "Violent"
    assert category_of(cut(prompt=prompt, prompt_flagged=True).as_dict()) == "Jailbreak"
    assert category_of(cut(prompt=prompt).as_dict()) == "Violent"
    assert category_of(record(prompt=prompt).as_dict()) == ""


def test_what_clients_choose_is_bounded() -> None:
    parts = tuple(f"part{number}" for number in range(10_000))
    row = row_of(record(model="m" * 10_000_000, unscanned_parts=parts, error="e" * 100_000, dropped_parameters=parts))
    assert row.model == "m" * MAX_NAME_CHARACTERS
    assert len(row.body) < 5000
    assert len(json.loads(row.body)["unscanned_parts"]) == MAX_NAMES
    assert len(json.loads(row.body)["dropped_parameters"]) == MAX_NAMES


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\udfff\x00"])
def test_text_that_a_database_would_refuse_is_replaced(text: str) -> None:
    assert clean(text).encode() != b""
    assert "\x00" not in clean(text)
    assert len(clean(text)) == len(text)
    assert row_of(record(model=text)).model == clean(text)
