"""Queries of the page as filters."""

import time

import pytest

from proxy.console.search import read_search
from proxy.request_body import BadRequest
from proxy.store.filters import Filter


def test_empty_fields_are_no_conditions() -> None:
    assert read_search([("outcome", ""), ("model", "  "), ("limit", "")]) == (Filter(), 50)


def test_every_field_is_a_condition() -> None:
    query = [("outcome", "cut"), ("category", "Violent"), ("key", "alice"), ("model", "gpt-*"), ("limit", "7")]
    wanted, most = read_search([*query, ("until", "1700000000.5")])
    assert wanted == Filter(None, 1700000000.5, "cut", "Violent", "alice", "gpt-*")
    assert most == 7


def test_times_are_ages_or_moments() -> None:
    wanted, _ = read_search([("since", "24h")])
    assert wanted.since is not None
    assert abs(time.time() - 86_400 - wanted.since) < 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("outcome", "nice"),
        ("since", "yesterday"),
        ("until", "9" * 400),
        ("limit", "0"),
        ("limit", "501"),
        ("limit", "-1"),
        ("limit", "9" * 200),
        ("model", "m" * 257),
        ("key", "a\x00b"),
        ("sql", "1"),
    ],
)
def test_what_is_no_search_is_refused(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_search([(name, text)])
    assert caught.value.status == 400
    assert len(text) < 4 or text not in caught.value.message


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest):
        read_search([("key", "a"), ("key", "b")])
