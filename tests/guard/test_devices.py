from pathlib import Path

import pytest
import torch

from proxy.guard.cache import Cache
from proxy.guard.devices import make_runner
from proxy.guard.pages import PageCache
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.runner import Runner
from proxy.guard.settings import GuardSettings
from tests.guard.driver import Small


def test_a_cpu_gets_slots(tmp_path: Path) -> None:
    runner = make_runner(Small(tmp_path).loaded.model, GuardSettings())
    assert isinstance(runner, Runner)
    cache = runner.new_cache(runner.kv_bytes_per_token * 1024, 512)
    assert isinstance(cache, Cache)
    assert runner.tokens_in(cache.budget_bytes) == 1024


def test_eight_bit_memory_is_for_gpus(tmp_path: Path) -> None:
    with pytest.raises(GuardUnavailable, match='kv_dtype = "fp8" needs a GPU'):
        make_runner(Small(tmp_path).loaded.model, GuardSettings(kv_dtype="fp8"))


# What only a GPU can show; the same memory runs in Triton's interpreter in test_paged_runner.py.
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gets_pages(tmp_path: Path) -> None:
    runner = make_runner(Small(tmp_path).load("cuda").model, GuardSettings(kv_dtype="fp8"))
    assert isinstance(runner.new_cache(runner.kv_bytes_per_token * 1024, 512), PageCache)
