"""One reading of a text: frames are not judged, a paused end is taken back, every character is counted."""

from itertools import pairwise

from adapters.base import Kind
from proxy.escapes import EscapeDecoder
from proxy.policy import Policy
from proxy.retokenizer import encode
from proxy.risk import RiskLevel
from proxy.view import MAX_BATCH_TOKENS, View
from tests.fakes import SAFE, UNSAFE, risk


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
