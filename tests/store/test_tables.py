"""What `weir records` prints."""

import io
from typing import Any

from rich.console import Console

from proxy.records import RequestOutcome
from proxy.store.tables import as_columns, print_list, print_record
from tests.store.records import cut, record


def stored(one: Any) -> dict[str, Any]:
    values: dict[str, Any] = one.as_dict()
    return values


def printed(what: Any, record: Any, *, is_terminal: bool = False) -> str:
    target = io.StringIO()
    what(record, Console(file=target, force_terminal=is_terminal, width=200))
    return target.getvalue()


def test_in_a_pipe_columns_are_divided_by_tabs() -> None:
    lines = printed(print_list, [stored(cut(7, model="gpt")), stored(record(1))]).splitlines()
    assert [len(line.split("\t")) for line in lines] == [8, 8, 8]
    assert lines[0].startswith("id\tstarted\toutcome\tcategory")
    assert lines[1].split("\t")[0] == f"weir-{7:032x}"
    assert lines[1].split("\t")[2:5] == ["cut", "Violent", "gpt"]
    assert lines[2].split("\t")[2:5] == ["complete", "", "m"]


def test_on_a_terminal_there_are_colours_and_a_word_where_there_is_nothing() -> None:
    shown = printed(print_list, [stored(cut())], is_terminal=True)
    assert "\x1b[31mcut" in shown
    assert "No records fit." in printed(print_list, [], is_terminal=True)
    assert printed(print_list, []).count("\n") == 1


def test_one_record_shows_its_numbers_and_its_channels() -> None:
    shown = printed(print_record, stored(cut(error="x")))
    assert "outcome\tcut\n" in shown
    assert "0\tcontent\t13\t13\t3\t3\tUnsafe Violent 0.90 [3:13]\tUnsafe Violent 0.90 [3:13]\n" in shown
    assert "\nguard_lag" not in shown
    assert "content" in printed(print_record, stored(cut()), is_terminal=True)
    assert "content" not in printed(print_record, stored(record(channels=[], outcome=RequestOutcome.REFUSED)))


def test_a_name_that_would_steer_a_terminal_is_spelled_out() -> None:
    for is_terminal in (True, False):
        model = "\x1b[2J\x07\u202e\r[red]"
        for what, one in ((print_list, [stored(record(model=model))]), (print_record, stored(record(model=model)))):
            shown = printed(what, one, is_terminal=is_terminal)
            assert "\\u001b[2J\\u0007\\u202e\\u000d[red]" in shown
            assert "\x1b[2J" not in shown
            assert "\r" not in shown


def test_columns_hold_single_values() -> None:
    columns = as_columns(stored(cut(unscanned_parts=("image_url", "file"))))
    assert columns["unscanned_parts"] == "image_url file"
    assert columns["tokens"] == 3
    assert columns["started"].startswith("2025-06-1")
    assert not [value for value in columns.values() if isinstance(value, dict | list)]
