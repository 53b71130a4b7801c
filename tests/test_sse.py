"""The decoder against the standard's own cases, at every cut, beside a slow reading of the standard."""

import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Event
from proxy.sse import HEARTBEAT, EventDecoder, EventTooLarge, encode_event
from tests.wire import DONE, cut, recorded, sse

# What the WHATWG text and its tests (eventsource/format-*) describe, by the name of the situation.
VECTORS: dict[str, tuple[bytes, list[Event]]] = {
    "one line": (b"data: a\n\n", [Event("a")]),
    "two lines": (b"data: a\ndata: b\n\n", [Event("a\nb")]),
    "empty lines of data": (b"data\ndata: \ndata:\n\n", [Event("\n\n")]),
    "an event of empty data is not reported": (b"data\n\ndata:\n\ndata: a\n\n", [Event("a")]),
    "field without colon": (b"data\ndata: a\nevent\n\n", [Event("\na")]),
    "one leading space goes": (b"data:a\ndata: a\ndata:  a\ndata:\ta\n\n", [Event("a\na\n a\n\ta")]),
    "space before the colon": (b"data : a\n data: b\ndata: c\n\n", [Event("c")]),
    "colons in the value": (b"data::a:b\n\n", [Event(":a:b")]),
    "carriage returns": (b"data: a\rdata: b\r\r", [Event("a\nb")]),
    "carriage return, line feed": (b"data: a\r\ndata: b\r\n\r\n", [Event("a\nb")]),
    "all three": (b"data: a\r\ndata: b\rdata: c\n\r", [Event("a\nb\nc")]),
    "line feed, carriage return": (b"data: a\n\rdata: b\n\r", [Event("a"), Event("b")]),
    "comments": (b": c\n:data: x\ndata: a\n:\ndata: b\n: d\n\n", [Event("a\nb")]),
    "a very long comment": (b":" + b"x" * 300 + b"\ndata: a\n\n", [Event("a")]),
    "comment and blank line": (b": hb\n\ndata: a\n\n", [Event("a")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [Event("b")]),
    "a later byte order mark": (b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", [Event("a"), Event("c")]),
    "half a byte order mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [Event("b")]),
    "a mark in the data": (b"data: \xef\xbb\xbfa\n\n", [Event("\ufeffa")]),
    "a byte order mark and a blank line": (b"\xef\xbb\xbf\ndata: a\n\n", [Event("a")]),
    "event type": (b"event: t\ndata: a\n\ndata: b\n\n", [Event("a", "t"), Event("b")]),
    "the last type counts": (b"event: t\ndata: a\nevent: u\n\n", [Event("a", "u")]),
    "empty type": (b"event: t\nevent:\ndata: a\n\n", [Event("a")]),
    "a type without data is forgotten": (b"event: t\n\ndata: a\n\n", [Event("a")]),
    "id": (b"id: 1\ndata: a\n\n", [Event("a")]),
    "NUL in an id": (b"id: 1\x002\nid\ndata: a\n\n", [Event("a")]),
    "retry": (b"retry: 1\nretry: x\ndata: a\n\n", [Event("a")]),
    "only retry": (b"retry: 1\n\ndata: a\n\n", [Event("a")]),
    "unknown fields": (b"foo: x\nDATA: x\ndatax: x\n\0data: x\ndata\0: x\ndata: a\n\n", [Event("a")]),
    "NUL in the data": (b"data: \x00\n\n", [Event("\x00")]),
    "other line ends are not": (
        "data: a\u2028b\u0085c\u2029\x0b\x0c\n\n".encode(),
        [Event("a\u2028b\u0085c\u2029\x0b\x0c")],
    ),
    "UTF-8": ("data: ü€😀\n\n".encode(), [Event("ü€😀")]),
    "invalid UTF-8": (b"data: \xff\xc3(\xe2\x82\nevent: \xf0\x9f\n\n", [Event("\ufffd\ufffd(\ufffd", "\ufffd")]),
    "overlong and surrogate bytes": (b"data: \xc0\x80\xed\xa0\x80\n\n", [Event("\ufffd" * 5)]),
    "no blank line": (b"data: a\n\ndata: b\n", [Event("a")]),
    "no end of line": (b"data: a\n\ndata: b", [Event("a")]),
    "blank lines": (b"\n\n\r\r\n\ndata: a\n\n\n\n", [Event("a")]),
    "nothing": (b"", []),
}


def decoded(chunks: Iterable[bytes]) -> list[Event]:
    decoder = EventDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    decoder.finish()
    return events


def oracle(data: bytes) -> list[Event]:
    """The standard's own algorithm, slowly, over the whole text."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events, buffer, kind = [], "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if line == "":
            if buffer not in ("", "\n"):
                events.append(Event(buffer.removesuffix("\n"), kind))
            buffer, kind = "", ""
        elif name == "data":
            buffer += value + "\n"
        elif name == "event":
            kind = value
    return events


@pytest.mark.parametrize("name", VECTORS)
def test_the_standards_own_cases_at_every_cut(name: str) -> None:
    data, expected = VECTORS[name]
    assert oracle(data) == expected
    assert decoded([data]) == expected
    assert decoded(cut(data, 1)) == expected
    for at in range(1, len(data)):
        assert decoded([data[:at], b"", data[at:]]) == expected, at


# Pieces that meet in every order: line ends, marks, field names, bytes that are half a character.
FRAGMENTS = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"\n\n", b"data", b"data:", b"data: ", b"event: ", b"id: ", b":", b" ", b"\0", b"a", b"{}"]
) | st.sampled_from([b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xf0\x9f", b"\x98\x80", "é".encode(), b"\xff", b"retry: 1\n"])
TEXTS = st.lists(FRAGMENTS, max_size=40).map(b"".join)


@given(TEXTS | st.binary(max_size=60), st.lists(st.integers(0, 100), max_size=6))
@settings(max_examples=500, deadline=None)
def test_any_cut_of_any_bytes_reads_like_the_standard(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]
    assert decoded(chunks) == oracle(data)


@pytest.mark.parametrize("name", ["en_sky", "zh_intro", "emoji_party", "logprobs"])
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_recorded_streams(name: str, size: int) -> None:
    data = recorded(name)
    events = decoded(cut(data, size))
    assert events == oracle(data)
    assert events[-1] == Event(DONE)
    assert b"".join(encode_event(event) for event in events) == data


def test_events_come_as_soon_as_their_blank_line() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [Event("a")]
    assert decoder.feed(b"data: b\r\r") == [Event("b")]
    assert decoder.feed(b"\ndata: c\r\n\r") == [Event("c")]


def test_finish_discards_half_an_event() -> None:
    decoder = EventDecoder()
    decoder.feed(b"data: a\ndata: b")
    decoder.finish()
    assert decoder.feed(b"\n\n") == []


LIMIT = 100


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (LIMIT + 1),  # a line without end
        b"data: " + b"x" * LIMIT,
        b"data: " + b"x" * LIMIT + b"\n\n",
        b": " + b"x" * LIMIT + b"\n",
        b"data: x\n" * (LIMIT // 7 + 1),  # many lines
        b"data:\n" * (LIMIT // 5 + 1),
        b"data: " + b"x" * (LIMIT // 2) + b"\ndata: " + b"x" * (LIMIT // 2),
    ],
)
@pytest.mark.parametrize("size", [1, 9, 1000])
def test_an_event_too_large_is_refused_at_any_cut(data: bytes, size: int) -> None:
    decoder = EventDecoder(LIMIT)
    events: list[Event] = []
    with pytest.raises(EventTooLarge) as caught:  # noqa: PT012 - which chunk it is depends on the cut
        for chunk in cut(b"data: good\n\n" + data, size):
            events += decoder.feed(chunk)
    assert events + caught.value.events == [Event("good")]
    assert str(LIMIT) in str(caught.value)
    assert "x" * 9 not in str(caught.value)


def test_an_event_of_the_limit_passes() -> None:
    data = b"data: " + b"x" * (LIMIT - 6)
    assert EventDecoder(LIMIT).feed(data + b"\n\n" + data + b"\n\n") == [Event("x" * (LIMIT - 6))] * 2


def test_comments_without_end_take_no_memory() -> None:
    decoder = EventDecoder(LIMIT)
    assert [event for _ in range(LIMIT) for event in decoder.feed(b": hb\nid: 1\nretry: 5\n")] == []


def _seconds_of_single_bytes(size: int) -> float:
    decoder = EventDecoder()
    chunks = [b"x"] * size
    decoder.feed(b"data: ")
    start = time.process_time()
    for chunk in chunks:
        decoder.feed(chunk)
    decoder.feed(b"\n\n")
    return time.process_time() - start


def test_single_bytes_cost_no_more_in_a_large_event() -> None:
    size = 1 << 18
    ratios = (_seconds_of_single_bytes(2 * size) / _seconds_of_single_bytes(size) for _ in range(3))
    assert any(ratio <= 2.3 for ratio in ratios)  # the first, unless the machine was disturbed


def test_an_event_is_one_line_of_data() -> None:
    assert encode_event(Event('{"a":1}')) == b'data: {"a":1}\n\n'
    assert encode_event(Event("{}", "response.created")) == b"event: response.created\ndata: {}\n\n"
    assert encode_event(Event("a\u2028b\u0085\x00")) == "data: a\u2028b\u0085\x00\n\n".encode()


@pytest.mark.parametrize(
    "event",
    [
        Event("a\nb"),
        Event("a\rb"),
        Event(""),
        Event("a", "t\nu"),
        Event("a", "t\ru"),
        Event("\ud800"),
        Event("a", "\ud800"),
    ],
)
def test_what_one_line_cannot_say_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match=r"line|surrogates"):
        encode_event(event)


def test_a_heartbeat_changes_nothing() -> None:
    sent = HEARTBEAT + sse("a") + HEARTBEAT + HEARTBEAT + sse("b")
    assert decoded(cut(sent, 3)) == [Event("a"), Event("b")]


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=5))
def test_what_is_encoded_is_decoded(said: list[tuple[str, str]]) -> None:
    events = []
    for data, kind in said:
        event = Event(data.replace("\n", "").replace("\r", "") or "x", kind.replace("\n", "").replace("\r", ""))
        events.append(event)
    assert decoded([b"".join(encode_event(event) for event in events)]) == events
