"""Attention of a ragged batch over the streams' own keys and values: views of slabs, never a gather.

On a CPU a small model's step is made of call overhead, so the short chunks of a slab are computed together
(`ragged`). Where torch lacks what that takes, and for chunks of more tokens, those in neighbouring slots
are one masked call over a view of their slab; a long chunk is a call of its own, and a lone token one
that has its views of all layers made at once.
"""

from collections.abc import Iterator
from itertools import takewhile

import torch
from torch import Tensor
from torch.nn import functional

from proxy.guard.model import GuardModel
from proxy.guard.ragged import LEAST_NUMBERS, RAGGED_TOKENS, Ragged, groups, suits
from proxy.guard.slab import Placed, Slab

# Longer chunks are computed one by one: there is enough work in one, and padding others to it would waste.
BATCHED_TOKENS = 16
# A slot that is not in the step may lie between two that are; computing over it costs less than a second call.
GAP_SLOTS = 1
# Fewer single tokens than these are computed one by one: a masked call takes its mask, and copies of the queries.
LEAST_NEIGHBOURS = 8


class Write:
    """Puts the new keys and values of all chunks in one slab to their places."""

    def __init__(self, slab: Slab, placed: list[Placed], device: torch.device) -> None:
        self._slab = slab
        first, last = placed[0], placed[-1]
        self._rows = slice(first.first, last.first + last.chunk.count)
        self._one = first if len(placed) == 1 else None
        if self._one is None:
            slots = [at.index for at in placed for _ in range(at.chunk.count)]
            positions = [p for at in placed for p in range(at.chunk.start, at.chunk.start + at.chunk.count)]
            self._slots = torch.tensor(slots, device=device)
            self._positions = torch.tensor(positions, device=device)

    def __call__(self, layer: int, k: Tensor, v: Tensor) -> None:
        keys, values = self._slab.layers[layer]
        if self._one is not None:
            chunk, index = self._one.chunk, self._one.index
            keys[index, :, chunk.start : chunk.start + chunk.count] = k[self._rows].transpose(0, 1)
            values[index, :, chunk.start : chunk.start + chunk.count] = v[self._rows].transpose(0, 1)
        else:
            keys[self._slots, :, self._positions] = k[self._rows]
            values[self._slots, :, self._positions] = v[self._rows]


class Tokens:
    """Attention of single tokens of one slab, each over its own past."""

    def __init__(self, slab: Slab, placed: list[Placed]) -> None:
        self._rows = slice(placed[0].first, placed[-1].first + 1)
        # Of each token the keys and the values of each layer, as [1, kv_heads, length, head_dim].
        self._views = [
            slab.memory[:, :, at.index : at.index + 1, :, : at.chunk.start + 1].flatten(0, 1).unbind() for at in placed
        ]

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q [T, heads, head_dim] -> [count, heads * head_dim]"""
        rows, attend = q[self._rows], functional.scaled_dot_product_attention
        # The query heads of one key head as rows: the keys are read once, not once a query head.
        queries = rows.view(len(rows), 1, self._views[0][0].shape[1], -1, rows.shape[-1]).unbind()
        key, value = 2 * layer, 2 * layer + 1
        mixed = [attend(one, own[key], own[value], scale=1.0) for one, own in zip(queries, self._views, strict=True)]
        return torch.cat(mixed).reshape(len(rows), -1)


class Single:
    """Attention of one chunk of several tokens over its own past."""

    def __init__(self, slab: Slab, at: Placed, model: GuardModel) -> None:
        self._slab, self._index, self._count = slab, at.index, at.chunk.count
        self._rows = slice(at.first, at.first + at.chunk.count)
        self._length = at.chunk.start + at.chunk.count
        self._is_causal = at.chunk.start == 0
        self._mask: Tensor | None = None
        if not self._is_causal:
            queries = torch.arange(at.chunk.start, self._length, device=model.device)
            self._mask = _mask(queries, self._length, model)

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q [T, heads, head_dim] -> [count, heads * head_dim]"""
        keys, values = (memory[self._index : self._index + 1, :, : self._length] for memory in self._slab.layers[layer])
        queries = q[self._rows].transpose(0, 1).unsqueeze(0)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._mask, is_causal=self._is_causal, scale=1.0, enable_gqa=True
        )
        return mixed[0].transpose(0, 1).reshape(self._count, -1)


