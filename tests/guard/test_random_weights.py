"""Guards with random weights: any shape, the same each time, and computed like any other guard."""

from typing import Any

import pytest
import torch

from proxy.guard.architecture import read_architecture
from proxy.guard.loader import CheckpointError
from proxy.guard.random_weights import SHAPES, random_guard
from tests.guard.checkpoints import random_ids, small_config
from tests.guard.driver import Driver


def rows(shape: str | dict[str, Any], seed: int = 0) -> list[list[float]]:
    driver = Driver(random_guard(shape, dtype="float32", seed=seed).model, budget_tokens=1 << 16)
    _, ticket = driver.open(random_ids(20), read=range(20))
    return driver.rows(ticket)


def test_a_seed_is_one_guard_and_its_verdicts_differ_from_token_to_token() -> None:
    first = rows("tiny")
    assert first == rows("tiny")
    assert first != rows("tiny", seed=1)
    assert len({tuple(row) for row in first}) == len(first)


def test_a_shape_may_be_a_config_of_ones_own() -> None:
    loaded = random_guard(small_config(), dtype="float32")
    assert loaded.info.model == "random-custom"
    assert loaded.model.architecture == read_architecture(small_config())


def test_the_released_sizes_have_the_released_memory_a_token() -> None:
    bytes_per_token = {name: read_architecture(config).kv_bytes_per_token(2) for name, config in SHAPES.items()}
    assert bytes_per_token["0.6b"] == 112 << 10
    assert bytes_per_token["4b"] == bytes_per_token["8b"] == 144 << 10


def test_weights_are_bfloat16_until_another_type_is_asked_for() -> None:
    has_bfloat16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    assert random_guard("tiny").model.dtype == (torch.bfloat16 if has_bfloat16 else torch.float32)
    assert random_guard("tiny", dtype="bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "more", "reason"),
    [
        ("0.7b", {}, r"random shape '0.7b' is not one of tiny, 0.6b, 4b, 8b"),
        ({"hidden_size": 8}, {}, "random shape 'custom': config.json has no guard_inner_size"),
        ("tiny", {"dtype": "int4"}, "dtype 'int4' is not one of"),
        ("tiny", {"device": "toaster"}, "device 'toaster' does not exist"),
    ],
)
def test_what_cannot_be_made_is_refused(shape: Any, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        random_guard(shape, **more)
