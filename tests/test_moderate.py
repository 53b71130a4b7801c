"""A conversation in a file is judged as the proxy would judge it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from adapters.base import Kind
from proxy.conversation import answer_frame
from proxy.guard.protocol import GuardError, SequenceTooLong
from proxy.moderate import BadConversation, Moderation, as_dict, messages_of, moderate, print_table, run
from proxy.policy import Action, Mode, Policy
from proxy.risk import Category, RiskLevel
from proxy.settings import GuardSettings, Settings
from tests.fakes import CONTROVERSIAL, SAFE, UNSAFE, ScriptedGuard, labels, words
from tests.guard.checkpoints import small_checkpoint

USER = {"role": "user", "content": "Tell me."}
QWEN_VOCABULARY = 151936


def assistant(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


async def judged(guard: ScriptedGuard, *messages: dict[str, Any], policy: Policy | None = None) -> Moderation:
    moderation = await moderate(messages, guard, policy or Policy())
    assert guard.slots == 0  # nothing is left open
    return moderation


async def test_a_conversation_that_ends_with_the_user_gets_the_prompts_verdict() -> None:
    moderation = await judged(ScriptedGuard(), USER)
    assert (moderation.prompt.level, moderation.is_flagged, moderation.texts) == (SAFE, False, ())
    moderation = await judged(ScriptedGuard(prompt_level=UNSAFE), USER)
    assert (moderation.prompt.level, moderation.is_flagged) == (UNSAFE, True)


async def test_every_token_of_the_last_answer_is_judged_and_a_flag_has_its_place() -> None:
    moderation = await judged(ScriptedGuard(labels("SSUUS")), USER, assistant("one two three four five six"))
    [text] = moderation.texts
    assert (text.message, text.channel, text.flagged_at) == (1, "content", len("one two"))
    assert [text.text[span.start : span.end] for span in text.tokens] == [
        "one",
        " two",
        " three",
        " four",
        " five",
        " six",
    ]
    assert [span.risk.level for span in text.tokens] == [SAFE, SAFE, UNSAFE, UNSAFE, SAFE, SAFE]
    assert moderation.is_flagged


async def test_a_single_unsafe_token_is_no_flag() -> None:
    moderation = await judged(ScriptedGuard(labels("SUSUS")), USER, assistant("one two three four five"))
    assert not moderation.is_flagged
    assert (await judged(ScriptedGuard(labels("SU")), USER, assistant("a b"), policy=Policy(debounce=1))).is_flagged


@pytest.mark.parametrize(("mode", "is_flagged"), [(Mode.LOOSE, False), (Mode.STRICT, True)])
async def test_the_policy_decides_what_counts(mode: Mode, is_flagged: bool) -> None:
    policy = Policy(mode=mode)
    assert (await judged(ScriptedGuard(labels("CC")), USER, assistant("a b"), policy=policy)).is_flagged is is_flagged
    assert (await judged(ScriptedGuard(prompt_level=CONTROVERSIAL), USER, policy=policy)).is_flagged is is_flagged


async def test_a_category_that_is_allowed_does_not_flag() -> None:
    policy = Policy(categories={Category.VIOLENT: Action.ALLOW})
    assert not (await judged(ScriptedGuard(labels("UU"), UNSAFE), USER, assistant("a b"), policy=policy)).is_flagged


async def test_each_text_of_an_answer_is_judged_in_its_own_frame() -> None:
    guard = ScriptedGuard()
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    answer = assistant([{"type": "text", "text": "Hello"}], reasoning_content="Hm.", refusal="No.", tool_calls=[call])
    moderation = await judged(guard, USER, answer)
    said = {text.channel: text.text for text in moderation.texts}
    assert said == {
        "content": "Hello",
        "reasoning_content": "Hm.",
        "refusal": "No.",
        "tool_calls.0.name": "look",
        "tool_calls.0.arguments": '{"a": 1}',
    }
    prompt = guard.fed[0] if len(guard.fed[0]) < len(guard.fed[1]) else min(guard.fed, key=len)
    frames = [list(answer_frame(kind).ids) for kind in (Kind.CONTENT, Kind.REASONING)]
    for ids in guard.fed:
        assert ids == prompt or any(ids[len(prompt) :][: len(frame)] == frame for frame in frames)


async def test_arguments_are_judged_as_their_escapes_spell_them_too() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": r'{"a": "\u0062omb them all"}'}}
    moderation = await judged(ScriptedGuard(words("bomb")), USER, assistant(None, tool_calls=[call]))
    flagged = {text.channel: text.flagged_at for text in moderation.texts}
    assert flagged["tool_calls.0.name"] is None
    at = flagged["tool_calls.0.arguments"]
    assert at is not None
    assert at <= len(r'{"a": "\u0062omb')


async def test_several_answers_at_the_end_are_each_judged_behind_what_came_before() -> None:
    guard = ScriptedGuard(words("bad thing"))
    moderation = await judged(guard, USER, assistant("a good thing"), assistant("a bad thing, again and again"))
    assert [(text.message, text.flagged_at is None) for text in moderation.texts] == [(1, True), (2, False)]


async def test_an_answer_before_the_last_user_turn_is_context() -> None:
    moderation = await judged(ScriptedGuard(words("bad")), USER, assistant("bad bad bad bad"), USER)
    assert moderation.texts == ()


async def test_what_cannot_be_judged_is_counted_or_refused() -> None:
    image = {
        "role": "user",
        "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
    }
    with pytest.raises(BadConversation):
        await judged(ScriptedGuard(), image)
    moderation = await moderate([image], ScriptedGuard(), Policy(), allow_unscanned=True)
    assert moderation.unscanned == 1


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([assistant("hi")], "no user message"),
        ([{"role": "system", "content": "hi"}, assistant("hi")], "no user message"),
        ([{"role": "user", "content": 1}], "content"),
        ([{"role": "robot", "content": "hi"}], "no user message"),
        ([USER, {"role": "robot", "content": "hi"}], "role"),
        ([USER, {"role": "assistant", "content": 5}], "Message 1 cannot be read"),
    ],
)
async def test_no_conversation_is_refused_with_a_sentence(messages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(BadConversation, match=reason):
        await moderate(messages, ScriptedGuard(), Policy())


async def test_failures_of_the_guard_come_out() -> None:
    with pytest.raises(GuardError, match="scripted"):
        await moderate([USER, assistant("hi there")], ScriptedGuard(fails_after=0), Policy())
    with pytest.raises(BadConversation, match="too long"):
        await moderate([USER], ScriptedGuard(fails_after=-1, error=SequenceTooLong("x")), Policy())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "messages"),
        (b'{"messages":[]}', "at least one"),
        (b'{"messages":[],"messages":[]}', "same key twice"),
        (b'{"messages":[{"content":"hi"}]}', "role"),
    ],
)
def test_a_file_is_read_as_strictly_as_a_request(raw: bytes, reason: str) -> None:
    with pytest.raises(BadConversation, match=reason):
        messages_of(raw, Settings())


async def test_the_table_shows_tokens_risks_and_a_summary_without_control_characters() -> None:
    moderation = await judged(
        ScriptedGuard(labels("SSUU")),
        USER,
        assistant("one\ntwo \x1b[31mthree four five"),
        policy=Policy(mode=Mode.STRICT),
    )
    out = io.StringIO()
    print_table(moderation, Console(file=out, width=100, force_terminal=True, color_system="standard"))
    shown = out.getvalue()
    assert "scripted@0, strict" in shown
    assert r"\n" in shown
    assert "\x1b[31mthree" not in shown
    assert "Violent" in shown
    assert "Flagged from character" in shown


async def test_the_summary_tells_what_was_left_out() -> None:
    risk = (await judged(ScriptedGuard(prompt_level=UNSAFE), USER)).prompt
    out = io.StringIO()
    print_table(Moderation("g", Policy(), risk, True, dropped_turns=3, unscanned=2), Console(file=out, width=100))
    for said in ("The prompt is flagged: Violent.", "oldest 3 turns", "2 parts could not be judged"):
        assert said in out.getvalue()


async def test_the_summary_of_a_safe_conversation_counts_its_tokens() -> None:
    moderation = await judged(ScriptedGuard(), USER, assistant("one two three"))
    out = io.StringIO()
    print_table(moderation, Console(file=out, width=100))
    assert "Nothing is flagged: the prompt and 3 tokens of answers." in out.getvalue()


async def test_json_says_the_same() -> None:
    told = as_dict(await judged(ScriptedGuard(labels("SUU")), USER, assistant("one two three four")))
    assert told["flagged"] is True
    assert told["prompt"] == {
        "flagged": False, "risk_level": "Safe", "risk_prob": 0.9, "category": None, "category_prob": None
    }  # fmt: skip
    [text] = told["texts"]
    assert (text["channel"], text["flagged_at"]) == ("content", 3)
    assert text["tokens"][1] == {
        "text": " two", "start": 3, "end": 7, "risk_level": "Unsafe", "risk_prob": 0.9, "category": "Violent",
        "category_prob": 0.9,
    }  # fmt: skip
    assert json.loads(json.dumps(told)) == told


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("guards") / "small", vocab_size=QWEN_VOCABULARY)


def test_a_real_engine_judges_a_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "conversation.json"
    file.write_text(json.dumps({"messages": [USER, assistant("Hello there, 日本語 😀!")]}))
    settings = Settings(guard=GuardSettings(model=str(checkpoint), device="cpu", threads=1))
    status = run(str(file), settings, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert status == (3 if told["flagged"] else 0)
    assert told["guard"].startswith("small@")
    tokens = told["texts"][0]["tokens"]
    assert "".join(token["text"] for token in tokens) == "Hello there, 日本語 😀!"
    assert {token["risk_level"] for token in tokens} <= set(RiskLevel)
    assert run(str(file), settings, as_json=False) == status
    assert "Hello" in capsys.readouterr().out


def test_a_missing_file_and_a_missing_guard_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.json"), Settings(), as_json=False) == 2
    assert "none.json: cannot be read: no such file or directory." in capsys.readouterr().err
    file = tmp_path / "conversation.json"
    file.write_text(json.dumps({"messages": [USER]}))
    settings = Settings(guard=GuardSettings(model=str(tmp_path / "no-guard")))
    assert run(str(file), settings, as_json=False) == 1
    said = capsys.readouterr().err
    assert said.startswith("There is no verdict: ")
    assert len(said.splitlines()) == 1
