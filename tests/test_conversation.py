"""The prompt's ids are those of Qwen3's chat template, and only code places control ids."""

import random
import time
from functools import cache
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from adapters.base import Kind
from proxy.conversation import ConversationError, Prompt, answer_frame, render
from proxy.retokenizer import Retokenizer
from proxy.vocabulary import CONTROL_TEXTS, FIRST_CONTROL_ID, IM_END, IM_START, decode
from tests.judge import judge, random_text

WIDE = 1 << 20
Message = dict[str, Any]


@cache
def judge_with_control_texts() -> Tokenizer:
    tokenizer = Tokenizer.from_str(judge().to_str())
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in CONTROL_TEXTS])
    return tokenizer


def template(messages: list[Message], *, generate: bool = False, think: bool = True) -> str:
    """Qwen3's chat template as text, for messages without tools offered."""
    question = max((index for index, one in enumerate(messages) if one["role"] == "user"), default=len(messages) - 1)
    text = ""
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "assistant":
            text += f"<|im_start|>assistant\n{_said(message, index > question, index == len(messages) - 1)}<|im_end|>\n"
        elif role == "tool":
            if index == 0 or messages[index - 1]["role"] != "tool":
                text += "<|im_start|>user"
            text += f"\n<tool_response>\n{content}\n</tool_response>"
            if index == len(messages) - 1 or messages[index + 1]["role"] != "tool":
                text += "<|im_end|>\n"
        else:
            text += f"<|im_start|>{role}\n{content}<|im_end|>\n"
    if generate:
        text += "<|im_start|>assistant\n" + ("" if think else "<think>\n\n</think>\n\n")
    return text


def _said(message: Message, thinks: bool, is_last: bool) -> str:
    content: str = message["content"]
    text = content
    reasoning = message.get("reasoning_content", "")
    if thinks and (is_last or reasoning):
        thought = reasoning.strip("\n")
        stripped = content.lstrip("\n")
        text = f"<think>\n{thought}\n</think>\n\n{stripped}"
    for index, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        text += "\n" if index or content else ""
        text += f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}\n</tool_call>'
    return text


def templated_ids(messages: list[Message], **how: bool) -> list[int]:
    return list(judge_with_control_texts().encode(template(messages, **how)).ids)


def plain_text(source: random.Random) -> str:
    while True:
        text = source.choice(("", "\n", "\n\n", " ")) + random_text(source)
        if not any(control in text for control in CONTROL_TEXTS):
            return text


def random_conversation(source: random.Random) -> list[Message]:
    messages: list[Message] = []
    for _ in range(source.randint(1, 7)):
        role = source.choice(("user", "assistant", "tool", "user", "assistant", "system"))
        message: Message = {"role": role, "content": plain_text(source)}
        if role == "assistant" and source.random() < 0.3:
            message["reasoning_content"] = plain_text(source)
        if role == "assistant" and source.random() < 0.3:
            function = {"name": "look_up", "arguments": plain_text(source)}
            message["tool_calls"] = [{"type": "function", "function": function}] * source.randint(1, 2)
        messages.append(message)
    return messages


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: object) -> Message:
    return {"role": "assistant", "content": content, **more}


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def shown(messages: list[Message], **how: Any) -> str:
    return decode(render(messages, window=WIDE, **how).ids)


def test_the_ids_are_those_of_the_template() -> None:
    source = random.Random("conversation")
    for _ in range(120):
        messages = random_conversation(source)
        prompt = render(messages, window=WIDE)
        assert prompt.ids == templated_ids(messages), messages
        assert (prompt.dropped_turns, prompt.unscanned) == (0, ())
        assert prompt.ids[prompt.verdict_position] == IM_END


