"""Texts that repeat one of the evaluation's, or nearly."""

import pytest

from training.overlap import Known, shingles

KNOWN = Known(["How do I plant a lemon tree in winter?", "", "Hi!"])


@pytest.mark.parametrize(
    ("text", "is_held"),
    [
        ("how do I plant a LEMON tree, in winter", True),
        ("How can I plant a lemon tree in winter?", True),
        ("How do I plant an oak?", False),
        ("How do I plant a lemon tree in winter? Or in a pot on a balcony that faces north all year long", False),
        ("hi", True),
        ("", False),
        ("What is the capital of Peru?", False),
    ],
)
def test_near_copies_are_known(text: str, is_held: bool) -> None:
    assert KNOWN.holds(text) is is_held


def test_short_texts_are_one_shingle() -> None:
    assert shingles("abc") == {"abc"}
    assert shingles("abcdefghi") == {"abcdefgh", "bcdefghi"}
    assert shingles("") == set()
