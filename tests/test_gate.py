"""Pieces leave in order, and only as far as they were cleared."""

import pytest

from adapters.base import Delta, End, Finish, Key, Kind, Logprob, Opaque
from proxy.gate import COUNTED_PIECES, MAX_HELD_PIECES, MAX_PART_CHARACTERS, Gate, HeldTooMuch

CONTENT = Key(0, "content")


def delta(text: str, key: Key = CONTENT, kind: Kind = Kind.CONTENT) -> Delta:
    return Delta(key, kind, text)


def texts(gate: Gate) -> list[str]:
    return [
        released.piece.text if isinstance(released.piece, Delta) else type(released.piece).__name__
        for released in gate.release()
    ]


def test_a_delta_leaves_as_far_as_it_is_cleared() -> None:
    gate = Gate(100)
    gate.hold(delta("hello"))
    gate.hold(delta(" world"))
    assert texts(gate) == []
    gate.clear(CONTENT, 3)
    assert texts(gate) == ["hel"]
    gate.clear(CONTENT, 8)
    assert texts(gate) == ["lo", " wo"]
    gate.clear(CONTENT, 11)
    assert texts(gate) == ["rld"]
    assert gate.held == 0


def test_what_was_cleared_stays_cleared() -> None:
    gate = Gate(100)
    gate.hold(delta("hello"))
    gate.clear(CONTENT, 4)
    gate.clear(CONTENT, 2)
    assert texts(gate) == ["hell"]


def test_a_finish_waits_for_the_text_before_it() -> None:
    gate = Gate(100)
    gate.hold(delta("ab"))
    gate.hold(Finish(0, "stop"))
    gate.hold(End())
    gate.clear(CONTENT, 1)
    assert texts(gate) == ["a"]
    gate.clear(CONTENT, 2)
    assert texts(gate) == ["b", "Finish", "End"]


def test_a_finish_waits_for_verdicts_on_text_that_left_ahead_of_them() -> None:
    gate = Gate(100)
    gate.hold(delta("ab"))
    gate.hold(Finish(0, "stop"))
    gate.clear(CONTENT, 0, ahead=10)
    assert texts(gate) == ["ab"]
    gate.clear(CONTENT, 2, ahead=10)
    assert texts(gate) == ["Finish"]


def test_choices_do_not_wait_for_each_other_but_the_end_waits_for_all() -> None:
    gate = Gate(100)
    other = Key(1, "content")
    gate.hold(delta("slow"))
    gate.hold(delta("fast", other))
    gate.hold(Opaque(None, {"usage": {}}))
    gate.clear(other, 4)
    assert texts(gate) == ["fast"]
    gate.clear(CONTENT, 4)
    assert texts(gate) == ["slow", "Opaque"]


def test_later_text_of_a_choice_does_not_hold_up_what_came_before_it() -> None:
    gate = Gate(100)
    gate.hold(Opaque(None, {"first": True}))
    gate.hold(delta("later"))
    assert texts(gate) == ["Opaque"]


def test_a_tool_name_leaves_whole_or_not_at_all() -> None:
    gate = Gate(100)
    key = Key(0, "tool_calls.0.name")
    gate.hold(delta("get_weather", key, Kind.NAME))
    gate.clear(key, 10)
    assert texts(gate) == []
    gate.clear(key, 11)
    assert texts(gate) == ["get_weather"]


NAME, ARGUMENTS = Key(0, "tool_calls.0.name"), Key(0, "tool_calls.0.arguments")


def call_gate(whole_calls: bool = True) -> Gate:
    """A call of which all so far is cleared."""
    gate = Gate(100, whole_calls=whole_calls)
    gate.hold(delta("f", NAME, Kind.NAME))
    gate.hold(Opaque(0, {}))
    gate.hold(delta('{"a":', ARGUMENTS, Kind.ARGUMENTS))
    gate.clear(NAME, 1)
    gate.clear(ARGUMENTS, 5)
    return gate


def test_a_call_that_is_to_stay_whole_waits_for_its_end_and_all_its_verdicts() -> None:
    assert texts(call_gate(whole_calls=False)) == ["f", "Opaque", '{"a":']
    gate = call_gate()
    assert texts(gate) == []
    gate.hold(delta(" 1}", ARGUMENTS, Kind.ARGUMENTS))
    gate.hold(Finish(0, "tool_calls"))
    assert texts(gate) == []
    gate.clear(ARGUMENTS, 8)
    assert texts(gate) == ["f", "Opaque", '{"a":', " 1}", "Finish"]


@pytest.mark.parametrize("next_piece", [delta("b"), delta("g", Key(0, "tool_calls.1.name"), Kind.NAME), End()])
def test_a_call_is_over_once_something_else_is_said(next_piece: Delta | End) -> None:
    gate = call_gate()
    gate.hold(Opaque(0, {}))  # says nothing
    gate.hold(delta("elsewhere", Key(1, "content")))
    assert texts(gate) == []
    gate.hold(next_piece)
    assert texts(gate)[:3] == ["f", "Opaque", '{"a":']


