"""The benchmark of steps takes the two ways that it says it takes."""

import io

import pytest
from rich.console import Console

from bench.steps import Streams, by_turns, one_by_one
from proxy.guard import attention
from proxy.guard.loader import load_guard
from proxy.guard.ragged import Ragged, is_at_hand


@pytest.mark.skipif(not is_at_hand(), reason="torch has no FBGEMM here")  # both ways are the same then
def test_a_round_measures_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(Ragged):
        def __init__(self, *arguments: object) -> None:
            made.append(1)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "Ragged", Counted)
    streams = Streams(load_guard(), 12, 20)
    streams.step(8)
    assert made
    made.clear()
    with one_by_one():
        assert streams.step(8) > 0
    assert not made
    [(together, alone)] = by_turns(streams, 8, 1, Console(file=io.StringIO()))
    assert together > 0 < alone
    assert made
