"""The prompt's verdict, and what becomes of a prompt that has none."""

from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy.conversation import Prompt
from proxy.errors import ApiError
from proxy.guard.protocol import GuardError, GuardFault, GuardTimeout, GuardUnavailable, SequenceTooLong
from proxy.policy import Action, Policy
from proxy.prompts import (
    assess_prompt,
    is_blocked,
    judge_prompt,
    judge_prompts,
    refusal_without_verdict,
    render_prompts,
)
from proxy.request_fields import ModeratedRequest
from proxy.risk import Risk, Role
from proxy.settings import GuardSettings
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, risk

PATIENT, SOON = GuardSettings(), GuardSettings(verdict_seconds=0.05, admission_seconds=0.05)


async def render(*messages: dict[str, Any], window: int = 32768, allow_unscanned: bool = False) -> Prompt:
    request = ModeratedRequest("m", list(messages), {})
    [prompt] = await render_prompts(request, ScriptedGuard(window=window), allow_unscanned=allow_unscanned)
    return prompt


async def judged(guard: ScriptedGuard) -> Risk:
    prompt = await render({"role": "user", "content": "hello"})
    async with AsyncExitStack() as stack:
        _, found = await judge_prompt(prompt, guard, SOON if guard.prompt_fault == "hang" else PATIENT, stack, "")
        assert guard.slots == 1
        return found


async def test_a_prompt_is_judged_and_its_stream_freed() -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE)
    assert (await judged(guard)).level is UNSAFE
    assert guard.slots == 0


@pytest.mark.parametrize(
    ("fault", "error"), [("raise", GuardError), ("short", GuardFault), ("long", GuardFault), ("hang", GuardTimeout)]
)
async def test_a_prompt_without_one_verdict_is_a_guard_error(fault: str, error: type) -> None:
    guard = ScriptedGuard(prompt_fault=fault)
    with pytest.raises(error):
        await judged(guard)
    assert guard.slots == 0


async def test_a_long_prompt_is_rendered_off_the_loop_to_the_same_tokens() -> None:
    text = "word " * 5000
    long = await render({"role": "user", "content": text})
    short = await render({"role": "user", "content": text[:1000]})
    assert len(long.ids) > len(short.ids) > 200


async def test_what_cannot_be_judged_is_refused_unless_allowed() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
    with pytest.raises(ApiError) as caught:
        await render(image)
    assert caught.value.status == 400
    assert (await render(image, allow_unscanned=True)).unscanned


def test_a_conversation_that_is_too_long_is_the_clients_fault_alone() -> None:
    assert refusal_without_verdict(SequenceTooLong("9")).code == "context_length_exceeded"
    assert refusal_without_verdict(GuardUnavailable("x")).status == 503


def test_a_policy_decides_on_a_prompt_by_its_one_verdict() -> None:
    unsafe, safe = risk(UNSAFE, role=Role.USER), risk(SAFE, role=Role.USER)
    assert is_blocked(unsafe, Policy())
    assert not is_blocked(safe, Policy())
    assert not is_blocked(unsafe, Policy(on_flag=Action.ANNOTATE))
    found = assess_prompt(unsafe, Policy())
    assert found.is_flagged
    assert found.worst is not None
    assert found.scores["Violent"] == pytest.approx(0.855)
    assert not assess_prompt(safe, Policy()).is_flagged


async def test_the_worst_of_several_prompts_counts() -> None:
    guard = ScriptedGuard()
    prompts = [await render({"role": "user", "content": text}) for text in ("one", "two", "three")]
    levels = iter([SAFE, UNSAFE, SAFE])

    async def open_by_turn(*args: Any, **options: Any) -> Any:
        guard.prompt_level = next(levels)
        return await ScriptedGuard.open(guard, *args, **options)

    guard.open = open_by_turn  # type: ignore[method-assign]
    async with AsyncExitStack() as stack:
        _, found = await judge_prompts(prompts, guard, PATIENT, stack, "", Policy(), choices=3)
        assert found.level is UNSAFE
        assert guard.slots == 3
    assert guard.slots == 0
