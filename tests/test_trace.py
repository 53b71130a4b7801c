"""Every token's risk by its place: bounded, small, and the same for any cut of the text."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Delta, Key, Kind
from proxy import trace as trace_module
from proxy.channels import Channels
from proxy.policy import Policy
from proxy.redaction import Redactor
from proxy.risk import RiskLevel
from proxy.structs import Span
from proxy.trace import MAX_CHARACTERS, MAX_PARTS, Trace, Traces, clipped, unpack
from tests.driver import Guard
from tests.fakes import labels, risk

KEY = Key(0, "content")
TEXT = "one two three four five"


def judged(parts: list[str], letters: str, *, keeps_text: bool = False, kind: Kind = Kind.CONTENT) -> Any:
    """What is kept of a channel that got these deltas, each judged as it came."""
    traces, guard = Traces(keeps_text=keeps_text), Guard(labels(letters))
    channels = Channels(Policy(), traces=traces)

    def judge() -> None:
        for channel in channels.by_key.values():
            while batches := channel.batches():
                for batch in batches:
                    channel.receive(batch, guard.classify(batch))

    for part in parts:
        channels.feed(Delta(KEY, kind, part))
        judge()
    list(channels.finish(0))
    judge()
    data = traces.pack(Redactor().redact)
    assert data is not None
    return unpack(data)["channels"][0]


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_a_curve_is_the_same_for_any_cut_of_the_text(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    parts = [TEXT[start:end] for start, end in pairwise(places)]
    found = judged(parts, "SSCSU")
    assert "text" not in found
    [view] = found["views"]
    assert view["ends"] == [3, 7, 13, 18, 23]
    assert view["levels"] == ["Safe", "Safe", "Controversial", "Safe", "Unsafe"]
    assert view["unsafe"] == [0.05, 0.05, 0.05, 0.05, 0.9]
    assert view["controversial"] == [0.05, 0.05, 0.9, 0.05, 0.05]
    assert view["categories"] == [None, None, "Violent", None, "Violent"]
    assert view["left_out"] == 0


def test_the_text_is_kept_where_that_is_wanted_and_redacted() -> None:
    found = judged(["use sk-abcdefgh", "ijklmnop1234 now"], "", keeps_text=True)
    assert found["text"] == f"use {'*' * 23} now"
    assert found["views"][0]["ends"][-1] == len(found["text"])


def test_escapes_have_a_view_of_their_own() -> None:
    found = judged(['{"a": "\\u0062omb"}'], "", kind=Kind.ARGUMENTS)
    assert len(found["views"]) == 2
    assert {view["ends"][-1] for view in found["views"]} == {len('{"a": "\\u0062omb"}')}


def test_tokens_that_are_taken_back_are_replaced() -> None:
    trace = Traces().open(KEY)
    for index, end, level in ((0, 3, "SAFE"), (1, 5, "UNSAFE"), (2, 6, "SAFE"), (1, 8, "SAFE")):
        trace.put(0, index, Span(0, end, risk(RiskLevel[level])))
    assert trace.views[0].ends.tolist() == [3, 8]
    assert trace.views[0].categories == {}


def test_what_is_kept_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(trace_module, "MAX_TOKENS", 3)
    monkeypatch.setattr(trace_module, "MAX_CHARACTERS", 10)
    traces = Traces(keeps_text=True)
    trace: Trace = traces.open(KEY)
    for index in range(5):
        trace.put(0, index, Span(index, index + 1, risk(RiskLevel.SAFE)))
    trace.feed("x" * 100)
    assert (len(trace.views[0]), trace.views[0].left_out) == (3, 2)
    assert "".join(trace.texts) == "x" * 10


def test_a_conversation_is_clipped_from_its_beginning() -> None:
    messages = [{"role": "user", "content": "a" * MAX_CHARACTERS}, {"role": "user", "content": "b" * 1000}]
    first, last = clipped(messages)
    assert last == messages[1]
    assert len(first["content"]) == MAX_CHARACTERS - 1000 - len("user") * 2
    wide = clipped([{"content": [[]] * (3 * MAX_PARTS)}, {"content": "x"}])
    assert wide[-1] == {"content": "x"}
    assert sum(part is not None for part in wide[0]["content"]) < MAX_PARTS


def test_a_long_answer_takes_few_bytes() -> None:
    traces = Traces()
    trace = traces.open(KEY)
    for index in range(1000):
        trace.put(0, index, Span(index * 4, index * 4 + 2 + index % 5, risk(RiskLevel.SAFE)))
    data = traces.pack(Redactor().redact)
    assert data is not None
    assert len(data) < 4000
    assert traces.bytes_held == 16_000
