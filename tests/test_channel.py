"""One moderated text: what of it is cleared, flagged and noted, in every reading of it."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Key, Kind
from proxy.channel import Channel, badness, is_worse
from proxy.policy import Policy
from proxy.retokenizer import encode
from proxy.structs import Batch
from proxy.view import MAX_BATCH_TOKENS
from tests.driver import WORDS, Guard
from tests.fakes import CONTROVERSIAL, LEVEL_OF, SAFE, UNSAFE, Rule, labels, risk, words

TEXT = "".join(WORDS)


def channel_of(kind: Kind = Kind.CONTENT, policy: Policy | None = None) -> Channel:
    return Channel(Key(0, "content"), kind, policy or Policy())


def judge(channel: Channel, guard: Guard) -> None:
    while batches := list(channel.batches()):
        for batch in batches:
            channel.receive(batch, guard.classify(batch))


def judged(parts: list[str], rule: Rule, kind: Kind = Kind.CONTENT) -> Channel:
    channel, guard = channel_of(kind), Guard(rule)
    for part in parts:
        channel.feed(part)
        judge(channel, guard)
    channel.finish()
    judge(channel, guard)
    return channel


def test_a_text_is_cleared_up_to_its_first_flagged_run() -> None:
    for string in map("".join, product("SU", repeat=5)):
        channel = judged(WORDS[:5], labels(string))
        at = string.find("UU")
        assert channel.block_start == (None if at < 0 else len("".join(WORDS[:at])))
        if at < 0:
            assert channel.cleared == channel.length


def test_an_undecided_token_is_not_cleared_until_the_next() -> None:
    channel, guard = channel_of(), Guard(labels("SSU"))
    channel.feed("one two three four")  # " four" may go on
    judge(channel, guard)
    assert channel.cleared == len("one two")
    channel.feed(" five")
    judge(channel, guard)
    assert channel.cleared == len("one two three four")


def test_a_block_ends_the_judging() -> None:
    channel = judged([TEXT], labels("UU"))
    assert channel.block_start == 0
    assert channel.judged == 2
    assert list(channel.batches()) == []
    channel.receive(Batch(channel.key, channel.kind, 0, 3, [1]), [risk(SAFE)])  # late, and of no consequence
    assert channel.judged == 2


@given(st.lists(st.sampled_from([*WORDS, "\n", "e\u0301", "😀", "\\n", '"']), max_size=8), st.data())
def test_any_cut_of_a_text_ends_at_the_same_place(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    cuts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    whole, cut = judged([text], words("two", "e\u0301")), judged(cuts, words("two", "e\u0301"))
    assert cut.block_start == whole.block_start
    assert cut.length == len(text)
    if whole.block_start is None:
        assert cut.cleared == whole.cleared == len(text)


def test_arguments_are_read_as_they_stand_and_as_their_escapes_spell() -> None:
    hidden = '{"q": "\\u0062ad idea"}'
    assert judged(["So: " + hidden], words("bad"), Kind.CONTENT).block_start is None
    channel = judged([hidden], words("bad"), Kind.ARGUMENTS)
    assert channel.block_start is not None
    assert channel.block_start <= hidden.index("ad idea")
    assert judged(list(hidden), words("bad"), Kind.ARGUMENTS).block_start == channel.block_start


@pytest.mark.parametrize("begin", ["", " \n", "\ufeff\t", "\n" * 40])
def test_an_answer_that_is_json_is_read_as_its_escapes_spell_it_too(begin: str) -> None:
    for text in ('{"q": "\\u0062ad idea"}', '["\\u0062ad idea"]', '"\\u0062ad idea"'):
        hidden = begin + text
        channel = judged([hidden], words("bad"), Kind.CONTENT)
        assert channel.block_start is not None
        assert channel.block_start <= hidden.index("ad idea")
        assert judged(list(hidden), words("bad"), Kind.CONTENT).block_start == channel.block_start
        assert judged([hidden], words("bad"), Kind.REASONING).block_start is None
    safe = begin + '{"q": "caf\\u00e9\\n"}'
    assert judged(list(safe), words("bad"), Kind.CONTENT).cleared == len(safe)


def test_a_long_text_comes_in_batches() -> None:
    channel = channel_of()
    channel.feed(" word" * (MAX_BATCH_TOKENS * 2 + 5))
    channel.finish()
    sizes: list[int] = []
    while batches := list(channel.batches()):
        [batch] = batches
        assert batch.position == sum(sizes)
        sizes.append(len(batch.ids))
        channel.receive(batch, [risk(SAFE)] * len(batch.ids))
    assert sizes == [MAX_BATCH_TOKENS, MAX_BATCH_TOKENS, 6]  # with the frame's own
    assert channel.judged == MAX_BATCH_TOKENS * 2 + 5
    assert channel.cleared == channel.length


def test_a_paused_text_is_judged_to_its_end_and_goes_on_as_if_it_had_not_been() -> None:
    for after in ("", "s", " six", "\u0301"):
        channel, guard = channel_of(), Guard()
        channel.feed("one two")
        channel.pause()
        judge(channel, guard)
        assert channel.cleared == len("one two")
        if after:
            channel.feed(after)
        channel.finish()
        judge(channel, guard)
        assert channel.cleared == channel.length
        [ids] = guard.ids.values()
        assert ids[1:] == encode("one two" + after)  # after the frame's own


def test_a_pause_in_a_flagged_run_does_not_decide_it() -> None:
    channel, guard = channel_of(), Guard(labels("SSUU"))
    channel.feed("one two three")
    channel.pause()
    judge(channel, guard)
    channel.feed(" four five")
    channel.finish()
    judge(channel, guard)
    assert channel.block_start == len("one two")


def test_a_note_is_the_worst_of_the_tokens_that_cover_a_span() -> None:
    channel = judged([TEXT], labels("SUSC"))
    first = channel.note(0, len("one two"))
    assert first is not None
    assert (first.risk_level, first.start, first.end) == ("Unsafe", 0, len("one two"))
    second = channel.note(len("one two"), len("one two three four"))
    assert second is not None
    assert second.risk_level == "Controversial"


def test_a_token_that_is_cut_counts_for_both_its_sides() -> None:
    channel = judged(["one two"], labels("SU"))
    notes = [channel.note(0, 5), channel.note(5, 7)]
    assert [note.risk_level if note else None for note in notes] == ["Unsafe", "Unsafe"]


def test_risks_are_ordered_by_level_and_then_by_certainty() -> None:
    order = [risk(LEVEL_OF[one]) for one in "SCU"]
    assert sorted(order, key=badness) == order
    for one, other in product(order, order):
        assert is_worse(one, other) == (badness(one) > badness(other))
    assert badness(risk(CONTROVERSIAL)) < badness(risk(UNSAFE))


def test_leading_newlines_belong_to_the_first_token() -> None:
    channel = judged(["\n", "\n one two"], labels("UU"))
    assert channel.block_start == 0
    assert judged(["\n\n"], labels("UU")).cleared == 2
