"""Events and bodies come out of bytes the same way at any cut, within their limits."""

import pytest

from adapters.base import Event
from adapters.errors import AdapterError
from proxy.framing import BodyFraming, EventFraming
from tests.wire import cut


@pytest.mark.parametrize("size", [1, 3, 100])
def test_events_come_out_at_any_cut(size: int) -> None:
    framing = EventFraming(100)
    raw = "data: né\r\n\r\n: comment\n\ndata: two\n\ndata: half".encode()
    found = [event for chunk in cut(raw, size) for event in framing.feed(chunk)]
    assert found == [Event("né"), Event("two")]
    assert list(framing.finish()) == []


def test_what_came_before_an_endless_event_is_kept() -> None:
    events = iter(EventFraming(50).feed(b"data: one\n\ndata: " + b"x" * 99))
    assert next(events) == Event("one")
    with pytest.raises(AdapterError):
        next(events)


def test_an_event_is_written_as_one_line() -> None:
    assert EventFraming(50).encode(Event("{}")) == b"data: {}\n\n"


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_body_is_one_event_at_its_end(size: int) -> None:
    framing = BodyFraming(100)
    assert [event for chunk in cut("né".encode(), size) for event in framing.feed(chunk)] == []
    assert framing.finish() == [Event("né")]
    assert framing.encode(Event("né")) == "né".encode()


def test_a_body_has_a_limit_and_an_encoding() -> None:
    framing = BodyFraming(3)
    framing.feed(b"abc")
    with pytest.raises(AdapterError):
        framing.feed(b"d")
    framing = BodyFraming(3)
    framing.feed(b"\xff")
    with pytest.raises(AdapterError):
        framing.finish()
