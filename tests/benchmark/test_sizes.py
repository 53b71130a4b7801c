"""Sizes know what they ask of a guard's window."""

from proxy.benchmark.sizes import QUICK, Pace, Sizes


def test_the_longest_text_is_that_of_the_tables_asked_for() -> None:
    assert Sizes(tables=("steps",), history=100, chunks=(5,)).longest == 105
    assert Sizes(tables=("capacity",), contexts=(10, 8000), pace=Pace(2.0, 1)).longest == 8121


def test_quick_is_less() -> None:
    assert QUICK.pace.seconds * QUICK.pace.seeds * len(QUICK.contexts) < 20
    assert QUICK.longest <= Sizes().longest
