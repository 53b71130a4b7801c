"""A conversation judged for the page: the tokens, and what the client would have got."""

from typing import Any

import pytest

from proxy.config import load_settings
from proxy.console.playground import MAX_PIECES, in_mode, judge, read_asked
from proxy.exchange import Service
from proxy.guard.protocol import GuardError
from proxy.policies import Policies
from proxy.policy import Mode, Part
from proxy.request_body import BadRequest
from proxy.server_settings import ServerSettings
from proxy.upstreams import Upstreams
from tests.fakes import CONTROVERSIAL, UNSAFE, ScriptedGuard, words

USER = {"role": "user", "content": "hello"}


def service_of(guard: ScriptedGuard, **overrides: Any) -> Service:
    values = {"upstream.base_url": "http://127.0.0.1:1"} | {k.replace("__", "."): v for k, v in overrides.items()}
    settings = load_settings(overrides=values, environ={})
    return Service(settings, Policies(settings), guard, Upstreams(()))


async def judged(guard: ScriptedGuard, messages: list[Any], *, mode: str | None = None, **overrides: Any) -> Any:
    service = service_of(guard, **overrides)
    body = {"messages": messages} | ({"mode": mode} if mode else {})
    return await judge(
        read_asked(body, service.policies.all, service.settings.server), service.guard, service.settings.guard
    )


def answer(text: str, **more: str) -> dict[str, str]:
    return {"role": "assistant", "content": text, **more}


async def test_a_safe_answer_arrives_whole() -> None:
    guard = ScriptedGuard()
    found = await judged(guard, [USER, answer("All is well here, and will be.")])
    assert not found["flagged"]
    assert "".join(token["text"] for token in found["texts"][0]["tokens"]) == "All is well here, and will be."
    assert found["client"]["content"] == "All is well here, and will be."
    assert (found["client"]["outcome"], found["client"]["finish_reason"]) == ("complete", "stop")
    assert guard.slots == 0


async def test_a_flagged_answer_shows_what_lies_behind_the_cut_and_delivers_nothing_of_it() -> None:
    guard = ScriptedGuard(words("bad"))
    found = await judged(guard, [USER, answer("one two bad three four")])
    [text] = found["texts"]
    assert text["flagged_at"] == len("one two")
    assert text["length"] == 22
    levels = {token["text"]: token["risk_level"] for token in text["tokens"]}
    assert levels == {"one": "Safe", " two": "Safe", " bad": "Unsafe", " three": "Unsafe", " four": "Unsafe"}
    for token in text["tokens"]:
        assert sum(token[level] for level in ("safe", "unsafe", "controversial")) == pytest.approx(1, abs=0.001)
    assert text["tokens"][2] | {"category": "Violent", "start": 7, "end": 11} == text["tokens"][2]
    client = found["client"]
    assert client["content"].startswith("one two\n\n[")
    assert "bad" not in client["content"]
    assert (client["outcome"], client["finish_reason"], client["status"]) == ("cut", "content_filter", 200)
    assert client["delivered"] == {"content": len("one two")}
    assert guard.slots == 0


async def test_what_is_only_watched_is_flagged_and_delivered() -> None:
    found = await judged(ScriptedGuard(words("bad")), [USER, answer("one two bad three")], policy__on_flag="monitor")
    assert found["texts"][0]["flagged_at"] == len("one two")
    assert (found["client"]["content"], found["client"]["outcome"]) == ("one two bad three", "complete")
    assert found["client"]["delivered"] == {"content": len("one two bad three")}


async def test_reasoning_is_judged_and_delivered_beside_the_answer() -> None:
    found = await judged(ScriptedGuard(), [USER, answer("Yes.", reasoning_content="I think so.")])
    assert {text["channel"] for text in found["texts"]} == {"content", "reasoning_content"}
    assert (found["client"]["content"], found["client"]["reasoning_content"]) == ("Yes.", "I think so.")


async def test_a_blocked_prompt_is_answered_as_the_policy_says() -> None:
    found = await judged(ScriptedGuard(prompt_level=UNSAFE), [USER, answer("Never seen.")])
    assert found["prompt"]["flagged"]
    assert (found["client"]["status"], found["client"]["error"]) == (400, "content_filter")
    assert "content" not in found["client"]
    assert found["client"]["delivered"] == {}
    found = await judged(ScriptedGuard(prompt_level=UNSAFE), [USER], policy__prompt_block="answer")
    assert found["client"]["content"] == "This request was stopped by a safety policy."
    assert found["client"]["finish_reason"] == "content_filter"


async def test_an_answer_on_its_own_has_no_verdict_on_a_prompt() -> None:
    found = await judged(ScriptedGuard(prompt_level=UNSAFE), [answer("An answer.")])
    assert found["prompt"] is None
    assert not found["flagged"]
    assert found["client"]["content"] == "An answer."


async def test_a_prompt_alone_reaches_no_client() -> None:
    found = await judged(ScriptedGuard(), [USER])
    assert found["client"] is None
    assert found["texts"] == []


async def test_the_mode_can_be_another_than_the_policys() -> None:
    said = [USER, answer("one two bad three four")]
    guard = ScriptedGuard(words("bad", level=CONTROVERSIAL))
    loose, strict = await judged(guard, said), await judged(guard, said, mode="strict")
    assert (loose["flagged"], loose["client"]["outcome"]) == (False, "complete")
    assert (strict["flagged"], strict["client"]["outcome"]) == (True, "cut")
    assert strict["policy"]["mode"] == "strict"


def test_a_mode_holds_for_all_parts() -> None:
    settings = service_of(ScriptedGuard()).settings
    given = settings.policy.model_copy(update={"channels": {Part.REASONING: settings.policy}})
    chosen = Policies(settings.model_copy(update={"policy": given})).default
    strict = in_mode(chosen, "strict").policy
    assert (strict.mode, strict.of(Part.REASONING).mode) == (Mode.STRICT, Mode.STRICT)


async def test_a_long_answer_is_played_in_few_pieces() -> None:
    guard = ScriptedGuard()
    text = "word " * 4000
    found = await judged(guard, [USER, answer(text)])
    assert found["client"]["content"] == text
    assert found["client"]["bytes"] < len(text) + 1000 * MAX_PIECES


async def test_a_guard_that_fails_gives_no_verdict() -> None:
    with pytest.raises(GuardError):
        await judged(ScriptedGuard(fails_after=-1), [USER, answer("one two")])


async def test_what_the_second_run_meets_is_told_as_a_client_would_be() -> None:
    said = [USER, answer("one two three four five six seven")]
    await judged(whole := ScriptedGuard(), said)
    # The first run takes half of these tokens; the second one fails within the answer.
    found = await judged(ScriptedGuard(fails_after=whole.tokens - 3), said)
    assert found["client"]["outcome"] == "error"
    assert found["client"]["finish_reason"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [USER], "stream": True},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [USER, answer("x", tool_calls="y")]},
        {"messages": [USER, {"role": "assistant", "content": "x", "reasoning_content": 1}]},
        {"messages": [USER, answer("one"), answer("two")]},
        {"messages": [USER], "policy": "unheard-of"},
        {"messages": [USER], "policy": ["default"]},
        {"messages": [USER], "mode": "lax"},
        {"messages": [USER], "mode": 1},
    ],
)
def test_what_cannot_be_judged_here_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_asked(body, service_of(ScriptedGuard()).policies.all, ServerSettings())
    assert caught.value.status == 400
