"""Checkpoints in vLLM's model class: `make vllm` runs it. A whole one in use: test_vllm_engine.py."""

from pathlib import Path
from typing import Any

import pytest
import torch

from proxy.guard.answer import classify
from proxy.guard.loader import load_guard
from proxy.guard.process import Config, VllmGuard, start_process_guard
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.service import LocalGuard
from proxy.risk import Role
from tests.guard.checkpoints import random_tensors, small_config, write_checkpoint
from tests.guard.conformance import TIGHT, settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.real_vllm import WITH_VLLM, WITHOUT, on_vllm

pytestmark = pytest.mark.skipif(not WITH_VLLM, reason=WITHOUT)
CONFIG = small_config(
    head_dim=32,
    rope_scaling={"rope_type": "linear", "factor": 2.0},
    response_risk_level_map={"0": "Controversial", "1": "Safe", "2": "Unsafe"},
    query_risk_level_map={"0": "Unsafe", "1": "Controversial", "2": "Safe"},
)


async def test_a_checkpoint_is_read_by_its_config_as_our_engine_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tensors = random_tensors(CONFIG)
    tensors["lm_head.weight"] = torch.zeros(400, 32)
    folder = write_checkpoint(tmp_path / "small", tensors, CONFIG, shards=2)
    ids = words(60)
    ours = LocalGuard(load_guard(str(folder)), settings_of())
    guards = [ours, await start_process_guard(on_vllm(Config(str(folder), settings_of())), VllmGuard)]
    found = []
    for guard in guards:
        stream, risks = await guard.open(ids[:40], read=[10, 39])
        _, others = await guard.open(ids[:40], read=[39], role=Role.ASSISTANT)
        risks += [*others, *await classify(stream, 40, ids[40:])]
        found.append(rows_of(risks))
        await guard.close()
    for mine, its in zip(found[0], found[1], strict=True):
        assert distance([mine], [its]) < TIGHT


@pytest.mark.parametrize(
    ("changes", "missing", "said"),
    [
        ({}, "query_category_head.weight", r"tensor query_category_head\.weight is missing"),
        ({"attention_bias": True}, "", "its attention has biases everywhere"),
        ({"head_dim": 16}, "", "its heads are of 16"),
    ],
)
async def test_a_checkpoint_that_vllm_would_read_amiss_is_refused(
    tmp_path: Path, changes: dict[str, Any], missing: str, said: str
) -> None:
    config = small_config(**{"head_dim": 32} | changes)
    tensors = random_tensors(config)
    tensors.pop(missing, None)
    folder = write_checkpoint(tmp_path / "small", tensors, config)
    with pytest.raises(GuardUnavailable, match=said):
        await start_process_guard(on_vllm(Config(str(folder), settings_of())), VllmGuard)
