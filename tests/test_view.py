"""One reading of a text: frames are not judged, a paused end is taken back, every character is counted."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Kind
from proxy.escapes import EscapeDecoder
from proxy.policy import Action, DebounceRule, Mode, Policy
from proxy.retokenizer import encode
from proxy.risk import Risk, RiskLevel
from proxy.structs import Span
from proxy.view import MAX_BATCH_TOKENS, View
from tests.fakes import CONTROVERSIAL, SAFE, UNSAFE, risk


def judge(view: View, level: RiskLevel = SAFE) -> list[tuple[int, int]]:
    """All that waits, at one level; returns the spans."""
    spans = []
    while (batch := view.batch()) is not None:
        spans += [(span.start, span.end) for span, _, _ in view.receive([risk(level)] * len(batch[1]))]
    return spans


def test_spans_lie_side_by_side_and_cover_the_text() -> None:
    view = View(Kind.CONTENT, Policy())
    text = "\n\nhello there, 你好"
    view.feed(text)
    view.finish()
    spans = judge(view)
    assert (spans[0][0], spans[-1][1]) == (0, len(text))  # leading newlines have no token and ride with the first
    assert all(one[1] == two[0] for one, two in pairwise(spans))
    assert view.judged - view.frames == len(encode("hello there, 你好"))
    assert view.cleared == len(text)


def test_a_batch_has_a_limit_and_says_where_it_stands() -> None:
    view = View(Kind.CONTENT, Policy())
    view.feed("one two " * MAX_BATCH_TOKENS)
    found = view.batch()
    assert found is not None
    assert (found[0], len(found[1])) == (0, MAX_BATCH_TOKENS)
    list(view.receive([risk(SAFE)] * MAX_BATCH_TOKENS))
    again = view.batch()
    assert again is not None
    assert again[0] == MAX_BATCH_TOKENS


def test_the_end_of_a_paused_text_is_taken_back_when_it_goes_on() -> None:
    view = View(Kind.CONTENT, Policy())
    view.feed("one tw")
    judge(view)
    assert view.cleared < len("one tw")
    view.pause()
    judge(view)
    assert view.cleared == len("one tw")
    view.feed("enty two")
    view.finish()
    judge(view)
    assert view.judged - view.frames == len(encode("one twenty two"))
    assert view.cleared == len("one twenty two")


def test_an_escape_counts_as_the_characters_that_spell_it() -> None:
    text = '{"a": "\\u0062omb"}'
    view = View(Kind.ARGUMENTS, Policy(), EscapeDecoder())
    view.feed(text)
    view.finish()
    spans = judge(view)
    assert spans[-1][1] == len(text)


def test_a_flagged_run_blocks_at_its_start() -> None:
    view = View(Kind.CONTENT, Policy())
    view.feed("one two three four five")
    found = view.batch()
    assert found is not None
    levels = [SAFE, SAFE, *[UNSAFE] * (len(found[1]) - 2)]  # the frame's token, "one", and the rest
    judged = list(view.receive([risk(level) for level in levels]))
    assert judged[-1][2] == len("one")
    assert view.is_flagged


# The short way of a batch in which all is safe.

ONE = Policy(mode=Mode.STRICT, on_flag=Action.ANNOTATE)
POLICIES = {
    "one": ONE,
    "any": replace(ONE, debounce=3, rule=DebounceRule.ANY_LEVEL),
    "two": replace(ONE, debounce=3).joined(replace(ONE, on_flag=Action.MONITOR)),
    "block": replace(ONE, debounce=3, on_flag=Action.BLOCK),
}


def shortly(view: View, risks: Sequence[Risk]) -> list[tuple[Span, int]]:
    safe = view.receive_safe(risks)
    return at_length(view, risks) if safe is None else [(span, span.start) for span in safe]


def at_length(view: View, risks: Sequence[Risk]) -> list[tuple[Span, int]]:
    return [(span, run) for span, _, run in view.receive(risks)]


@pytest.mark.parametrize("name", POLICIES)
@given(data=st.data())
def test_the_short_way_of_safe_tokens_comes_to_what_the_long_one_does(name: str, data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(["\n", "one", " two", " thr", "ee", " 123", "\u00e9t\u00e9", "."]), max_size=8)
    levels = st.sampled_from([SAFE] * 6 + [CONTROVERSIAL, UNSAFE])
    views = View(Kind.CONTENT, POLICIES[name]), View(Kind.CONTENT, POLICIES[name])
    for word in data.draw(words):
        ends = data.draw(st.sampled_from(["", "", "", "pause"]))
        for view in views:
            view.feed(word)
            if ends:
                view.pause()
        check_alike(views, data, levels)
    for view in views:
        view.finish()
    check_alike(views, data, levels)


def check_alike(views: tuple[View, View], data: st.DataObject, levels: st.SearchStrategy[RiskLevel]) -> None:
    """Judge all that waits, one view by each way."""
    while (batch := views[0].batch()) is not None:
        assert batch == views[1].batch()
        size = len(batch[1])
        risks = [risk(level) for level in data.draw(st.lists(levels, min_size=size, max_size=size))]
        short, long = shortly(views[0], risks), at_length(views[1], risks)
        assert [span for span, _ in short] == [span for span, _ in long]
        states = [(view.judged, view.frames, view.cleared, view.is_flagged) for view in views]
        assert states[0] == states[1]
