from proxy.guard.sequence import Sequence
from proxy.guard.turns import Turns


def queue_of(*owners: str) -> tuple[Turns, list[Sequence]]:
    turns = Turns()
    sequences = [Sequence(number, owner, []) for number, owner in enumerate(owners)]
    for sequence in sequences:
        turns.push(sequence)
    return turns, sequences


def order(turns: Turns) -> list[int]:
    return [sequence.id for sequence in turns]


def test_owners_take_turns() -> None:
    turns, _ = queue_of("a", "a", "a", "b", "c", "c")
    assert order(turns) == [0, 3, 4, 1, 5, 2]


def test_who_was_served_goes_behind_the_others() -> None:
    turns, sequences = queue_of("a", "a", "b")
    turns.send_back(sequences[0])
    assert order(turns) == [2, 1, 0]


def test_removing_keeps_the_rest_and_forgets_empty_owners() -> None:
    turns, sequences = queue_of("a", "b")
    turns.remove(sequences[0])
    turns.remove(sequences[0])
    assert sequences[0] not in turns
    assert sequences[1] in turns
    assert len(turns) == 1
    turns.remove(sequences[1])
    assert not turns
    assert order(turns) == []


def test_the_oldest_is_known_and_a_walk_backwards_begins_with_the_newest() -> None:
    turns, sequences = queue_of("a", "b", "a")
    turns.send_back(sequences[0])
    assert turns.oldest is sequences[0]
    assert turns.first is sequences[1]
    assert [sequence.id for sequence in reversed(turns)] == [2, 1, 0]
    turns.remove(sequences[0])
    assert turns.oldest is sequences[1]


def test_an_owner_that_had_its_turn_is_behind_the_others() -> None:
    turns, sequences = queue_of("a", "a", "b")
    turns.pass_on("a")
    assert turns.first is sequences[2]
    turns.pass_on("nobody")
    assert turns.has("a")
    assert not turns.has("nobody")
    empty, _ = queue_of()
    assert (empty.first, empty.oldest) == (None, None)
