"""Attention of few tokens of many streams, each over its own past, in four calls a layer for all of them.

The fused call of torch does one stream's, and most of its time goes into copying the keys into the order that its
matrix product likes, for the sake of two rows. Here nothing is copied: a score is a product that is sampled
where a query meets a key of its own stream (`torch.sparse.sampled_addmm`, over a pattern in CSR), and what comes of
the values is a bag: rows of one table, summed with weights (`torch.embedding_bag`, which on x86 is FBGEMM's).
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from proxy.guard.architecture import Architecture
from proxy.guard.model import GuardModel
from proxy.guard.slab import Placed, Slab

# Chunks of more tokens read their keys and values once for all of them, which is what a fused call is good for.
RAGGED_TOKENS = 3
# Tokens whose keys have fewer numbers together are computed one by one: a pattern of its own is made for each step.
LEAST_NUMBERS = 320
# Scores of one call, so that pattern, scores and weights stay in a core's cache.
MAX_SCORES = 1 << 17


def suits(model: GuardModel) -> bool:
    """Whether it is faster there than one call a stream."""
    return model.dtype == torch.float32 and model.device.type == "cpu" and is_at_hand()


def groups(placed: Iterable[Placed], shape: Architecture) -> Iterator[list[Placed]]:
    """Chunks in order, as many together as one call may take; one alone may be larger."""
    group: list[Placed] = []
    tokens = longest = 0
    for at in placed:
        tokens, longest = tokens + at.chunk.count, max(longest, at.chunk.start + at.chunk.count)
        if group and tokens * shape.heads * longest > MAX_SCORES:
            yield group
            group, tokens, longest = [], at.chunk.count, at.chunk.start + at.chunk.count
        group.append(at)
    if group:
        yield group


class Ragged:
    """Attention of short chunks of one slab, for a model that it `suits`."""

    def __init__(self, slab: Slab, placed: Sequence[Placed], shape: Architecture) -> None:
        _, _, slots, kv_heads, capacity, head_dim = slab.memory.shape
        self._tables = slab.memory.view(shape.layers, 2, slots * kv_heads * capacity, head_dim)
        last = placed[-1]
        self._rows = slice(placed[0].first, last.first + last.chunk.count)
        tokens = [(at.index, at.chunk.start + offset) for at in placed for offset in range(at.chunk.count)]
        self._count, self._heads = len(tokens), shape.heads
        self._length = length = max(position for _, position in tokens) + 1
        slot, position = torch.tensor(tokens, dtype=torch.int32).unbind(1)
        keys = torch.arange(length, dtype=torch.int32)
        # Which rows of the table a head reads: those of its key head, as many as the longest past has.
        heads = torch.arange(kv_heads, dtype=torch.int32).repeat_interleave(shape.heads // kv_heads)
        bases = (slot.unsqueeze(1) * kv_heads + heads) * capacity
        self._columns = (bases.unsqueeze(2) + keys).view(-1)
        rows = self._count * self._heads
        self._ends = torch.arange(0, rows * length + 1, length, dtype=torch.int32)
        hidden = keys > position.unsqueeze(1)
        self._mask = torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf).unsqueeze(1)
        size = (rows, self._tables.shape[2])
        self._scores = _pattern(self._ends, self._columns, torch.zeros(rows * length), size)

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q [T, heads, head_dim] -> [tokens, heads * head_dim]"""
        keys, values = self._tables[layer]
        rows = q[self._rows].reshape(-1, q.shape[-1])
        torch.sparse.sampled_addmm(self._scores, rows, keys.t(), beta=0.0, out=self._scores)
        scores = self._scores.values().view(self._count, self._heads, self._length)
        weights = torch.softmax(scores + self._mask, -1).view(-1)
        return _bags(values, self._columns, self._ends, weights).view(self._count, -1)


@cache
def is_at_hand() -> bool:
    """Whether this build of torch has the kernels that make it worth while: FBGEMM, for x86, and products over CSR."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    table, ends = torch.eye(2), torch.tensor([0, 2], dtype=torch.int32)
    columns = torch.tensor([0, 1], dtype=torch.int32)
    try:
        with warnings.catch_warnings():  # here, so in no step: that sparse tensors are in beta, said once a process
            warnings.simplefilter("ignore", UserWarning)
            pattern = _pattern(ends, columns, torch.zeros(2), (1, 2))
        found = torch.sparse.sampled_addmm(pattern, torch.tensor([[1.0, 2.0]]), table.t(), beta=0.0).values()
        return bool(_bags(table, columns, ends, found).equal(torch.tensor([[1.0, 2.0]])))
    except RuntimeError:  # what torch raises where a build lacks an operation; then each stream has a call of its own
        return False


def _bags(table: Tensor, rows: Tensor, ends: Tensor, weights: Tensor) -> Tensor:
    """The weighted sums of `rows` of a table, a bag between two `ends`."""
    return torch.embedding_bag(table, rows, ends, False, 0, False, weights, True)[0]


def _pattern(ends: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(ends, columns, values, size=size, check_invariants=False)
