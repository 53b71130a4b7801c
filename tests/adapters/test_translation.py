"""What holds for every dialect that is told in chat: any cut, any answer, nothing that was not judged."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Delta, Opaque, Piece
from adapters.errors import AdapterError
from proxy.policy import Policy
from proxy.sse import EventDecoder
from proxy.stream import Outcome
from tests import driver
from tests.adapters.dialects import ANTHROPIC, GEMINI, SAID, adapter_of, gemini, joined, stream_of
from tests.adapters.relay import decoded, texts_of, written
from tests.adapters.test_chat_properties import at, paths_of, repaired
from tests.doors import block_events, message_events
from tests.fakes import labels, words
from tests.wire import chunks_of, cut

STREAMS = {"anthropic": joined(ANTHROPIC), "gemini": joined(GEMINI)}
DIALECTS = list(STREAMS)
WORDS = "".join(driver.WORDS)


def pieces_of(dialect: str, data: bytes, **options: Any) -> list[Piece]:
    adapter = adapter_of(dialect, **options)
    return [piece for event in EventDecoder().feed(data) for piece in adapter.decode(event)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_both_dialects_say_the_same_in_chat(dialect: str) -> None:
    stream, adapter = stream_of(dialect)
    sent = driver.drive(stream, [STREAMS[dialect]])
    heard = driver.read(sent)
    assert (stream.outcome, heard.is_done, heard.finish) == (Outcome.COMPLETE, True, {0: "tool_calls"})
    texts = texts_of(pieces_of(dialect, STREAMS[dialect]))
    assert json.loads(texts.pop("tool_calls.0.arguments")) == {"city": "Oslo"}
    assert texts == SAID
    assert heard.content == "Hello world"
    assert adapter.dropped == 0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_any_cut_of_the_bytes_gives_the_same(dialect: str, size: int) -> None:
    data = STREAMS[dialect]
    whole, _ = stream_of(dialect)
    parts, _ = stream_of(dialect)
    expected = driver.read(driver.drive(whole, [data]))
    found = driver.read(driver.drive(parts, cut(data, size)))
    assert (found.content, found.finish, found.is_done) == (expected.content, expected.finish, expected.is_done)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(at=st.integers(0, 4000))
@settings(max_examples=40, deadline=None)
def test_a_stream_that_stops_early_is_no_complete_answer(dialect: str, at: int) -> None:
    data = STREAMS[dialect][:at]
    stream, _ = stream_of(dialect)
    heard = driver.read(driver.drive(stream, [data]))
    is_told = b'"stop_reason": "tool_use"' in data or b'"finishReason": "STOP"' in data
    if stream.outcome is Outcome.COMPLETE:
        assert is_told
        assert heard.finish == {0: "tool_calls"}
    else:
        assert not heard.is_done


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_flagged_token_cuts_the_answer(dialect: str) -> None:
    said = block_events(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": WORDS})
    data = joined(message_events(said)) if dialect == "anthropic" else gemini({"text": WORDS}, finish="STOP")
    stream, _ = stream_of(dialect)
    heard = driver.read(driver.drive(stream, [data], driver.Guard(labels("SSSUU"))))
    assert (heard.content, heard.finish, heard.is_done) == ("one two three", {0: "content_filter"}, True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_counts_are_told_only_where_they_are_wanted(dialect: str) -> None:
    told = [p.payload for p in pieces_of(dialect, STREAMS[dialect]) if isinstance(p, Opaque) and p.choice is None]
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert [counts["usage"] | usage for counts in told] == [counts["usage"] for counts in told]
    assert len(told) == 1
    silent = pieces_of(dialect, STREAMS[dialect], include_usage=False)
    assert not [piece for piece in silent if isinstance(piece, Opaque) and piece.choice is None]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stray_done_ends_nothing(dialect: str) -> None:
    adapter = adapter_of(dialect)
    assert decoded(adapter, "[DONE]") == []


# Random answers, and the slow obvious reading of them.

TEXTS = st.text(min_size=1, max_size=6)
PARTS = st.lists(st.tuples(st.sampled_from(["content", "reasoning_content"]), TEXTS), max_size=12)


def _anthropic(parts: list[tuple[str, str]]) -> bytes:
    """A block for each run of one kind."""
    blocks: list[list[bytes]] = []
    for index, (kind, text) in enumerate(parts):
        name = "text" if kind == "content" else "thinking"
        blank = {"type": name, name: ""}
        blocks.append(block_events(index, blank, {"type": f"{name}_delta", name: text}))
    return joined(message_events(*blocks))


def _gemini(parts: list[tuple[str, str]]) -> bytes:
    said = [{"text": text, **({"thought": True} if kind != "content" else {})} for kind, text in parts]
    return joined([*map(gemini, said), gemini(finish="STOP")])


@pytest.mark.parametrize(("dialect", "say"), [("anthropic", _anthropic), ("gemini", _gemini)])
@given(parts=PARTS, size=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_what_is_said_arrives_in_order(dialect: str, say: Any, parts: list[tuple[str, str]], size: int) -> None:
    expected: dict[str, str] = defaultdict(str)
    for kind, text in parts:
        expected[kind] += text
    data = say(parts)
    assert texts_of(pieces_of(dialect, data)) == expected
    stream, _ = stream_of(dialect)
    assert driver.read(driver.drive(stream, cut(data, size))).content == repaired_text(expected["content"])


def repaired_text(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Anything at all.

CANARY = "canary"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1 << 80, "\ud800", "STOP", 1.5, CANARY]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "index", "parts", "name", "id", CANARY]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _objects(dialect: str) -> list[Any]:
    return [json.loads(event.data) for event in EventDecoder().feed(STREAMS[dialect])]


def _mutations(dialect: str) -> st.SearchStrategy[tuple[int, tuple[Any, ...], Any]]:
    events = _objects(dialect)
    places = [(number, path) for number, event in enumerate(events) for path in paths_of(event) if path]
    return st.tuples(st.sampled_from(places), JSON).map(lambda drawn: (*drawn[0], drawn[1]))


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_anything_is_read_or_refused_and_only_judged_text_comes_out(dialect: str, data: st.DataObject) -> None:
    events = _objects(dialect)
    for number, path, value in data.draw(st.lists(_mutations(dialect), min_size=1, max_size=4)):
        try:
            at(events[number], path[:-1])[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    adapter = adapter_of(dialect)
    pieces: list[Piece] = []
    try:
        for event in events:
            pieces += decoded(adapter, json.dumps(event))
    except AdapterError as exc:
        refusal = str(exc)
        assert CANARY not in refusal
    sent = written(adapter, map(repaired, pieces)).decode()
    judged = "".join(piece.text for piece in pieces if isinstance(piece, Delta))
    # Names and words of a provider that look like names pass as such: they are bounded, and hold no prose.
    assert sent.count(CANARY) <= judged.count(CANARY) + sum(
        sent.count(f'"{name}":"{CANARY}"') for name in ("id", "model")
    )
    assert all(isinstance(piece.text, str) and piece.text for piece in pieces if isinstance(piece, Delta))
    chunks_of(written(adapter, ()))


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_whatever_comes_no_flagged_text_leaves_and_only_a_told_end_is_one(dialect: str, data: st.DataObject) -> None:
    """Through the whole pure stream: words put anywhere, a guard that flags them, bytes cut anywhere."""
    events = _objects(dialect)
    for number, path, value in data.draw(st.lists(_mutations(dialect), min_size=1, max_size=4)):
        try:
            at(events[number], path[:-1])[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    raw = joined(b"data: " + json.dumps(event).replace(CANARY, "a canary text").encode() + b"\n\n" for event in events)
    stream, _ = stream_of(dialect, Policy(debounce=1))
    sent = driver.drive(stream, cut(raw, data.draw(st.integers(1, 300))), driver.Guard(words("canary")))
    assert b"canary" not in sent
    heard = driver.read(sent)
    assert heard.is_done == (stream.outcome in (Outcome.COMPLETE, Outcome.CUT))
    for key, channel in stream.channels.items():
        assert stream.delivered(key) <= channel.cleared


def _disturbed(dialect: str) -> Iterator[list[Any]]:
    events = _objects(dialect)
    for number in range(len(events)):
        yield events[:number] + events[number + 1 :]
        yield [*events[:number], events[number], *events[number:]]  # twice


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_lost_or_twice_are_read_or_refused(dialect: str) -> None:
    for events in _disturbed(dialect):
        stream, _ = stream_of(dialect)
        sent = driver.drive(stream, [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events])
        heard = driver.read(sent)
        assert heard.is_done == (stream.outcome is Outcome.COMPLETE)
