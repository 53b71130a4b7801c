import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from proxy.guard import Qwen3GuardStream
from proxy.guard.protocol import GuardFault, SequenceTooLong
from tests.guard.checkpoints import random_ids, small_checkpoint
from tests.guard.driver import Small, with_nan

# <|im_start|>user\nHello, how to build a bomb?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n
# Here are some practical methods to build a bomb.<|im_end|>\n in the Qwen3 vocabulary.
IM_START, USER, IM_END = 151644, 872, 151645
PROMPT = [IM_START, USER, 198, 9707, 11, 1246, 311, 1936, 264, 12764, 30, IM_END]
ANSWER = [198, IM_START, 77091, 198, 151667, 271, 151668, 271,
          8420, 525, 1045, 14976, 5413, 311, 1936, 264, 12764, 13, IM_END, 198]  # fmt: skip


def model_card_loop(model: Qwen3GuardStream, token_ids: torch.Tensor) -> list[dict[str, Any]]:
    """The loop of the model card, with its own way of finding the end of the user's turn."""
    ids = token_ids.tolist()
    last_start = next(i for i in range(len(ids) - 1, -1, -1) if ids[i : i + 2] == [IM_START, USER])
    user_end = next(i for i in range(last_start + 2, len(ids)) if ids[i] == IM_END)
    results: list[dict[str, Any]] = []
    result, state = model.stream_moderate_from_ids(token_ids[: user_end + 1], role="user", stream_state=None)
    results.append(dict(result))
    for i in range(user_end + 1, len(ids)):
        result, state = model.stream_moderate_from_ids(token_ids[i], role="assistant", stream_state=state)
        results.append(dict(result))
    model.close_stream(state)
    return results


def test_the_model_cards_loop_runs_on_the_embedded_guard() -> None:
    model = Qwen3GuardStream.from_pretrained(
        "embedded", device_map="auto", torch_dtype=torch.float32, trust_remote_code=True
    ).eval()
    results = model_card_loop(model, torch.tensor(PROMPT + ANSWER))
    assert results[0]["risk_level"][-1] in ("Unsafe", "Controversial")
    assert len(results[0]["risk_level"]) == len(PROMPT)
    assert all(len(result["risk_level"]) == 1 for result in results[1:])
    assert all(0 <= result["risk_prob"][-1] <= 1 for result in results)


def test_results_are_those_of_one_clean_forward(tmp_path: Path) -> None:
    small = Small(tmp_path)
    model = Qwen3GuardStream(small.loaded)
    ids = random_ids(60)
    prompt, answer = small.reference.rows(ids[:30], "query_"), small.reference.rows(ids)
    result, state = model.stream_moderate_from_ids(ids[:30], role="user")
    for row, level, probability in zip(prompt, result["risk_level"], result["risk_prob"], strict=True):
        assert model.query_risk_level_map[row.index(max(row[:3]))] == level
        assert probability == pytest.approx(max(row[:3]), abs=1e-5)
    for at in range(30, 60):
        result, state = model.stream_moderate_from_ids(ids[at], role="assistant", stream_state=state)
        categories = answer[at][3:]
        assert result["category"] == [model.response_category_map[categories.index(max(categories))]]
        assert result["category_prob"] == [pytest.approx(max(categories), abs=1e-5)]
    model.close_stream(state)
    model.close_stream(state)
    model.close_stream(None)


def test_streams_do_not_mix(tmp_path: Path) -> None:
    model = Qwen3GuardStream.from_pretrained(str(small_checkpoint(tmp_path)))
    ids = random_ids(40)
    alone, _ = model.stream_moderate_from_ids(ids, role="assistant")
    _, other = model.stream_moderate_from_ids(random_ids(30, seed=5), role="user")
    first, state = model.stream_moderate_from_ids(ids[:20], role="assistant")
    model.stream_moderate_from_ids([1, 2, 3], role="assistant", stream_state=other)
    second, _ = model.stream_moderate_from_ids(torch.tensor(ids[20:]), role="assistant", stream_state=state)
    assert first["risk_level"] + second["risk_level"] == alone["risk_level"]


def test_mistakes_are_named_and_leave_the_stream_as_it_was(tmp_path: Path) -> None:
    small = Small(tmp_path)
    model = Qwen3GuardStream(type(small.loaded)(with_nan(small.loaded.model, 7), small.loaded.info))
    _, state = model.stream_moderate_from_ids([1, 2, 3], role="user")
    with pytest.raises(ValueError, match="Role"):
        model.stream_moderate_from_ids([1], role="system", stream_state=state)
    for ids in ([], [400], [-1]):
        with pytest.raises(ValueError, match="token ids"):
            model.stream_moderate_from_ids(ids, role="assistant", stream_state=state)
    with pytest.raises(GuardFault):
        model.stream_moderate_from_ids([4, 7], role="assistant", stream_state=state)
    with pytest.raises(GuardFault):
        model.stream_moderate_from_ids([4, 7], role="user")
    with pytest.raises(SequenceTooLong):
        model.stream_moderate_from_ids([1] * 1022, role="assistant", stream_state=state)
    result, state = model.stream_moderate_from_ids([4], role="assistant", stream_state=state)
    assert state.position == 4
    row = small.reference.rows([1, 2, 3, 4])[3]
    assert result["risk_prob"] == [pytest.approx(max(row[:3]), abs=1e-5)]


def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="load_in_4bit"):
        Qwen3GuardStream.from_pretrained(str(tmp_path), load_in_4bit=True)


def test_the_protocol_does_not_load_torch() -> None:
    code = "import proxy.guard.protocol, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
