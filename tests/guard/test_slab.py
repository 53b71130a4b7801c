"""Memory begins as zeros, and a step's chunks are placed so that those computed together lie together."""

from pathlib import Path

import pytest

from proxy.guard.cache import Slot
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.guard.slab import Slab, place
from proxy.risk import Role
from tests.guard.driver import Small


def chunk(slab: int, index: int, count: int) -> Chunk:
    job = Job(0, count, (), Role.ASSISTANT, 0.0)
    return Chunk(Sequence(0, "", [], 0, Slot(slab, index, 64, [])), job, 0, count, ())


def test_memory_begins_as_zeros(tmp_path: Path) -> None:
    assert not Slab(Small(tmp_path, num_hidden_layers=1).loaded.model, 2, 16).memory.any()


@pytest.mark.parametrize(
    ("short", "order"),
    [
        (0, [(0, 1, 9), (0, 2, 1), (0, 5, 3), (1, 0, 2)]),
        (2, [(0, 2, 1), (0, 1, 9), (0, 5, 3), (1, 0, 2)]),
        (3, [(0, 2, 1), (0, 5, 3), (0, 1, 9), (1, 0, 2)]),
    ],
)
def test_chunks_lie_as_their_slots_do_with_short_ones_first(short: int, order: list[tuple[int, int, int]]) -> None:
    placed = place([chunk(1, 0, 2), chunk(0, 5, 3), chunk(0, 1, 9), chunk(0, 2, 1)], short)
    assert [(at.slab, at.index, at.chunk.count) for at in placed] == order
    assert [at.first for at in placed] == [sum(count for *_, count in order[:number]) for number in range(4)]