class Neighbours:
    """Attention of short chunks in neighbouring slots of one slab, as one padded call."""

    def __init__(self, slab: Slab, placed: list[Placed], model: GuardModel) -> None:
        shape, device = model.architecture, model.device
        self._slab, self._group = slab, shape.heads // shape.kv_heads
        low = placed[0].index
        self._slots = slice(low, placed[-1].index + 1)
        self._span = placed[-1].index + 1 - low
        self._count = max(at.chunk.count for at in placed)
        self._rows = slice(placed[0].first, placed[-1].first + placed[-1].chunk.count)
        self._length = max(at.chunk.start + at.chunk.count for at in placed)
        starts = [0] * self._span
        for at in placed:
            starts[at.index - low] = at.chunk.start
        queries = torch.tensor(starts, device=device).unsqueeze(1) + torch.arange(self._count, device=device)
        mask = _mask(queries, self._length, model).unsqueeze(2)
        self._mask = mask.expand(-1, -1, self._group, -1).reshape(self._span, 1, -1, self._length)
        self._pick: tuple[Tensor, Tensor] | None = None
        if self._span * self._count != self._rows.stop - self._rows.start:
            self._pick = self._padding(placed, low, device)

    def __call__(self, layer: int, q: Tensor) -> Tensor:
        """q [T, heads, head_dim] -> [tokens of the group, heads * head_dim]"""
        keys, values = (memory[self._slots, :, : self._length] for memory in self._slab.layers[layer])
        kv_heads, head_dim = keys.shape[1], keys.shape[3]
        rows = q[self._rows] if self._pick is None else q[self._pick[0]]
        folded = rows.reshape(self._span, self._count, kv_heads, self._group, head_dim).transpose(1, 2)
        folded = folded.reshape(self._span, kv_heads, self._count * self._group, head_dim)
        mixed = functional.scaled_dot_product_attention(folded, keys, values, attn_mask=self._mask, scale=1.0)
        mixed = mixed.view(self._span, kv_heads, self._count, self._group, head_dim).transpose(1, 2)
        mixed = mixed.reshape(self._span * self._count, -1)
        return mixed if self._pick is None else mixed[self._pick[1]]

    def _padding(self, placed: list[Placed], low: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Packed row of each padded row (any where there is none), and padded row of each packed one."""
        to_padded = [placed[0].first] * (self._span * self._count)
        to_packed = []
        for at in placed:
            base = (at.index - low) * self._count
            for offset in range(at.chunk.count):
                to_padded[base + offset] = at.first + offset
                to_packed.append(base + offset)
        return torch.tensor(to_padded, device=device), torch.tensor(to_packed, device=device)


Part = Ragged | Tokens | Single | Neighbours


class Attention:
    """One step's attention: call it with a layer's q, k and v (see `model.Attend`)."""

    def __init__(self, slabs: dict[int, Slab], placed: list[Placed], model: GuardModel) -> None:
        self._writes: list[Write] = []
        self._parts: list[Part] = []
        for slab_id, tenants in _by_slab(placed):
            slab = slabs[slab_id]
            self._writes.append(Write(slab, tenants, model.device))
            self._parts += _parts(slab, tenants, model)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for write in self._writes:
            write(layer, k, v)
        if len(self._parts) == 1:
            return self._parts[0](layer, q)
        return torch.cat([part(layer, q) for part in self._parts])


def _by_slab(placed: list[Placed]) -> Iterator[tuple[int, list[Placed]]]:
    tenants: list[Placed] = []
    for at in placed:
        if tenants and tenants[-1].slab != at.slab:
            yield tenants[0].slab, tenants
            tenants = []
        tenants.append(at)
    yield tenants[0].slab, tenants


def _parts(slab: Slab, tenants: list[Placed], model: GuardModel) -> Iterator[Part]:
    """In the order of the batch, in which `place` has put short chunks first where they are to be computed together."""
    shape = model.architecture
    short = list(takewhile(lambda at: at.chunk.count <= RAGGED_TOKENS, tenants)) if suits(model) else []
    if sum(at.chunk.count for at in short) * shape.kv_heads * shape.head_dim >= LEAST_NUMBERS:
        for group in groups(short, shape):
            yield Ragged(slab, group, shape)
        tenants = tenants[len(short) :]
    yield from _dense_parts(slab, tenants, model)


def _dense_parts(slab: Slab, tenants: list[Placed], model: GuardModel) -> Iterator[Tokens | Single | Neighbours]:
    tokens: list[Placed] = []
    for run in _runs(tenants):
        if len(run) < LEAST_NEIGHBOURS and all(at.chunk.count == 1 for at in run):
            tokens += run
            continue
        if tokens:
            yield Tokens(slab, tokens)
            tokens = []
        yield Single(slab, run[0], model) if len(run) == 1 else Neighbours(slab, run, model)
    if tokens:
        yield Tokens(slab, tokens)


def _runs(tenants: list[Placed]) -> Iterator[list[Placed]]:
    """Neighbours that one call can compute."""
    run: list[Placed] = []
    for at in tenants:
        are_short = bool(run) and max(at.chunk.count, run[-1].chunk.count) <= BATCHED_TOKENS
        # Behind the short ones, which `place` may have put first, slots begin anew.
        if are_short and run[-1].index < at.index <= run[-1].index + 1 + GAP_SLOTS:
            run.append(at)
            continue
        if run:
            yield run
        run = [at]
    if run:
        yield run


def _mask(queries: Tensor, length: int, model: GuardModel) -> Tensor:
    """queries [...] positions -> [..., length]: 0 where a query may look, -inf where not."""
    hidden = torch.arange(length, device=queries.device) > queries.unsqueeze(-1)
    return torch.zeros(hidden.shape, dtype=model.dtype, device=model.device).masked_fill_(hidden, float("-inf"))
