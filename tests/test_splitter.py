"""Pre-tokens are those of the reference's pattern, and a growing text never takes a finished one back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from proxy.splitter import Growth, growth, split, split_growing, split_lazily
from tests.judge import FRAGMENTS, PATTERN

reference = Split(Regex(PATTERN), behavior="isolated")
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.characters(codec="utf-8")), max_size=20).map("".join)


@given(TEXTS)
def test_the_pieces_are_those_of_the_reference(text: str) -> None:
    expected = [piece for piece, _ in reference.pre_tokenize_str(text)] if text else []
    assert split(text) == expected == list(split_lazily(text))


@given(TEXTS, TEXTS)
def test_finished_pieces_stay_whatever_follows(text: str, more: str) -> None:
    pieces, tail = split_growing(text, "")
    assert "".join(pieces) + tail == text
    assert split(text + more)[: len(pieces)] == pieces


@given(TEXTS, st.sampled_from("Q="), TEXTS)
def test_with_the_next_class_known_more_is_finished(text: str, ahead: str, more: str) -> None:
    pieces, tail = split_growing(text, ahead)
    assert "".join(pieces) + tail == text
    follower = "ß" if ahead == "Q" else "\u0301"
    assert split(text + follower + more)[: len(pieces)] == pieces
    assert len(pieces) >= len(split_growing(text, "")[0])


@pytest.mark.parametrize("letter", ["s", "S", "\u017f", "t", "re", "VE", "lL", "m", "d"])
def test_contractions_are_cut_off(letter: str) -> None:
    assert split(f"we'{letter}x") == ["we", f"'{letter}", "x"]


def test_white_space_gives_its_last_character_to_the_next_word() -> None:
    assert split("a   b\n\n  c  ") == ["a", "  ", " b", "\n\n", " ", " c", "  "]


def test_a_million_blanks_are_one_piece() -> None:
    assert split(" " * 1_000_000) == [" " * 1_000_000]


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (" wor", Growth.LETTERS),
        ("'r", Growth.LETTERS),
        ("'", Growth.AFTER_SIGN),
        ("👍", Growth.AFTER_SIGN),
        (" !", Growth.SIGNS),
        ("!!", Growth.SIGNS),
        (" !\n", Growth.LINE_ENDS),
        ("\n", Growth.BLANKS),
        ("  ", Growth.BLANKS),
        (" ", Growth.AFTER_SPACE),
        ("\t", Growth.AFTER_BLANK),
    ],
)
def test_how_an_unfinished_piece_may_go_on(piece: str, expected: Growth) -> None:
    assert growth(piece) is expected


@pytest.mark.parametrize("text", ["x'", "x'r", "x\n  ", "x  ", "x!", "x!\n", "x"])
def test_what_may_grow_is_left_in_one_piece(text: str) -> None:
    pieces, tail = split_growing(text, "")
    assert (pieces, tail) == ((["x"], text[1:]) if len(text) > 1 else ([], "x"))


@pytest.mark.parametrize("text", ["7", "x'll", "\u0663"])
def test_a_number_and_a_contraction_are_finished_at_once(text: str) -> None:
    assert split_growing(text, "")[1] == ""
