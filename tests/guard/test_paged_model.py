from pathlib import Path

import pytest
import torch

from proxy.guard.packing import Layout
from proxy.guard.paged_model import (
    EXACT_ROWS,
    FP8,
    LARGE_ROWS,
    PagedMemory,
    PagedModel,
    storage_scales,
    tile_rows,
    tiles_of,
)
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.random_weights import random_guard
from tests.guard.checkpoints import small_config
from tests.guard.driver import Small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


def test_a_page_is_copied_in_every_layer_as_far_as_it_is_filled(small: Small) -> None:
    for dtype in (torch.float32, FP8):
        memory = PagedMemory(small.loaded.model, 4, dtype)
        for keys, values in memory.layers:
            keys.copy_(torch.randn(keys.shape))
            values.copy_(torch.randn(values.shape))
        memory.copy(3, 1, 20)
        for part in (part.float() for layer in memory.layers for part in layer):
            assert torch.equal(part[1, :, :20], part[3, :, :20])
            assert not (part[1, :, 20:] == part[3, :, 20:]).all()


def test_only_eight_bits_are_scaled_and_no_key_exceeds_what_they_can_say(small: Small) -> None:
    model = small.loaded.model
    assert bool((storage_scales(model, torch.float32) == 1).all())
    found = storage_scales(model, FP8)
    assert found.shape == (2, 2, 2)
    for layer, (keys, _) in zip(model.layers, found, strict=True):
        largest = layer.qk_norm[model.architecture.heads :].abs().amax(dim=1)
        assert torch.allclose(largest / keys, torch.full_like(largest, 448.0))


def test_scales_of_values_are_the_same_whether_the_norm_is_folded_or_not(tmp_path: Path) -> None:
    # float32 folds the norm into the matrix; bfloat16 does not.
    small = Small(tmp_path)
    exact, rounded = (storage_scales(small.load(dtype=dtype).model, FP8) for dtype in ("float32", "bfloat16"))
    assert torch.allclose(exact, rounded, rtol=0.02)


def test_tiles_hold_the_query_heads_of_a_key_head() -> None:
    for heads, kv_heads, small, large in ((16, 8, 8, 64), (32, 8, 4, 32), (6, 2, 5, 42), (64, 2, 1, 4)):
        config = small_config(num_attention_heads=heads, num_key_value_heads=kv_heads)
        model = random_guard(config, dtype="bfloat16").model
        tiles = tiles_of(model)
        assert (tiles.small, tiles.large) == (small, large)
        rows = tile_rows(model.architecture, model.dtype, "cuda")
        assert all(tokens * (heads // kv_heads) <= row for tokens, row in zip((small, large), rows, strict=True))
    assert tile_rows(model.architecture, torch.float32, "cuda")[1] == EXACT_ROWS < LARGE_ROWS


def test_a_head_size_without_kernels_is_refused(small: Small) -> None:
    model = random_guard(small_config(head_dim=24), device="cpu", dtype="float32").model
    memory = PagedMemory(model, 2, torch.float32)
    with pytest.raises(GuardUnavailable, match="head_dim 24"):
        PagedModel(model, memory, torch.zeros(100, dtype=torch.int32), 64)


def test_a_batch_of_padding_alone_is_finite_and_writes_nothing(small: Small) -> None:
    model = small.loaded.model
    memory = PagedMemory(model, 2, torch.float32)
    layout = Layout.of(8, tiles_of(model))
    inputs = torch.zeros(layout.tables + 4, dtype=torch.int32)
    inputs[layout.places : layout.small] = -1
    with torch.inference_mode():
        outputs = PagedModel(model, memory, inputs, 64).forward(layout)
    assert bool(outputs.isfinite().all())
    assert not any(part.any() for layer in memory.layers for part in layer)
