"""Times as people write them, and a filter as SQL."""

from datetime import datetime

import pytest

from proxy.store.filters import Filter, moment

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90m", 5400), ("24h", 86_400), ("7d", 7 * 86_400), ("2w", 14 * 86_400)]
)
def test_a_time_may_be_so_long_ago(text: str, seconds: int) -> None:
    assert moment(text, NOW) == NOW - seconds


def test_a_time_may_be_a_date_local_unless_it_has_a_zone() -> None:
    assert moment("2026-01-31", NOW) == datetime(2026, 1, 31).timestamp()
    assert moment("2026-01-31T12:00:00+00:00", NOW) == 1769860800.0
    assert moment("2026-01-31T12:00:00Z", NOW) == 1769860800.0


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 d", "99999999d", "yesterday", "2026-13-01", "0001-01-01x"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="24h"):
        moment(text, NOW)


def test_a_filter_without_wishes_fits_all() -> None:
    assert Filter().where() == ("TRUE", [])


def test_each_wish_is_a_condition_and_no_text_of_it_is_sql() -> None:
    sql, values = Filter(since=1.0, until=2.0, outcome="cut'", category="c", key="k", model="GPT_4%\\*").where()
    assert sql.count("?") == len(values) == 6
    assert "cut" not in sql
    assert values[-1] == r"gpt\_4\%\\%"
