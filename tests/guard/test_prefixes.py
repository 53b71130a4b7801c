from proxy.guard.prefixes import SHORTEST_TOKENS, Prefixes
from proxy.guard.sequence import Sequence

SYSTEM = list(range(600))


def known(*texts: list[int], owner: str = "key") -> tuple[Prefixes, list[Sequence]]:
    prefixes = Prefixes()
    sequences = [Sequence(number, owner, text, computed=len(text)) for number, text in enumerate(texts)]
    for sequence in sequences:
        prefixes.add(sequence)
    return prefixes, sequences


def test_the_longest_computed_beginning_is_found() -> None:
    prefixes, sequences = known([*SYSTEM[:100], 1, 2], [*SYSTEM[:500], 1], [*SYSTEM[:50], 3])
    assert prefixes.find("key", SYSTEM, 600) == (sequences[1], 500)
    assert prefixes.find("key", SYSTEM, 80) is not None
    sequences[1].computed = 40
    assert prefixes.find("key", SYSTEM, 600) == (sequences[0], 100)


def test_what_comes_after_the_limit_does_not_count() -> None:
    prefixes, _ = known(SYSTEM)
    found = prefixes.find("key", SYSTEM, 599)
    assert found is not None
    assert found[1] == 599
    assert prefixes.find("key", SYSTEM, SHORTEST_TOKENS - 1) is None


def test_owners_are_apart_and_no_owner_shares_nothing() -> None:
    prefixes, _ = known(SYSTEM)
    assert prefixes.find("other", SYSTEM, 600) is None
    prefixes, _ = known(SYSTEM, owner="")
    assert prefixes.find("", SYSTEM, 600) is None


def test_a_beginning_that_was_taken_back_is_not_found() -> None:
    prefixes, (sequence,) = known(SYSTEM)
    sequence.truncate(10)
    sequence.ids += [7] * 100
    sequence.computed = 110
    assert prefixes.find("key", SYSTEM, 600) is None
    prefixes.remove(sequence)
    prefixes.remove(sequence)
    assert len(prefixes) == 0


def test_short_texts_are_left_alone() -> None:
    prefixes, _ = known(SYSTEM[: SHORTEST_TOKENS - 1])
    assert len(prefixes) == 0