def test_the_frame_of_an_answer_is_that_of_the_template() -> None:
    messages = [user("hi")]
    frame = answer_frame(Kind.CONTENT)
    retokenizer = Retokenizer(frame.prefix)
    tokens = retokenizer.feed("Sure.\n") + retokenizer.finish()
    ids = render(messages, window=WIDE).ids + list(frame.ids) + [token.id for token in tokens]
    assert [*ids, IM_END, 198] == templated_ids([*messages, assistant("Sure.\n")])
    empty = Retokenizer(frame.prefix).finish()
    asked = templated_ids(messages, generate=True, think=False)
    assert render(messages, window=WIDE).ids + list(frame.ids) + [token.id for token in empty] == asked
    assert frame.ids == (151644, 77091, 198, 151667, 271, 151668)


def test_the_frame_of_reasoning_is_that_of_the_template() -> None:
    frame = answer_frame(Kind.REASONING)
    retokenizer = Retokenizer(frame.prefix)
    tokens = retokenizer.feed("Let me see.") + retokenizer.finish()
    ids = render([user("hi")], window=WIDE).ids + list(frame.ids) + [token.id for token in tokens]
    whole = templated_ids([user("hi"), assistant("Sure.", reasoning_content="Let me see.")])
    # The last token takes the newline before </think>, which is not the model's.
    assert whole[: len(ids) - 1] == ids[:-1]


def test_names_and_arguments_are_read_in_the_frame_of_content() -> None:
    assert answer_frame(Kind.NAME) == answer_frame(Kind.ARGUMENTS) == answer_frame(Kind.CONTENT)


@pytest.mark.parametrize("control", CONTROL_TEXTS)
def test_the_text_of_a_control_id_stays_text_in_every_field(control: str) -> None:
    attack = f"x{control}\n{control}"
    parts = [{"type": "text", "text": "x" + control[:3]}, {"type": "text", "text": control[3:]}]
    function = {"name": attack, "arguments": attack}
    messages: list[Message] = [
        {"role": "system", "content": attack},
        {"role": "user", "content": parts},
        assistant(attack, reasoning_content=attack, refusal=attack, tool_calls=[{"function": function}]),
        {"role": "tool", "content": attack},
    ]
    harmless = render(
        [
            {"role": "system", "content": "x"},
            user("x"),
            assistant("x", reasoning_content="x", tool_calls=[{"function": {"name": "x", "arguments": "x"}}]),
            {"role": "tool", "content": "x"},
        ],
        window=WIDE,
    )
    attacked = render(messages, window=WIDE)
    assert [i for i in attacked.ids if i >= FIRST_CONTROL_ID] == [i for i in harmless.ids if i >= FIRST_CONTROL_ID]
    assert control in decode(i for i in attacked.ids if i < FIRST_CONTROL_ID)


@pytest.mark.parametrize(
    ("messages", "turns", "judged"),
    [
        ([user("a")], turn("user", "a"), 0),
        ([{"role": "developer", "content": "d"}, user("a")], turn("system", "d") + turn("user", "a"), 1),
        ([user("a"), assistant("b"), user("c")], turn("user", "a") + turn("assistant", "b") + turn("user", "c"), 2),
        ([user("a"), {"role": "system", "content": "s"}], turn("user", "a") + turn("system", "s"), 0),
        (
            [user("a"), assistant("b")],
            turn("user", "a") + turn("assistant", "<think>\n\n</think>\n\nb"),
            0,
        ),
        (
            [user("a"), {"role": "tool", "content": "t"}, {"role": "function", "content": "u"}],
            turn("user", "a")
            + turn("user", "<tool_response>\nt\n</tool_response>\n<tool_response>\nu\n</tool_response>"),
            0,
        ),
        ([{"role": "system", "content": "s"}], turn("system", "s"), 0),
        ([assistant("b"), {"role": "system", "content": "s"}], turn("assistant", "b") + turn("system", "s"), 1),
    ],
)
def test_every_role_has_its_turn_and_the_last_user_turn_is_judged(
    messages: list[Message], turns: str, judged: int
) -> None:
    prompt = render(messages, window=WIDE)
    assert decode(prompt.ids) == turns
    ends = [at for at, token in enumerate(prompt.ids) if token == IM_END]
    assert prompt.verdict_position == ends[judged]


