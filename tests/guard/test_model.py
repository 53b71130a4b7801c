from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from proxy.guard.loader import load_guard
from proxy.guard.model import GuardModel
from tests.guard.checkpoints import Reference, random_ids, random_tensors, small_config, write_checkpoint


def attend_alone(model: GuardModel) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """Plain causal attention of one sequence that comes in pieces; keeps keys and values by concatenation."""
    past: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if layer in past:
            k, v = torch.cat((past[layer][0], k)), torch.cat((past[layer][1], v))
        past[layer] = (k, v)
        group = q.shape[1] // k.shape[1]
        keys, values = k.repeat_interleave(group, 1).transpose(0, 1), v.repeat_interleave(group, 1).transpose(0, 1)
        mask = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
        mixed = functional.scaled_dot_product_attention(q.transpose(0, 1), keys, values, attn_mask=mask, scale=1.0)
        return mixed.transpose(0, 1).flatten(1)

    return attend


def hidden_of(model: GuardModel, ids: list[int], cuts: list[int]) -> Tensor:
    attend = attend_alone(model)
    parts = []
    with torch.inference_mode():
        for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
            parts.append(model.forward(torch.tensor(ids[start:end]), torch.arange(start, end), end - 1, attend))
    return torch.cat(parts)


SHAPES: list[dict[str, Any]] = [
    {},
    {"attention_bias": True},
    {"num_key_value_heads": 4},
    {"num_key_value_heads": 1, "head_dim": 32},
    {"rope_theta": 10000.0, "rms_norm_eps": 1e-5},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_hidden_states_and_all_four_heads_equal_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small_config(**changes)
    tensors = random_tensors(config)
    model = load_guard(str(write_checkpoint(tmp_path, tensors, config)), dtype="float32").model
    reference = Reference(config, tensors)
    ids = random_ids(150)
    expected = reference.hidden(ids)
    for cuts in ([], list(range(1, 150)), [1, 2, 5, 70, 71, 149]):
        hidden = hidden_of(model, ids, cuts)
        assert torch.allclose(hidden, expected, atol=1e-5, rtol=1e-5)
    wanted = reference.logits(ids)
    response, prompt = model.logits(hidden, model.response), model.logits(hidden, model.prompt)
    assert torch.allclose(response[:, :3], wanted["risk_level_head"], atol=1e-5, rtol=1e-5)
    assert torch.allclose(response[:, 3:], wanted["category_head"], atol=1e-5, rtol=1e-5)
    assert torch.allclose(prompt[:, :3], wanted["query_risk_level_head"], atol=1e-5, rtol=1e-5)
    assert torch.allclose(prompt[:, 3:], wanted["query_category_head"], atol=1e-5, rtol=1e-5)


def test_probabilities_are_two_distributions(tmp_path: Path) -> None:
    config = small_config()
    model = load_guard(str(write_checkpoint(tmp_path, random_tensors(config), config))).model
    rows = model.probabilities(hidden_of(model, random_ids(7), []), model.prompt)
    assert rows.shape == (7, 12)
    assert torch.allclose(rows[:, :3].sum(-1), torch.ones(7))
    assert torch.allclose(rows[:, 3:].sum(-1), torch.ones(7))


def test_positions_far_behind_the_first_table_are_rotated_the_same(tmp_path: Path) -> None:
    config = small_config(max_position_embeddings=16384)
    tensors = random_tensors(config)
    model = load_guard(str(write_checkpoint(tmp_path, tensors, config))).model
    ids = random_ids(40)
    attend = attend_alone(model)
    with torch.inference_mode():
        # Rotary attention sees distances only: a text that starts at 10,000 reads like one that starts at 0.
        far = model.forward(torch.tensor(ids), torch.arange(10_000, 10_040), 10_039, attend)
    assert torch.allclose(far, Reference(config, tensors).hidden(ids), atol=2e-2)
