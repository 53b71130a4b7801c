"""The records between the stages."""

from adapters.base import End, Key, Kind
from proxy.structs import Batch, Held

KEY = Key(0, "content")


def test_batches_are_equal_where_they_ask_the_same() -> None:
    batch = Batch(KEY, Kind.CONTENT, 0, 3, [1, 2])
    assert batch == Batch(KEY, Kind.CONTENT, 0, 3, [1, 2])
    assert batch != Batch(KEY, Kind.CONTENT, 1, 3, [1, 2])
    assert "[1, 2]" in repr(batch)


def test_what_is_held_is_itself_alone() -> None:
    assert Held(1, End(), 0.0) != Held(1, End(), 0.0)