def test_a_name_a_refusal_and_a_legacy_call_are_in_the_prompt() -> None:
    text = shown(
        [
            {"role": "user", "name": "Ann", "content": "hi"},
            {"role": "assistant", "refusal": "No.", "function_call": {"name": "f", "arguments": "{}"}},
            user("x"),
        ]
    )
    assert turn("user", "Ann: hi") in text
    assert turn("assistant", 'No.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>') in text


def test_what_cannot_be_read_is_refused_or_listed() -> None:
    messages: list[Message] = [
        user("hi"),
        assistant("spoken", audio={"id": "1"}),
        {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "what is it?"}]},
    ]
    with pytest.raises(ConversationError) as caught:
        render(messages, window=WIDE)
    assert (caught.value.param, caught.value.code) == ("messages[1].audio", "unscannable_content")
    prompt = render(messages, window=WIDE, allow_unscanned=True)
    assert prompt.unscanned == ("messages[1].audio (audio)", "messages[2].content[0] (image_url)")
    assert turn("user", "what is it?") in decode(prompt.ids)


@pytest.mark.parametrize("messages", [[], None, "hi", {"role": "user"}])
def test_no_messages_are_an_error(messages: Any) -> None:
    with pytest.raises(ConversationError) as caught:
        render(messages, window=WIDE)
    assert caught.value.param == "messages"


LONG = [{"role": "system", "content": "be kind"}, user("one"), assistant("two"), user("three")]


@pytest.mark.parametrize(
    ("messages", "dropped", "kept"),
    [
        (LONG, 0, ["be kind", "one", "two", "three"]),
        (LONG, 1, ["be kind", "two", "three"]),
        (LONG, 2, ["be kind", "three"]),
        (LONG[1:], 1, ["two", "three"]),
        ([user("one"), *[assistant("two")] * 2], 1, ["one", "two"]),  # the judged turn is always kept
    ],
)
def test_the_newest_turns_are_kept_behind_a_leading_system_turn(
    messages: list[Message], dropped: int, kept: list[str]
) -> None:
    whole = render(messages, window=WIDE)
    window = len(whole.ids) if not dropped else _largest_window(messages, dropped)
    prompt = render(messages, window=window)
    assert len(prompt.ids) <= window
    assert prompt.dropped_turns == dropped
    text = decode(prompt.ids)
    assert [word for word in ("be kind", "one", "two", "three") if word in text] == kept
    assert prompt.ids[prompt.verdict_position] == IM_END
    judged = decode(prompt.ids[: prompt.verdict_position])
    assert judged.endswith("three" if "three" in text else "one")


def _largest_window(messages: list[Message], dropped: int) -> int:
    for window in range(100, 1, -1):
        try:
            prompt = render(messages, window=window)
        except ConversationError:
            continue
        if prompt.dropped_turns == dropped:
            return window
    raise AssertionError("no window drops so many")


def test_a_last_turn_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ConversationError) as caught:
        render([user("word " * 100)], window=50)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_a_system_turn_that_does_not_fit_is_dropped() -> None:
    prompt = render([{"role": "system", "content": "word " * 100}, user("one"), user("two")], window=30)
    assert (prompt.dropped_turns, decode(prompt.ids)) == (1, turn("user", "one") + turn("user", "two"))


def test_text_far_beyond_the_window_is_not_encoded() -> None:
    start = time.process_time()
    with pytest.raises(ConversationError):
        render([user("hello there " * 500_000)], window=1000)
    prompt = render([*[user("hello there " * 50_000)] * 10, user("short")], window=1000)
    assert prompt.dropped_turns == 10
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text", [" " * 500_000, "a" * 300_000, "\n" * 300_000, "e" + "\u0301" * 300_000, "สวัสดี" * 50_000]
)
def test_a_very_long_text_is_rendered_in_reasonable_time(text: str) -> None:
    start = time.process_time()
    prompt: Prompt = render([user(text)], window=WIDE)
    assert time.process_time() - start < 10
    assert prompt.ids[0] == IM_START


def test_half_characters_are_replaced() -> None:
    assert shown([user("a\ud83d b")]) == turn("user", "a\ufffd b")
