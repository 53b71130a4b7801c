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
