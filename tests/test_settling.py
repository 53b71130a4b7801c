"""The tight rule: what it gives out early is what every continuation begins with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import vocabulary
from proxy.settling import MAX_UNSETTLED_BYTES, STEP_CHARACTERS, Tail, settle
from proxy.splitter import split, split_growing
from tests.judge import SENTENCES, judged_ids

RUNS = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=40),
    st.text("我们可以在这里看到的人工智能", min_size=1, max_size=20),
    st.text("กขคงจฉชซดตถทธนบปผ", min_size=1, max_size=20),
    st.text("!?.=-#", min_size=1, max_size=30),
    st.text(" \n\t", min_size=1, max_size=30),
    st.sampled_from(("'", "'r", " !", "!\n", "😀", "\u3000", "  \n ", "👍🏽")),
)


def settled(text: str, ahead: str = "") -> list[int]:
    return [token.id for token in settle(Tail("", text), ahead).tokens]


@given(RUNS, st.one_of(RUNS, st.sampled_from(SENTENCES)))
def test_what_is_settled_stays_whatever_follows(text: str, more: str) -> None:
    pieces, tail = split_growing(text, "")
    ids = settled(tail) if tail else []
    start = len(judged_ids("".join(pieces)))
    assert judged_ids(text + more)[start : start + len(ids)] == ids


def test_a_word_that_may_become_a_longer_one_is_held() -> None:
    assert settled(" interna") == []
    assert settled(" worl") == []


def test_the_start_of_a_sentence_without_spaces_is_settled() -> None:
    text = "今天的天气很好我们打算去公园散步"
    ids = settled(text)
    assert ids
    assert judged_ids(text)[: len(ids)] == ids
    assert len(vocabulary.decode(ids)) >= len(text) - 4


def test_lengths_and_the_tail_add_up() -> None:
    text = "今天的天气很好我们打算去公园散步"
    done = settle(Tail("", text), "")
    assert sum(token.length for token in done.tokens) + len(done.tail.text) == len(text)
    assert text.endswith(done.tail.text)
    assert done.tail.context == "Q"


@pytest.mark.parametrize("unit", ["a", "ก", "!", "-", "\n", " ", "\t", "😀", "x1"])
def test_a_long_run_leaves_little_unsettled(unit: str) -> None:
    text = split(unit * 3000)[0]
    done = settle(Tail("", text), "")
    assert len(done.tail.text.encode()) <= STEP_CHARACTERS
    assert done.forced == 0


def test_the_token_before_rules_out_what_would_have_merged_with_it() -> None:
    # 64 dashes are one token; with more to come they may still become 96, but not 65.
    done = settle(Tail("", text="-" * 200), "")
    assert done.tail.last is not None
    assert len(done.tail.text) < MAX_UNSETTLED_BYTES
