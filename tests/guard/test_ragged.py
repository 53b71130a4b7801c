"""Attention of short chunks in a few calls is that of each alone, whatever lies in memory beside them."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from proxy.guard import ragged
from proxy.guard.cache import Slot
from proxy.guard.ragged import RAGGED_TOKENS, Ragged, groups, is_at_hand, suits
from proxy.guard.sequence import Chunk, Job, Sequence
from proxy.guard.slab import Placed, Slab, place
from proxy.risk import Role
from tests.guard.driver import Small

SLOTS, CAPACITY = 6, 48

pytestmark = pytest.mark.skipif(not is_at_hand(), reason="torch has no FBGEMM here")

# slot -> (tokens that it has, tokens that come)
Layout = dict[int, tuple[int, int]]
LAYOUTS = st.dictionaries(
    st.integers(0, SLOTS - 1),
    st.tuples(st.integers(0, CAPACITY - RAGGED_TOKENS), st.integers(1, RAGGED_TOKENS)),
    min_size=1,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"), num_hidden_layers=2)


def placed_of(layout: Layout) -> list[Placed]:
    chunks = []
    for index, (start, count) in layout.items():
        job = Job(0, start + count, (), Role.ASSISTANT, 0.0)
        sequence = Sequence(0, "", [], start, Slot(0, index, CAPACITY, []))
        chunks.append(Chunk(sequence, job, start, count, ()))
    return place(chunks, RAGGED_TOKENS)


def filled(small: Small) -> Slab:
    """Whatever it may have held before, as long as it is finite."""
    slab = Slab(small.loaded.model, SLOTS, CAPACITY)
    slab.memory.normal_(generator=torch.Generator().manual_seed(1))
    return slab


def queries(placed: list[Placed], small: Small) -> Tensor:
    shape = small.loaded.model.architecture
    tokens = sum(at.chunk.count for at in placed)
    return torch.randn(tokens, shape.heads, shape.head_dim, generator=torch.Generator().manual_seed(2))


def alone(slab: Slab, layer: int, at: Placed, q: Tensor) -> Tensor:
    """The slow obvious way: [count, heads * head_dim]"""
    keys, values = (memory[at.index, :, : at.chunk.start + at.chunk.count] for memory in slab.layers[layer])
    group = q.shape[1] // keys.shape[0]
    mask = torch.ones(at.chunk.count, keys.shape[1], dtype=torch.bool).tril(at.chunk.start)
    rows = q[at.first : at.first + at.chunk.count].transpose(0, 1)
    mixed = functional.scaled_dot_product_attention(
        rows, keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0), attn_mask=mask, scale=1.0
    )
    return mixed.transpose(0, 1).flatten(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUTS)
def test_each_token_sees_its_own_past_and_no_more(small: Small, layout: Layout) -> None:
    slab, placed = filled(small), placed_of(layout)
    q = queries(placed, small)
    with torch.inference_mode():
        part = Ragged(slab, placed, small.loaded.model.architecture)
        for layer in (0, 1, 0):  # what a layer leaves is nothing to the next
            mixed = part(layer, q)
            for at in placed:
                rows = slice(at.first, at.first + at.chunk.count)
                assert torch.allclose(mixed[rows], alone(slab, layer, at, q), atol=1e-5)


def test_large_scores_do_not_overflow(small: Small) -> None:
    slab, placed = filled(small), placed_of({0: (20, 1), 1: (3, 2)})
    slab.memory[:, 0] *= 1e4
    q = queries(placed, small)
    with torch.inference_mode():
        mixed = Ragged(slab, placed, small.loaded.model.architecture)(0, q)
    assert all(torch.allclose(mixed[at.first], alone(slab, 0, at, q)[0], atol=1e-4) for at in placed)


def test_what_is_not_finite_stays_with_its_stream(small: Small) -> None:
    slab, placed = filled(small), placed_of({0: (9, 1), 2: (9, 1), 3: (5, 1)})
    slab.memory[:, :, 2, :, 4] = math.nan
    q = queries(placed, small)
    with torch.inference_mode():
        part = Ragged(slab, placed, small.loaded.model.architecture)
        for layer in (0, 1):
            mixed = part(layer, q)
            assert [bool(row.isfinite().all()) for row in mixed] == [True, False, True]


@given(layout=LAYOUTS, most=st.integers(1, 4000))
@settings(max_examples=60, deadline=None)
def test_groups_keep_order_and_are_no_larger_than_allowed(layout: Layout, most: int) -> None:
    shape: Any = SimpleNamespace(heads=4)
    placed = placed_of(layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "MAX_SCORES", most)
        found = list(groups(placed, shape))
    assert [at for group in found for at in group] == placed
    for group in found:
        tokens = sum(at.chunk.count for at in group)
        longest = max(at.chunk.start + at.chunk.count for at in group)
        assert len(group) == 1 or tokens * 4 * longest <= most


def test_it_suits_full_precision_on_a_cpu_whose_torch_has_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))
    assert suits(model)
    assert not suits(SimpleNamespace(dtype=torch.bfloat16, device=torch.device("cpu")))  # type: ignore[arg-type]
    assert not suits(SimpleNamespace(dtype=torch.float32, device=torch.device("meta")))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(supported_engines=["qnnpack"]))
    is_at_hand.cache_clear()
    try:
        assert not suits(model)
    finally:
        monkeypatch.undo()
        is_at_hand.cache_clear()


def test_a_build_without_products_over_csr_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> Tensor:
        raise NotImplementedError  # a RuntimeError, as torch's own

    monkeypatch.setattr(torch.sparse, "sampled_addmm", missing)
    is_at_hand.cache_clear()
    try:
        assert not is_at_hand()
    finally:
        monkeypatch.undo()
        is_at_hand.cache_clear()


def test_no_step_warns(small: Small, recwarn: pytest.WarningsRecorder) -> None:
    assert is_at_hand()
    placed = placed_of({0: (9, 1), 2: (9, 1)})
    with torch.inference_mode():
        Ragged(filled(small), placed, small.loaded.model.architecture)(0, queries(placed, small))
    assert not recwarn.list