def test_a_call_that_goes_on_after_something_else_is_held_again() -> None:
    gate = call_gate()
    gate.hold(delta("g", Key(0, "tool_calls.1.name"), Kind.NAME))
    gate.hold(delta(" 1}", ARGUMENTS, Kind.ARGUMENTS))
    gate.clear(ARGUMENTS, 8)
    assert texts(gate) == []
    gate.hold(Finish(0, "tool_calls"))
    gate.clear(Key(0, "tool_calls.1.name"), 1)
    assert texts(gate) == ["f", "Opaque", '{"a":', "g", " 1}", "Finish"]


def test_a_dropped_choice_frees_what_it_held() -> None:
    gate = Gate(100)
    gate.hold(delta("ab"))
    gate.hold(End())
    gate.drop(0)
    assert gate.held == 0
    assert texts(gate) == ["End"]


def test_offsets_count_from_the_start_of_the_channel() -> None:
    gate = Gate(100)
    gate.hold(delta("abcd"))
    gate.clear(CONTENT, 1)
    assert [released.start for released in gate.release()] == [0]
    gate.clear(CONTENT, 4)
    assert [released.start for released in gate.release()] == [1]
    assert gate.released(CONTENT) == 4


def test_holding_more_than_the_limit_is_an_error() -> None:
    gate = Gate(4)
    gate.hold(delta("abcd"))
    with pytest.raises(HeldTooMuch):
        gate.hold(delta("e"))


def test_logprobs_stay_with_the_text_they_repeat() -> None:
    gate = Gate(100)
    entries = tuple(Logprob(text.encode(), {"token": text}) for text in ("né", "e", "x"))
    gate.hold(Delta(CONTENT, Kind.CONTENT, "néex", logprobs=entries))
    gate.clear(CONTENT, 3)
    [first] = gate.release()
    assert isinstance(first.piece, Delta)
    assert [logprob.entry["token"] for logprob in first.piece.logprobs] == ["né", "e"]


def test_the_end_waits_for_the_verdicts_of_what_left_ahead_of_them() -> None:
    gate = Gate(100)
    gate.hold(delta("hello"))
    gate.hold(End())
    gate.clear(CONTENT, 0, 5)
    assert texts(gate) == ["hello"]
    assert gate.is_empty
    gate.clear(CONTENT, 5)
    assert texts(gate) == ["End"]


def test_it_is_empty_when_every_choice_is() -> None:
    gate = Gate(100)
    assert gate.is_empty
    gate.hold(delta("hello"))
    assert not gate.is_empty
    gate.drop(0)
    assert gate.is_empty


def test_a_whole_value_leaves_whole_or_not_at_all() -> None:
    gate, key = Gate(100), Key(0, "blocks.0")
    gate.hold(Delta(key, Kind.OBJECT, '{"a":1}'))
    gate.clear(key, 6)
    assert list(gate.release()) == []
    gate.clear(key, 7)
    [released] = gate.release()
    assert isinstance(released.piece, Delta)
    assert released.piece.text == '{"a":1}'


def test_a_long_text_leaves_in_parts_and_its_extras_with_the_first() -> None:
    text = "".join(map(str, range(5000)))
    gate, key = Gate(1 << 20), Key(0, "content")
    gate.hold(Delta(key, Kind.CONTENT, text, extra={"id": "x"}))
    gate.clear(key, len(text))
    released = [one.piece for one in gate.release()]
    assert all(isinstance(piece, Delta) and len(piece.text) <= MAX_PART_CHARACTERS for piece in released)
    assert "".join(piece.text for piece in released if isinstance(piece, Delta)) == text
    assert [bool(piece.extra) for piece in released if isinstance(piece, Delta)] == [True, *[False] * 2]
    assert gate.held == 0
    whole = Delta(Key(0, "tool_calls.0.name"), Kind.NAME, text)
    gate.hold(whole)
    gate.clear(whole.key, len(text))
    assert [one.piece for one in gate.release()] == [whole]


def hold_many(gate: Gate, count: int) -> None:
    for _ in range(count):
        gate.hold(Opaque(None, {"usage": {}}))


def test_pieces_are_counted_since_each_takes_more_than_its_text() -> None:
    """While a call is open, counts of usage may come without end."""
    gate = Gate(1 << 22, whole_calls=True)
    gate.hold(delta("f", Key(0, "tool_calls.0.function.name"), Kind.NAME))
    hold_many(gate, MAX_HELD_PIECES - 1)
    with pytest.raises(HeldTooMuch):
        hold_many(gate, COUNTED_PIECES)


def test_pieces_that_leave_are_not_counted() -> None:
    gate = Gate(1 << 22)
    for number in range(1, MAX_HELD_PIECES + 2 * COUNTED_PIECES):
        gate.hold(delta("x"))
        gate.clear(CONTENT, number)
        assert texts(gate) == ["x"]
