"""Every way of laying out a batch gives the attention of one stream alone (the engine's tests cover the rest)."""

import random

import pytest
import torch
from torch.nn import functional

from proxy.guard import attention
from proxy.guard.attention import BATCHED_TOKENS, LEAST_NEIGHBOURS, Attention, Neighbours, Single, Tokens
from proxy.guard.cache import Slot
from proxy.guard.ragged import LEAST_NUMBERS, RAGGED_TOKENS, Ragged, is_at_hand
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.guard.slab import Slab, place
from proxy.risk import Role
from tests.guard.driver import Small

CAPACITY = 64


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"), num_hidden_layers=1)


def chunk(slab: int, index: int, start: int, count: int) -> Chunk:
    job = Job(0, start + count, (), Role.ASSISTANT, 0.0)
    return Chunk(Sequence(0, "", [], start, Slot(slab, index, CAPACITY, [])), job, start, count, ())


LAYOUTS = {
    "one token": [(0, 0, 9, 1)],
    "one prompt": [(0, 3, 0, 30)],
    "one later piece": [(0, 3, 20, 30)],
    "neighbours alike": [(0, 0, 9, 1), (0, 1, 9, 1), (0, 2, 9, 1)],
    "neighbours of other lengths": [(0, 0, 9, 1), (0, 1, 0, 1), (0, 2, 50, 1)],
    "neighbours with other counts": [(0, 0, 9, 3), (0, 1, 0, 1), (0, 2, 40, BATCHED_TOKENS)],
    "a gap": [(0, 0, 9, 2), (0, 2, 4, 2), (0, 5, 4, 2)],
    "tokens here and there": [(0, 0, 9, 1), (0, 3, 0, 1), (0, 6, 50, 1), (0, 7, 2, 1)],
    "tokens around a longer chunk": [(0, 0, 9, 1), (0, 2, 5, 1), (0, 4, 50, 3), (0, 7, 2, 1), (1, 0, 7, 1)],
    "many neighbours": [(0, index, 5 * index, 1) for index in range(8)],
    "short ones among longer": [(0, index, 5 * index, 1 + index % 5) for index in range(8)],
    "few short ones behind longer": [(0, 1, 9, 5), (0, 2, 20, 16), (0, 3, 9, 1), (0, 6, 30, 2), (0, 7, 4, 4)],
    "short ones of two slabs": [(index % 2, index // 2, 3 * index, 1 + index % 3) for index in range(14)],
    "two slabs and a long one between": [(1, 0, 1, 1), (0, 2, 4, 2), (0, 3, 3, 40), (0, 4, 0, 5), (1, 1, 7, 1)],
}


@pytest.fixture(params=["ragged", "dense"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Up to how many tokens a chunk is a short one: none is, where the kernels for them are missing."""
    if request.param == "dense":
        monkeypatch.setattr(attention, "suits", lambda _: False)
        return 0
    if not is_at_hand():
        pytest.skip("torch has no FBGEMM here")
    return RAGGED_TOKENS


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_attention_of_a_batch_is_that_of_each_alone(
    small: Small, layout: list[tuple[int, int, int, int]], short: int
) -> None:
    model = small.loaded.model
    shape = model.architecture
    torch.manual_seed(1)
    slabs = {number: Slab(model, 8, CAPACITY) for number in (0, 1)}
    for slab in slabs.values():
        slab.memory.normal_()
    chunks = [chunk(*where) for where in layout]
    random.Random(1).shuffle(chunks)
    placed = place(chunks, short)
    total = sum(at.chunk.count for at in placed)
    q = torch.randn(total, shape.heads, shape.head_dim)
    k, v = torch.randn(2, total, shape.kv_heads, shape.head_dim)
    with torch.inference_mode():
        mixed = Attention(slabs, placed, model)(0, q, k, v)
    for at in placed:
        rows = slice(at.first, at.first + at.chunk.count)
        keys, values = (memory[at.index, :, : at.chunk.start + at.chunk.count] for memory in slabs[at.slab].layers[0])
        assert torch.equal(keys[:, at.chunk.start :], k[rows].transpose(0, 1))
        assert torch.equal(values[:, at.chunk.start :], v[rows].transpose(0, 1))
        group = shape.heads // shape.kv_heads
        mask = torch.ones(at.chunk.count, keys.shape[1], dtype=torch.bool).tril(at.chunk.start)
        alone = functional.scaled_dot_product_attention(
            q[rows].transpose(0, 1), keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0),
            attn_mask=mask, scale=1.0,
        )  # fmt: skip
        assert torch.allclose(mixed[rows], alone.transpose(0, 1).flatten(1), atol=1e-5)


def kinds(small: Small, layout: list[tuple[int, int, int, int]], short: int) -> list[type]:
    model = small.loaded.model
    slabs = {0: Slab(model, 4 * LEAST_NEIGHBOURS, CAPACITY)}
    return [type(part) for part in Attention(slabs, place([chunk(*where) for where in layout], short), model)._parts]


@pytest.mark.parametrize("short", ["dense"], indirect=True)
def test_few_tokens_are_computed_one_by_one_and_many_neighbours_together(small: Small, short: int) -> None:
    tokens = [(0, index, 9, 1) for index in range(LEAST_NEIGHBOURS)]
    assert kinds(small, tokens[:-1], short) == [Tokens]
    assert kinds(small, tokens, short) == [Neighbours]


@pytest.mark.parametrize("short", ["ragged"], indirect=True)
def test_short_chunks_are_computed_together_wherever_they_are(small: Small, short: int) -> None:
    shape = small.loaded.model.architecture
    enough = -(-LEAST_NUMBERS // (shape.kv_heads * shape.head_dim))
    tokens = [(0, 3 * index, 9, 1) for index in range(enough)]
    assert kinds(small, tokens[:-1], short) == [Tokens]
    assert kinds(small, tokens, short) == [Ragged]
    between = (0, 1, 3, RAGGED_TOKENS + 1)
    assert kinds(small, [*tokens, between], short) == [Ragged, Single]
