"""The two other ways read what they are said to read."""

import pytest
import torch
from transformers import Qwen3Model

from proxy.benchmark.baselines import CacheWay, RefeedWay, make_backbone
from proxy.guard.loader import LoadedGuard
from proxy.guard.random_weights import random_guard


@pytest.fixture(scope="module")
def tiny() -> LoadedGuard:
    return random_guard("tiny", dtype="bfloat16")


@pytest.fixture(scope="module")
def backbone(tiny: LoadedGuard) -> Qwen3Model:
    return make_backbone(tiny)


def test_the_backbone_has_the_guards_shape_and_number_format(tiny: LoadedGuard, backbone: Qwen3Model) -> None:
    sizes = {name: tuple(tensor.shape) for name, tensor in backbone.named_parameters()}
    assert sizes["embed_tokens.weight"] == tuple(tiny.model.embedding.shape)
    assert sizes["layers.1.self_attn.k_proj.weight"] == (32, 64)
    assert {tensor.dtype for tensor in backbone.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_a_cache_a_stream_reads_new_tokens_of_one_stream(tiny: LoadedGuard, backbone: Qwen3Model) -> None:
    way = CacheWay(tiny, backbone, 20)
    way.open(3)
    assert [cache.get_seq_length() for cache in way.caches] == [20, 20, 20]
    assert way.work({2: 4, 0: 1}) == {2: 4}
    assert [cache.get_seq_length() for cache in way.caches] == [20, 20, 24]
    way.open(2)
    assert [cache.get_seq_length() for cache in way.caches] == [20, 20, 20]
    way.close()
    assert not way.caches


def test_refeeding_reads_the_whole_text_for_each_token(tiny: LoadedGuard, backbone: Qwen3Model) -> None:
    read: list[int] = []
    hook = backbone.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0].shape[1]))
    way = RefeedWay(tiny, backbone, 20)
    way.open(2)
    read.clear()
    assert [way.work({1: 3, 0: 1}), way.work({1: 2, 0: 1}), way.work({0: 1})] == [{1: 1}, {1: 1}, {0: 1}]
    assert read == [21, 22, 21]
    way.open(2)
    assert way.lengths == [20, 20]
    way.close()
    hook.remove()
