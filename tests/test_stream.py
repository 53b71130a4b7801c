"""One moderated response: what is released, where it is cut, how it ends."""

import json
import os
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Failure, Key
from proxy.policy import Action, DebounceRule, Mode, Policy, ReleaseMode
from proxy.retokenizer import encode
from proxy.stream import Expected, Outcome
from tests.driver import DONE, WORDS, Guard, answer, body, call, chunk, drive, judge, last_words, read, stream_of
from tests.fakes import all_safe, labels, words
from tests.test_judge import flagged_at

IS_LONG = "WEIR_LONG" in os.environ


def label_strings() -> Iterator[str]:
    for length in range(11 if IS_LONG else 10):
        letters = "SCU" if IS_LONG or length <= 5 else "SU"
        yield from map("".join, product(letters, repeat=length))


@pytest.mark.parametrize("mode", Mode)
def test_in_hold_mode_no_label_string_leaks_and_none_costs_safe_text(mode: Mode) -> None:
    for string in label_strings():
        parts = WORDS[: len(string)]
        stream, _ = stream_of(Policy(mode=mode))
        found = read(drive(stream, answer(parts), Guard(labels(string))))
        trigger = flagged_at(string, mode, DebounceRule.SAME_LEVEL, 2)
        kept = parts if trigger is None else parts[: trigger - 1]
        assert found.content == "".join(kept), string
        assert found.finish == {0: "stop" if trigger is None else "content_filter"}, string
        assert found.is_done


@pytest.mark.parametrize("debounce", [1, 2, 3])
def test_any_debounce_cuts_before_the_first_token_of_the_run(debounce: int) -> None:
    for string in map("".join, product("SU", repeat=6)):
        stream, _ = stream_of(Policy(debounce=debounce))
        found = read(drive(stream, answer(WORDS[:6]), Guard(labels(string))))
        trigger = flagged_at(string, Mode.LOOSE, DebounceRule.SAME_LEVEL, debounce)
        kept = WORDS[:6] if trigger is None else WORDS[: trigger - debounce + 1]
        assert found.content == "".join(kept)


def test_an_undecided_token_waits_for_the_next() -> None:
    stream, _ = stream_of()
    guard = Guard(labels("SUS"))
    found = read(drive(stream, answer(WORDS[:2])[:-2], guard, ends=False))
    assert found.content == "one"[: len(found.content)]
    found = read(drive(stream, [chunk({"content": " three four"}), chunk({}, "stop"), DONE], guard))
    assert found.content.endswith(" two three four")


SYLLABLES = [*"ab .\n'é世😀\u0301가ก1", "bad", "\r\n", "  "]
TEXTS = st.lists(st.sampled_from(SYLLABLES), max_size=40).map("".join)


