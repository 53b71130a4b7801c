"""Which call a fragment belongs to."""

from typing import Any

import pytest

from adapters.base import Key
from adapters.errors import AdapterError
from adapters.openai_chat_calls import CallBook
from tests.adapters.test_structures import SIGNATURE


def entered(*entries: dict[str, Any]) -> list[int]:
    """The index of each fragment, each alone in its list."""
    book = CallBook()
    return [book.enter(0, entry, 0).index for entry in entries]


def test_an_index_decides() -> None:
    assert entered({"index": 4, "id": "a"}, {"index": 4, "id": "b"}, {"index": 0, "id": "a"}) == [4, 4, 0]


def test_without_an_index_the_id_decides() -> None:
    assert entered({"id": "a"}, {"id": "b"}, {"id": "a"}, {"index": 5, "id": "c"}, {"id": "d"}) == [0, 1, 0, 5, 6]


def test_without_either_the_place_decides() -> None:
    book = CallBook()
    assert [book.enter(0, {}, place).index for place in (0, 1, 0)] == [0, 1, 0]


def test_choices_have_their_own_calls() -> None:
    book = CallBook()
    assert book.enter(0, {"id": "a"}, 0).index == 0
    assert book.enter(1, {"id": "b"}, 0).index == 0


def test_too_many_calls_are_refused() -> None:
    with pytest.raises(AdapterError):
        entered(*({"id": str(i)} for i in range(129)))


def test_the_first_valid_id_stays_and_others_are_counted() -> None:
    book = CallBook()
    book.enter(0, {"index": 0, "id": "bad id !"}, 0)
    call = book.enter(0, {"index": 0, "id": "good"}, 0)
    book.enter(0, {"index": 0, "id": "other"}, 0)
    book.enter(0, {"index": 0, "id": ""}, 0)
    assert book.find(Key(0, "tool_calls.0.arguments")) is call
    assert call.announce() == {"id": "good", "type": "function"}
    assert call.is_announced
    assert book.dropped == 1


@pytest.mark.parametrize(
    "entry", [{"type": "custom"}, {"custom": {"name": "f"}}, {"type": "odd", "custom": {"input": "x"}}]
)
def test_a_custom_tool_is_known_by_its_type_or_its_field(entry: dict[str, Any]) -> None:
    assert CallBook().enter(0, entry, 0).type == "custom"


def test_a_signature_of_a_call_passes_and_what_lies_beside_it_does_not() -> None:
    book = CallBook()
    extra = {"google": {"thought_signature": SIGNATURE, "more": "x"}, "other": "x"}
    call = book.enter(0, {"index": 0, "id": "a", "function": {"name": "f"}, "extra_content": extra}, 0)
    assert call.announce()["extra_content"] == {"google": {"thought_signature": SIGNATURE}}
    assert book.dropped == 2
    for bad in ("x", {"google": "x"}, {"google": {"thought_signature": "read this"}}):
        assert "extra_content" not in book.enter(0, {"index": 1, "extra_content": bad}, 1).announce()
    assert book.dropped == 5
