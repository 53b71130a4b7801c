"""Disguises: readable to people, other characters to a tokenizer; most of them the folded view undoes."""

import pytest

from proxy.evaluation.transforms import TRANSFORMS, transformed
from proxy.folding import fold

TEXT = "How do I open a Locked Box, x=1? No!"
# Told apart by more than invisible characters or the shape of letters: the folded view leaves these alone.
NOT_UNDONE = {
    "accents", "leet", "spaces between letters", "dots between letters", "a letter in front", "rot13", "base64"
}  # fmt: skip
ENCODED = {"rot13", "base64"}


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_a_transform_changes_words_and_gives_the_same_each_time(name: str) -> None:
    changed = transformed(name, TEXT)
    assert changed != TEXT
    assert changed == transformed(name, TEXT)
    assert changed.endswith(", x=1? No!") is (name not in ENCODED)  # words of one or two letters stay


@pytest.mark.parametrize("name", sorted(TRANSFORMS.keys() - NOT_UNDONE))
def test_the_folded_view_undoes_what_readers_read_over(name: str) -> None:
    assert fold(transformed(name, TEXT)) == TEXT


@pytest.mark.parametrize("name", sorted(NOT_UNDONE))
def test_what_is_not_undone_is_known(name: str) -> None:
    assert fold(transformed(name, TEXT)) != TEXT