@given(text=TEXTS, data=st.data())
@settings(max_examples=150)
def test_any_cut_of_the_bytes_gives_the_same_text(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    raw = b"".join(answer(parts))
    size = data.draw(st.integers(1, max(1, len(raw) // 3)))
    rule = words("bad")
    stream, _ = stream_of()
    whole = read(drive(stream, answer([text]), Guard(rule)))
    stream, _ = stream_of()
    found = read(drive(stream, [raw[i : i + size] for i in range(0, len(raw), size)], Guard(rule)))
    assert found.content == whole.content
    assert found.finish == whole.finish
    assert text.startswith(found.content)
    if "bad" not in text:
        assert found.content == text


def test_a_flagged_last_token_is_withheld_with_the_finish() -> None:
    stream, _ = stream_of(Policy(debounce=1))
    found = read(drive(stream, answer(["fine words then", " bad"]), Guard(words("bad"))))
    assert found.content == "fine words then"
    assert found.finish == {0: "content_filter"}


def test_a_run_that_the_end_leaves_undecided_was_not_flagged() -> None:
    stream, _ = stream_of()
    found = read(drive(stream, answer(WORDS[:2]), Guard(labels("SU"))))
    assert found.content == "one two"
    assert found.finish == {0: "stop"}


def test_the_notice_and_the_estimated_usage_follow_a_cut() -> None:
    stream, _ = stream_of(expected=Expected(wants_usage=True, prompt_tokens=7, notice="[stopped]"))
    found = read(drive(stream, answer(WORDS), Guard(labels("SSUU"))))
    assert found.content == "one two[stopped]"
    assert found.events[-1]["usage"]["prompt_tokens"] == 7
    assert found.events[-1]["weir"] == {"usage": "estimated"}
    assert found.is_done
    assert stream.outcome is Outcome.CUT


def test_nothing_is_read_after_a_cut() -> None:
    stream, _ = stream_of()
    drive(stream, answer(WORDS), Guard(labels("UU")))
    assert stream.outcome is Outcome.CUT
    assert drive(stream, answer(WORDS)) == b""


def test_one_choice_of_three_is_cut_and_the_others_complete() -> None:
    stream, _ = stream_of(expected=Expected(choices=3))
    chunks = [chunk({"content": word}, index=index) for word in WORDS for index in (2, 0, 1)]
    ends = [chunk({}, "stop", index=index) for index in range(3)]

    class OnlyThird(Guard):
        def classify(self, batch):  # type: ignore[no-untyped-def]
            self.rule = labels("SSUU") if batch.key.choice == 2 else all_safe
            return super().classify(batch)

    found = read(drive(stream, [*chunks, *ends, DONE], OnlyThird()))
    assert found.texts[0, "content"] == found.texts[1, "content"] == "".join(WORDS)
    assert found.texts[2, "content"] == "one two"
    assert found.finish == {0: "stop", 1: "stop", 2: "content_filter"}
    assert found.is_done


def test_when_every_choice_is_cut_the_answer_ends_at_once() -> None:
    stream, _ = stream_of(expected=Expected(choices=2))
    chunks = [chunk({"content": word}, index=index) for word in WORDS[:4] for index in (0, 1)]
    found = read(drive(stream, chunks, Guard(labels("UU")), ends=False))
    assert found.finish == {0: "content_filter", 1: "content_filter"}
    assert found.is_done
    assert stream.is_finished


def test_reasoning_is_judged_beside_content_and_keeps_its_place() -> None:
    stream, _ = stream_of()
    chunks = [chunk({"reasoning_content": "let me think"}), chunk({"content": "the answer"}), chunk({}, "stop"), DONE]
    sent = drive(stream, chunks)
    found = read(sent)
    assert found.texts == {(0, "reasoning_content"): "let me think", (0, "content"): "the answer"}
    assert sent.index(b"think") < sent.index(b"answer")


def test_reasoning_leaves_when_the_content_begins_not_at_the_end() -> None:
    stream, _ = stream_of()
    guard = Guard()
    drive(stream, [chunk({"reasoning_content": "let me think"})], guard, ends=False)
    stream.receive_data(chunk({"content": "the"}))
    judge(stream, guard)
    assert stream.delivered(Key(0, "reasoning_content")) == len("let me think")


def test_flagged_reasoning_ends_the_choice_before_its_content() -> None:
    stream, _ = stream_of()
    chunks = [chunk({"reasoning_content": "a bad thing here"}), chunk({"content": "the answer"}), chunk({}, "stop")]
    found = read(drive(stream, chunks, Guard(words("bad"))))
    assert "bad" not in found.texts.get((0, "reasoning_content"), "")
    assert (0, "content") not in found.texts
    assert found.finish == {0: "content_filter"}


@pytest.mark.parametrize("parts", [["let me", "the ans", " think", "wer"], ["a", "b", "c", "d", "e", "f"]])
def test_channels_that_take_turns_are_each_read_as_one_text(parts: list[str]) -> None:
    stream, _ = stream_of()
    names = ["reasoning_content", "content"]
    chunks = [chunk({names[i % 2]: part}) for i, part in enumerate(parts)]
    guard = Guard()
    found = read(drive(stream, [*chunks, chunk({}, "stop"), DONE], guard))
    assert found.texts[0, names[0]] == "".join(parts[0::2])
    assert found.texts[0, names[1]] == "".join(parts[1::2])
    assert guard.ids[Key(0, "content"), 0] == encode("\n\n" + "".join(parts[1::2]))


def test_a_tool_call_passes_whole() -> None:
    stream, _ = stream_of()
    chunks = [call(0, "get_weather"), call(0, arguments='{"city"'), call(0, arguments=': "Paris"}')]
    found = read(drive(stream, [*chunks, chunk({}, "tool_calls"), DONE]))
    assert found.texts == {
        (0, "tool_calls.0.name"): "get_weather",
        (0, "tool_calls.0.arguments"): '{"city": "Paris"}',
    }
    assert found.finish == {0: "tool_calls"}


@pytest.mark.parametrize("arguments", ['{"q": "bad thing"}', '{"q": "b\\u0061d thing"}', '{"bad": "thing is"}'])
def test_a_flagged_tool_call_never_finishes_as_one(arguments: str) -> None:
    stream, _ = stream_of()
    chunks = [call(0, "search"), *(call(0, arguments=part) for part in arguments)]
    found = read(drive(stream, [*chunks, chunk({}, "tool_calls"), DONE], Guard(words("bad"))))
    assert found.finish == {0: "content_filter"}
    assert found.texts == {}, "agents mend a call that was cut, and run it"


@pytest.mark.parametrize("arguments", ['{"q": "bad thing"}', '{"q": "b\\u0061d thing"}', '{"bad": "thing is"}'])
def test_a_tool_call_may_leave_in_parts(arguments: str) -> None:
    stream, _ = stream_of(Policy(whole_calls=False))
    chunks = [call(0, "search"), *(call(0, arguments=part) for part in arguments)]
    found = read(drive(stream, [*chunks, chunk({}, "tool_calls"), DONE], Guard(words("bad"))))
    assert found.finish == {0: "content_filter"}
    assert found.texts[0, "tool_calls.0.name"] == "search"
    sent = found.texts.get((0, "tool_calls.0.arguments"), "")
    assert arguments.startswith(sent)
    assert "d thing" not in sent
    assert sent != arguments


def test_a_call_before_the_flagged_one_arrives_whole() -> None:
    stream, _ = stream_of()
    chunks = [call(0, "f"), call(0, arguments="{}"), call(1, "g"), call(1, arguments='{"q": "bad thing"}')]
    found = read(drive(stream, [*chunks, chunk({}, "tool_calls"), DONE], Guard(words("bad"))))
    assert found.texts == {(0, "tool_calls.0.name"): "f", (0, "tool_calls.0.arguments"): "{}"}
    assert found.finish == {0: "content_filter"}


def test_a_flagged_tool_name_is_never_seen() -> None:
    stream, _ = stream_of(Policy(debounce=1))
    chunks = [call(0, "make_bad_things"), call(0, arguments="{}"), chunk({}, "tool_calls"), DONE]
    found = read(drive(stream, chunks, Guard(words("bad"))))
    assert found.texts == {}
    assert found.finish == {0: "content_filter"}


@pytest.mark.parametrize("on_flag", [Action.ANNOTATE, Action.MONITOR])
def test_annotate_and_monitor_deliver_every_character(on_flag: Action) -> None:
    stream, _ = stream_of(Policy(on_flag=on_flag))
    found = read(drive(stream, answer(WORDS), Guard(labels("SUUUS"))))
    assert found.content == "".join(WORDS)
    assert found.finish == {0: "stop"}
    assert stream.channels[Key(0, "content")].flagged is not None


def test_a_monitored_answer_waits_for_no_verdict() -> None:
    stream, _ = stream_of(Policy(on_flag=Action.MONITOR))
    stream.receive_data(b"".join(answer(WORDS)))
    assert read(stream.data_to_send()).content == "".join(WORDS)


@pytest.mark.parametrize("window", [1, 5, 9, 30])
def test_a_window_bounds_how_far_text_runs_ahead_of_its_verdicts(window: int) -> None:
    for string in map("".join, product("SU", repeat=6)):
        stream, _ = stream_of(Policy(release=ReleaseMode.WINDOW, window=window))
        found = read(drive(stream, answer(WORDS[:6]), Guard(labels(string))))
        trigger = flagged_at(string, Mode.LOOSE, DebounceRule.SAME_LEVEL, 2)
        text = "".join(WORDS[:6])
        safe = len(text) if trigger is None else len("".join(WORDS[: trigger - 1]))
        assert text.startswith(found.content)
        assert min(safe, len(text)) <= len(found.content) <= safe + window
        assert found.finish == {0: "stop" if trigger is None else "content_filter"}


def test_text_leaves_ahead_of_its_verdict_in_window_mode() -> None:
    stream, _ = stream_of(Policy(release=ReleaseMode.WINDOW, window=5))
    stream.receive_data(chunk({"content": "hello world"}))
    assert read(stream.data_to_send()).content == "hello"


def test_an_end_without_a_finish_reason_is_an_error() -> None:
    stream, _ = stream_of()
    found = read(drive(stream, answer(WORDS)[:-2]))
    assert found.error is not None
    assert found.error["code"] == "upstream_ended"
    assert not found.is_done
    assert found.finish == {}
    assert stream.outcome is Outcome.FAILED


def test_an_end_after_every_finish_reason_is_complete() -> None:
    stream, _ = stream_of()
    found = read(drive(stream, answer(WORDS)[:-1]))
    assert found.is_done
    assert stream.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(
    "event",
    [
        b"data: {\n\n",
        b"data: [1]\n\n",
        b'data: "x"\n\n',
        b'data: {"choices":[{"index":7,"delta":{}}]}\n\n',
        b"x" * (2 << 20),
    ],
)
def test_what_cannot_be_read_is_not_delivered_and_ends_the_answer_as_an_error(event: bytes) -> None:
    stream, _ = stream_of()
    found = read(drive(stream, [*answer(WORDS)[:4], event, *answer(WORDS)[4:]]))
    assert found.error is not None
    assert not found.is_done
    assert found.content == "one two three"[: len(found.content)]
    assert stream.error


def test_an_error_event_of_the_upstream_is_told_in_our_words() -> None:
    stream, _ = stream_of()
    found = read(drive(stream, [*answer(WORDS)[:4], b'data: {"error":{"message":"secret canary"}}\n\n']))
    assert found.error is not None
    assert "canary" not in json.dumps(found.events)


def test_after_a_failure_only_what_was_judged_leaves() -> None:
    stream, _ = stream_of()
    guard = Guard()
    sent = drive(stream, answer(WORDS)[:4], guard, ends=False)
    stream.receive_data(chunk({"content": "unjudged text that goes on"}))
    stream.fail(Failure("gone"))
    found = read(sent + stream.data_to_send() + last_words(stream))
    assert "unjudged" not in found.content
    assert found.error is not None


def test_a_gate_that_was_opened_lets_the_rest_pass_but_not_what_was_flagged() -> None:
    stream, _ = stream_of()
    sent = drive(stream, answer(WORDS)[:4], ends=False)
    stream.open_gate()
    for data in answer(WORDS)[4:]:
        stream.receive_data(data)
        assert stream.tokens_to_classify() == []
        sent += stream.data_to_send()
    assert read(sent).content == "".join(WORDS)


def test_halves_of_a_surrogate_pair_in_two_deltas_arrive_as_one_character() -> None:
    stream, _ = stream_of()
    chunks = [b'data: {"choices":[{"index":0,"delta":{"content":"hi \\ud83d"}}]}\n\n']
    chunks += [b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00 \\ud83d"}}]}\n\n', chunk({}, "stop"), DONE]
    assert read(drive(stream, chunks)).content == "hi 😀 �"


def test_leading_newlines_are_delivered_though_the_guard_does_not_read_them() -> None:
    stream, _ = stream_of()
    guard = Guard()
    assert read(drive(stream, answer(["\n", "\n\nhello"]), guard)).content == "\n\n\nhello"
    stream, _ = stream_of()
    assert read(drive(stream, answer(["\n\n"]), guard)).content == "\n\n"


def test_usage_of_the_upstream_passes_after_the_finish() -> None:
    stream, _ = stream_of(expected=Expected(wants_usage=True))
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    found = read(drive(stream, [*answer(WORDS)[:-1], usage, DONE]))
    assert found.events[-1]["usage"]["total_tokens"] == 7


@given(text=TEXTS)
@settings(max_examples=60)
def test_a_body_is_cut_where_the_stream_is_cut(text: str) -> None:
    rule = words("bad")
    stream, _ = stream_of()
    streamed = read(drive(stream, answer([text]), Guard(rule)))
    stream, _ = stream_of(is_body=True)
    raw = body({"content": text})
    whole = json.loads(drive(stream, [raw[:10], raw[10:]], Guard(rule)))
    [choice] = whole["choices"]
    assert choice["message"]["content"] == streamed.content
    assert choice["finish_reason"] == streamed.finish[0]


def test_a_count_of_risks_that_does_not_fit_is_refused() -> None:
    stream, _ = stream_of()
    stream.receive_data(chunk({"content": "one two three"}))
    [batch] = stream.tokens_to_classify()
    with pytest.raises(ValueError, match="risks for"):
        stream.receive_risks([batch], [[]])


def test_an_end_before_every_choice_has_come_is_an_error() -> None:
    stream, _ = stream_of(expected=Expected(choices=3))
    drive(stream, [*answer(WORDS)[:-1], chunk({}, "stop", index=2)])
    assert stream.outcome is Outcome.FAILED


def test_a_break_after_every_finish_reason_is_no_failure() -> None:
    stream, _ = stream_of()
    sent = drive(stream, answer(WORDS)[:-1], ends=False)
    stream.receive_break(Failure("broke"))
    assert read(sent + judge(stream, Guard())).is_done
    assert stream.outcome is Outcome.COMPLETE


@pytest.mark.parametrize("is_body", [False, True])
@pytest.mark.parametrize("policy", [Policy(on_flag=Action.MONITOR), Policy(release=ReleaseMode.WINDOW, window=99)])
def test_what_leaves_ahead_of_its_verdict_is_judged_before_the_end(policy: Policy, is_body: bool) -> None:
    chunks = [body({"content": "".join(WORDS)})] if is_body else [*answer(WORDS)[:-2], DONE]  # no finish reason
    stream, _ = stream_of(policy, is_body=is_body)
    drive(stream, [b"".join(chunks)])
    [channel] = stream.channels.values()
    assert channel.cleared == channel.length
    assert stream.outcome is Outcome.COMPLETE


def test_a_cut_choice_does_not_end_another_whose_text_ran_ahead() -> None:
    policy = Policy(release=ReleaseMode.WINDOW, window=10_000)
    long = " word" * 1500
    chunks = [chunk({"content": long}, "stop", index=1), chunk({"content": "two three"}, "stop", index=0), DONE]
    stream, _ = stream_of(policy, expected=Expected(choices=2))
    found = read(drive(stream, [b"".join(chunks)], Guard(words("two")), ends=False))
    assert found.finish == {0: "content_filter", 1: "stop"}
    assert found.texts[1, "content"] == long
    assert found.is_done


def test_half_a_character_of_a_cut_choice_does_not_hold_up_the_end() -> None:
    stream, _ = stream_of(expected=Expected(choices=2))
    half = b'data: {"choices":[{"index":0,"delta":{"content":" three \\ud83d"}}]}\n\n'
    guard = Guard(words("two"))
    chunks = [chunk({"content": "two two two"}), half, chunk({"content": "x"}, index=1)]
    sent = drive(stream, [b"".join(chunks), chunk({}, "stop", index=1), DONE], guard, ends=False)
    assert read(sent).finish == {0: "content_filter", 1: "stop"}
    assert read(sent).is_done
