"""The classes are those of the reference, read off by running it on every code point."""

import unicodedata
from itertools import islice

import pytest
from tokenizers import Regex
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import Split

from proxy.vocabulary import classes

EVERY_CHARACTER = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
normalize = NFC().normalize_str


@pytest.mark.parametrize(
    ("pattern", "members"), [(r"\p{L}", classes.LETTERS), (r"\p{N}", classes.NUMBERS), (r"\s", classes.SPACES)]
)
def test_a_class_is_what_the_reference_matches(pattern: str, members: frozenset[str]) -> None:
    # Some thousands at a time: the reference is slow in a text of a million.
    others: set[str] = set()
    for start in range(0, len(EVERY_CHARACTER), 4096):
        text = "".join(EVERY_CHARACTER[start : start + 4096])
        others.update(*(piece for piece, _ in Split(Regex(f"{pattern}+"), behavior="removed").pre_tokenize_str(text)))
    assert set(EVERY_CHARACTER) - others == members


def test_singletons_are_what_nfc_replaces_alone() -> None:
    assert {character for character in EVERY_CHARACTER if normalize(character) != character} == classes.SINGLETONS


def test_no_other_character_changes_beside_a_mark_or_a_letter() -> None:
    inert = set(EVERY_CHARACTER) - classes.COMPOSABLE - classes.COMPOSING - classes.SINGLETONS
    some = list(islice(sorted(inert), 0, None, 97))
    text = "".join(f"e{character}\u0301\u0316{character}\u1161\u11a8{character}" for character in some)
    kept = "".join(f"e{character}\u0316\u0301{character}\u1161\u11a8{character}" for character in some)
    assert normalize(text) == kept


def test_composing_keeps_the_class_of_the_first_character() -> None:
    # So a held character may be split by its class before its final form is known.
    for character in classes.COMPOSABLE | classes.SINGLETONS:
        for mark in ("", "\u0301", "\u0338", "\u3099", "\u11a8", "\u0323"):
            first = unicodedata.normalize("NFC", character + mark)[0]
            for members in (classes.LETTERS, classes.NUMBERS, classes.SPACES):
                assert (first in members) is (character in members)


def test_marks_that_reorder_are_signs_and_no_space_or_number_composes() -> None:
    assert not classes.COMPOSABLE & (classes.NUMBERS | classes.SPACES)
    assert not classes.COMPOSABLE & classes.COMPOSING & classes.LETTERS


def test_runs_hold_what_a_set_of_them_holds() -> None:
    every = {chr(point) for point in range(0x110000)}
    letters = frozenset(classes.LETTERS)
    assert len(letters) == len(classes.LETTERS)
    assert {character for character in every if character in classes.LETTERS} == letters
    assert "" not in classes.LETTERS
    assert "ab" not in classes.LETTERS
