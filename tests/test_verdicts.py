"""The guard's verdict on what is complete."""

from typing import Any

import pytest

from proxy.errors import ApiError
from proxy.guard.protocol import GuardError
from proxy.policies import Chosen
from proxy.policy import Action, Policy
from proxy.policy_settings import PolicySettings
from proxy.settings import GuardSettings
from proxy.verdicts import MAX_AT_ONCE, Judged, judge_all, judge_conversation
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, words

SETTINGS = GuardSettings()


def by(policy: Policy) -> Chosen:
    return Chosen(PolicySettings(), policy)


ASKED = [{"role": "user", "content": "hello"}]


async def judged(messages: Any, guard: ScriptedGuard, policy: Policy | None = None) -> Judged:
    found = await judge_conversation(messages, guard, SETTINGS, by(policy or Policy(debounce=1)), "")
    assert guard.slots == 0
    return found


async def test_a_prompt_is_judged_at_its_end() -> None:
    found = await judged(ASKED, ScriptedGuard(prompt_level=UNSAFE))
    assert found.is_blocked
    assert found.assessment.is_flagged
    assert found.assessment.scores["Violent"] > 0.8
    safe = await judged(ASKED, ScriptedGuard(prompt_level=SAFE))
    assert not safe.is_blocked
    assert not safe.assessment.is_flagged


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "a bad word"},
        {"content": [{"type": "text", "text": "a bad"}]},
        {"content": "fine", "reasoning_content": "bad"},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":"b\\u0061d"}'}}]},
    ],
)
async def test_every_text_of_an_answer_is_judged(answer: dict[str, Any]) -> None:
    messages = [*ASKED, {"role": "assistant", "content": "ok"}, {"role": "assistant", **answer}]
    found = await judged(messages, ScriptedGuard(words("bad")))
    assert (found.is_blocked, found.assessment.is_flagged) == (True, True)
    watching = Policy(debounce=1, on_flag=Action.ANNOTATE)
    seen = await judged(messages, ScriptedGuard(words("bad")), watching)
    assert (seen.is_blocked, seen.assessment.is_flagged) == (False, True)


async def test_an_answer_alone_is_judged_without_a_prompt() -> None:
    found = await judged([{"role": "assistant", "content": "bad"}], ScriptedGuard(words("bad"), prompt_level=UNSAFE))
    assert found.is_blocked
    found = await judged([{"role": "assistant", "content": "ok"}], ScriptedGuard(words("bad"), prompt_level=UNSAFE))
    assert not found.is_blocked
    empty = await judged([{"role": "assistant", "content": ""}], ScriptedGuard(prompt_level=UNSAFE))
    assert empty.assessment.worst is None


async def test_many_are_judged_each_on_its_own_and_in_order() -> None:
    conversations = [[{"role": "assistant", "content": text}] for text in ["ok", "bad"] * MAX_AT_ONCE]
    guard = ScriptedGuard(words("bad"))
    found = await judge_all(conversations, guard, SETTINGS, by(Policy(debounce=1)), "")
    assert [one.is_blocked for one in found] == [False, True] * MAX_AT_ONCE
    assert guard.slots == 0


async def test_what_has_no_verdict_is_an_error() -> None:
    guard = ScriptedGuard(prompt_fault="raise")
    with pytest.raises(GuardError):
        await judge_all([ASKED, ASKED], guard, SETTINGS, by(Policy()), "")
    with pytest.raises(ApiError):
        await judge_all([[{"role": "nobody", "content": "a"}]], ScriptedGuard(), SETTINGS, by(Policy()), "")
    with pytest.raises(ApiError):
        await judge_all([[*ASKED, {"role": "assistant", "content": 5}]], ScriptedGuard(), SETTINGS, by(Policy()), "")
    assert guard.slots == 0
