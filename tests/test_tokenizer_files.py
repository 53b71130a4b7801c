"""Tokenizer files for other programs: merges follow from ranks, bytes have letters, control ids their place."""

import pytest

from proxy.tokenizer_files import byte_letters, merges, tokenizer_config
from proxy.vocabulary import CONTROL_TEXTS, IM_END, THINK


def test_every_byte_has_a_printable_letter_of_its_own() -> None:
    letters = byte_letters()
    assert sorted(letters) == list(range(256))
    assert len(set(letters.values())) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in letters.values())
    assert (letters[ord("a")], letters[ord(" ")], letters[ord("\n")]) == ("a", "Ġ", "Ċ")


def test_merges_join_what_lower_ranks_leave() -> None:
    ranks = {entry: rank for rank, entry in enumerate([b"a", b"b", b"c", b"ab", b"bc", b"abc", b"abab"])}
    # "ab" is merged before "bc", so "abc" is "ab" and "c".
    assert list(merges(ranks)) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"ab", b"ab")]


def test_an_entry_that_no_merge_makes_is_refused() -> None:
    ranks = {entry: rank for rank, entry in enumerate([b"a", b"b", b"c", b"abc"])}
    with pytest.raises(ValueError, match="cannot be reached"):
        list(merges(ranks))


def test_control_texts_keep_their_ids() -> None:
    added = tokenizer_config(1024)["added_tokens_decoder"]
    assert [token["content"] for token in added.values()] == list(CONTROL_TEXTS)
    assert added[str(IM_END)] | {"content": "<|im_end|>", "special": True} == added[str(IM_END)]
    assert not added[str(THINK)]["special"]
