from proxy.guard.sequence import Sequence


def test_truncation_forgets_tokens_and_what_was_computed_of_them() -> None:
    sequence = Sequence(1, "key", [1, 2, 3, 4, 5], computed=4)
    sequence.truncate(5)
    assert (sequence.ids, sequence.computed) == ([1, 2, 3, 4, 5], 4)
    sequence.truncate(2)
    assert (sequence.ids, sequence.computed) == ([1, 2], 2)
