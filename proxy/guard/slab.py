"""Memory for keys and values of many streams, and where in it a step's chunks lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxy.guard.cache import Slot
from proxy.guard.model import GuardModel
from proxy.guard.sequence import Chunk


class Slab:
    """Keys and values of `slots` streams: a pair of [slots, kv_heads, capacity, head_dim] for each layer."""

    def __init__(self, model: GuardModel, slots: int, capacity: int) -> None:
        shape = model.architecture
        # Zeros, not empty: masked positions are read, and memory may hold NaN.
        memory = torch.zeros(
            (shape.layers, 2, slots, shape.kv_heads, capacity, shape.head_dim), dtype=model.dtype, device=model.device
        )
        self.memory = memory
        self.layers: list[tuple[Tensor, Tensor]] = [(layer[0], layer[1]) for layer in memory]


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk with its tokens' place in the packed batch."""

    chunk: Chunk
    slab: int
    index: int
    first: int  # row of its first token


def place(chunks: Sequence[Chunk], short: int = 0) -> list[Placed]:
    """Chunks in the order of their slots, so that neighbours in memory are neighbours in the batch.

    Those of at most `short` tokens come first of their slab.
    """
    placed: list[Placed] = []
    first = 0
    slots = []
    for chunk in chunks:
        slot: Slot | None = chunk.sequence.slot
        assert slot is not None  # the scheduler gives every running sequence a slot
        slots.append((slot.slab, chunk.count > short, slot.index, chunk))
    for slab, _, index, chunk in sorted(slots, key=lambda at: at[:3]):
        placed.append(Placed(chunk, slab, index, first))
        first += chunk.count
    return placed
