"""NFC of a stream is NFC of the whole, and every normalized character knows what it stands for."""

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from proxy.normalizer import MAX_MARKS, Normalizer, needs_work, normalize
from proxy.vocabulary.classes import COMPOSABLE, COMPOSING, SINGLETONS
from tests.judge import random_cut

reference = NFC().normalize_str
TROUBLE = st.sampled_from(sorted(COMPOSABLE | COMPOSING | SINGLETONS))
TEXTS = st.lists(st.one_of(TROUBLE, st.sampled_from("ab <=1\n가か"), st.characters(codec="utf-8")), max_size=40).map(
    "".join
)


def run(*deltas: str, prefix: str = "") -> tuple[list[str], list[tuple[int, int]]]:
    normalizer = Normalizer(prefix)
    out = [normalizer.feed(delta) for delta in deltas]
    return [*out, normalizer.finish()], offsets(normalizer)


def offsets(normalizer: Normalizer) -> list[tuple[int, int]]:
    """Where a normalized character stands for more or fewer than one: its position, and how many more."""
    first = normalizer.count - len(normalizer.lengths)
    return [(at, length - 1) for at, length in enumerate(normalizer.lengths, first) if length != 1]


@given(TEXTS, st.integers(0, 1 << 30))
def test_any_cut_gives_the_normal_form_of_the_whole(text: str, seed: int) -> None:
    normalizer = Normalizer()
    out, received = "", 0
    for delta in random_cut(random.Random(seed), text):
        out += normalizer.feed(delta)
        received += len(delta)
        assert len(out) == normalizer.count
        assert normalizer.held == received - len(out) - sum(more for _, more in offsets(normalizer))
    assert out + normalizer.finish() == reference(text) == normalize(text)
    assert len(reference(text)) + sum(more for _, more in offsets(normalizer)) == len(text)


def test_a_letter_waits_for_its_mark_and_a_sign_does_not() -> None:
    assert run("cafe", "\u0301", ".", "!") == (["caf", "", "é.", "!", ""], [(3, 1)])


def test_a_letter_that_takes_no_mark_does_not_wait() -> None:
    assert run("q", "\u0302", "x")[0] == ["q", "", "\u0302", "x"]


def test_marks_in_another_order_are_complete_together() -> None:
    # e, acute, dot below -> e with dot below, acute: the source's three characters end with the last.
    assert run("e\u0301\u0323.") == (["ẹ\u0301.", ""], [(0, -1), (1, 2)])


def test_what_stands_for_itself_beside_a_composition_keeps_its_place() -> None:
    # The diaeresis is neither merged nor moved: é is two characters, the mark one.
    assert run("e\u0301\u0308.") == (["é\u0308.", ""], [(0, 1)])


def test_hangul_composes_over_deltas() -> None:
    assert run("\u1112", "\u1161", "\u11ab", ".") == (["", "", "한", ".", ""], [(0, 2)])


def test_a_surrogate_pair_is_joined_and_counts_two() -> None:
    assert run("\ud83d", "\udc4d!") == (["", "👍!", ""], [(0, 1)])


def test_lone_surrogates_are_replaced_one_by_one() -> None:
    for text in ("\ud83d", "\udc4d", "\udc4d\ud83d", "\ud83d\ud83d"):
        assert "".join(run(*text)[0]) == "\ufffd" * len(text)


def test_a_prefix_counts_nothing() -> None:
    out, found = run("\u0301x", prefix="\ne")
    assert ("".join(out), found) == ("\néx", [(0, -1)])


def test_a_flood_of_marks_is_not_held_beyond_the_limit() -> None:
    normalizer = Normalizer()
    most = 0
    for character in "e" + "\u0301" * 1000:
        normalizer.feed(character)
        most = max(most, normalizer.held)
    assert most == MAX_MARKS
    assert "".join(run("e" + "\u0301" * 1000)[0]) == "é" + "\u0301" * 999


def test_a_flood_is_cut_the_same_however_it_arrives() -> None:
    flood = "e" + "\u0301\u0316" * 100
    assert "".join(run(flood)[0]) == "".join(run(*flood)[0]) == normalize(flood)


@pytest.mark.parametrize("use", [needs_work, normalize, lambda text: Normalizer().feed(text)])
@pytest.mark.parametrize("marks", ["\u0301", "\u0301\u0327"])
def test_a_flood_of_marks_takes_little_memory(use: Callable[[str], object], marks: str) -> None:
    """A list of all that was looked at took 80 bytes for each character of 4,096, the places of those moved 96."""
    flood = "a" + marks * (4095 // len(marks))
    use(flood)
    tracemalloc.start()
    try:
        use(flood)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * len(flood)


def test_the_class_of_what_is_held_is_known_ahead() -> None:
    normalizer = Normalizer()
    for delta, ahead in (("e", "Q"), ("=", "="), ("1", ""), ("e\u0301", "Q"), (" \u0301", "="), ("가", "Q")):
        normalizer.feed(delta)
        assert normalizer.ahead == ahead
    normalizer.finish()
    assert normalizer.ahead == ""


def test_a_clone_goes_its_own_way() -> None:
    normalizer = Normalizer()
    normalizer.feed("e\u0301")
    clone = normalizer.clone()
    assert clone.finish() == "é"
    assert normalizer.feed("\u0323.") == "ẹ\u0301."
