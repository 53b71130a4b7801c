"""How a delta is cut, and which texts make up a call."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Delta, Event, Finish, Key, Kind, Logprob, call_of

KEY = Key(0, "content")


def delta_of(*tokens: bytes) -> Delta:
    text = b"".join(tokens).decode("utf-8", "surrogatepass")
    return Delta(KEY, Kind.CONTENT, text, "envelope", {"id": "x"}, tuple(Logprob(token, {}) for token in tokens))


def test_records_are_equal_where_they_are_of_a_kind_and_say_the_same() -> None:
    assert Event("a") == Event("a", "")
    assert hash(Event("a")) == hash(Event("a", ""))
    assert Event("a") != Event("b")
    assert Event("a") != "a"
    assert Finish(0, "stop") != Event("a")
    assert repr(Event("a", "ping")) == "Event('a', 'ping')"


def test_a_split_keeps_the_text_and_gives_the_extras_to_the_head() -> None:
    delta = Delta(KEY, Kind.CONTENT, "abc", "envelope", {"id": "x"})
    assert delta.split(1) == (
        Delta(KEY, Kind.CONTENT, "a", "envelope", {"id": "x"}),
        Delta(KEY, Kind.CONTENT, "bc", "envelope"),
    )


@pytest.mark.parametrize(
    ("at", "head"),
    [(1, [b"a"]), (2, [b"a"]), (3, [b"a", b"bc"])],
)
def test_an_entry_stays_where_its_last_byte_is(at: int, head: list[bytes]) -> None:
    first, second = delta_of(b"a", b"bc", b"d").split(at)
    assert [logprob.text for logprob in first.logprobs] == head
    assert [logprob.text for logprob in (*first.logprobs, *second.logprobs)] == [b"a", b"bc", b"d"]


def test_an_entry_of_half_a_character_waits_for_the_other_half() -> None:
    first, second = delta_of(b"a", b"\xf0\x9f", b"\x98\x80", b"b").split(1)
    assert [logprob.text for logprob in first.logprobs] == [b"a"]
    assert len(second.logprobs) == 3
    first, second = delta_of(b"a", b"\xf0\x9f", b"\x98\x80", b"b").split(2)
    assert len(first.logprobs) == 3


def test_lone_surrogates_are_cut_like_any_character() -> None:
    first, second = Delta(KEY, Kind.CONTENT, "a\ud83d\ude00").split(2)
    assert (first.text, second.text) == ("a\ud83d", "\ude00")


@given(st.text(min_size=2, max_size=20), st.data())
def test_any_split_loses_nothing(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)) | {0, len(raw)})
    tokens = [raw[a:b] for a, b in pairwise(cuts)]
    delta = delta_of(*tokens)
    first, second = delta.split(data.draw(st.integers(1, len(text) - 1)))
    assert first.text + second.text == text
    assert [logprob.text for logprob in (*first.logprobs, *second.logprobs)] == tokens
    # What goes with the head repeats no character of the tail.
    assert first.text.encode().startswith(b"".join(logprob.text for logprob in first.logprobs))


@pytest.mark.parametrize(
    ("channel", "call"),
    [
        ("tool_calls.0.name", "tool_calls.0"),
        ("tool_calls.10.arguments", "tool_calls.10"),
        ("tool_calls.1.action.command", "tool_calls.1"),
        ("function_call.arguments", "function_call"),
        ("content", None),
        ("delta.tool_calls", None),
        ("tool_calls", None),
    ],
)
def test_a_channel_is_part_of_one_call_or_of_none(channel: str, call: str | None) -> None:
    assert call_of(Key(0, channel)) == call
