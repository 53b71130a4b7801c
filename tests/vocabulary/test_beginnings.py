"""The beginnings of the vocabulary's entries: the same as those of a set."""

from hypothesis import given
from hypothesis import strategies as st

from proxy import vocabulary
from proxy.vocabulary.beginnings import Beginnings

WORDS = st.lists(st.binary(max_size=4), max_size=30)


def proper_prefixes(entries: list[bytes]) -> set[bytes]:
    return {entry[:end] for entry in entries for end in range(1, len(entry))}


@given(WORDS, WORDS)
def test_it_holds_what_a_set_of_all_proper_prefixes_holds(entries: list[bytes], others: list[bytes]) -> None:
    entries = sorted(set(entries))
    expected, found = proper_prefixes(entries), Beginnings(entries)
    assert len(found) == len(expected)
    for text in {*entries, *others, *expected, b""}:
        assert (text in found) is (text in expected)


def test_of_the_vocabulary_it_holds_every_beginning_and_no_other() -> None:
    ordered = sorted(vocabulary.load().entries)
    found = Beginnings(ordered)
    expected = proper_prefixes(ordered)
    assert len(found) == len(expected)
    assert all(start in found for start in expected)
    assert [entry for entry in ordered if (entry in found) is not (entry in expected)] == []
