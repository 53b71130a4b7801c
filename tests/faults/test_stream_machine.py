"""The pure stream in any order of events, beside a slow model that sees whole texts."""

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters.base import Key
from proxy.errors import GUARD_FAILED, UPSTREAM_BROKE
from proxy.policy import Action, DebounceRule, Mode, Policy, ReleaseMode
from proxy.stream import Expected, Outcome
from tests.driver import DONE, Guard, chunk, last_words, read, stream_of
from tests.faults.slow_model import Choice, newest_word

EXAMPLES, STEPS = (5000, 60) if "WEIR_LONG" in os.environ else (80, 20)
WORDS = [
    "one",
    " two",
    " bad",
    " bad",
    " bad bad",
    " evil",
    " odd",
    "bad",
    "ba",
    "d",
    "ge",
    " ",
    "\n",
    ".",
    " é",
    "e\u0301",
    " 世",
    "1",
    "!",
]
SOME_WORDS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)
CHANNELS = ["content", "content", "content", "reasoning_content"]
POLICIES = st.builds(
    Policy,
    mode=st.sampled_from(Mode),
    rule=st.sampled_from(DebounceRule),
    debounce=st.integers(1, 3),
    on_flag=st.sampled_from([Action.BLOCK, Action.BLOCK, Action.BLOCK, Action.ANNOTATE, Action.MONITOR]),
)


class Streams(RuleBasedStateMachine):
    """`allowed` is what the slow model lets leave; everything that did leave is held against it after each step."""

    @initialize(policy=POLICIES, window=st.sampled_from([0, 0, 4]), choices=st.integers(1, 3), data=st.data())
    def begin(self, policy: Policy, window: int, choices: int, data: st.DataObject) -> None:
        if window:
            policy = replace(policy, release=ReleaseMode.WINDOW, window=window)
        self.policy = policy
        self.stream, _ = stream_of(policy, expected=Expected(choices=choices))
        self.guard = Guard(newest_word)
        self.choices = [Choice() for _ in range(choices)]
        self.sent = b""
        self.is_open = False
        self.is_done = False  # the upstream has said [DONE], or is gone
        for number in range(choices):  # a run without text shows little, and hypothesis likes short ones
            words = data.draw(st.lists(st.sampled_from(WORDS), min_size=4, max_size=12))
            self._say(number, data.draw(st.sampled_from(CHANNELS)), "".join(words), data)

    # The upstream.

    @rule(data=st.data(), channel=st.sampled_from(CHANNELS), words=SOME_WORDS)
    def delta(self, data: st.DataObject, channel: str, words: list[str]) -> None:
        self._say(data.draw(st.integers(0, len(self.choices) - 1)), channel, "".join(words), data)

    def _say(self, number: int, channel: str, text: str, data: st.DataObject) -> None:
        self._receive(chunk({channel: text}, index=number), data)
        if not self.is_done:
            self.choices[number].say(channel, text)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.choices) - 1))
        self._receive(chunk({}, "stop", index=number), data)
        if not self.is_done:
            self.choices[number].is_finished = True

    @precondition(lambda self: all(choice.is_finished for choice in self.choices))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self._receive(DONE, data)
        self.is_done = True

    def _receive(self, raw: bytes, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(raw)))
        for part in (raw[:at], raw[at:]):
            if part:
                self.stream.receive_data(part)

    # The guard.

    @rule()
    def verdict(self) -> None:
        if batches := self.stream.tokens_to_classify():
            self.stream.receive_risks(batches, [self.guard.classify(batch) for batch in batches])

    @rule(is_long=st.booleans())
    def verdict_of_another_length(self, is_long: bool) -> None:
        """Refused whole: the same tokens are asked for again."""
        if batches := self.stream.tokens_to_classify():
            [risks, *_] = [Guard(newest_word).classify(self._from_start(batch)) for batch in batches[:1]]
            with pytest.raises(ValueError, match="risks for"):
                self.stream.receive_risks(batches[:1], [[*risks, risks[-1]] if is_long else risks[:-1]])
            assert self.stream.tokens_to_classify() == batches

    @staticmethod
    def _from_start(batch: Any) -> Any:
        return type(batch)(batch.key, batch.kind, batch.view, 0, batch.ids)

    # Faults, rare enough that most runs go on for a while.

    @rule(kind=st.sampled_from([*["none"] * 8, "reset", "end", "kill", "kill in open mode"]))
    def fault(self, kind: str) -> None:
        if kind == "reset":
            self.stream.receive_break(UPSTREAM_BROKE)
        elif kind == "end":
            self.stream.receive_end()
        elif kind == "kill":
            self.stream.fail(GUARD_FAILED)
        elif kind == "kill in open mode":
            self.reads()  # the pump opens the gate only where all before is sent
            self.stream.open_gate("gone")
            self.is_open = True
        self.is_done = self.is_done or kind in ("reset", "end")

    # The client, which stalls whenever this is not called.

    @rule()
    def reads(self) -> None:
        was_finished = self.stream.is_finished
        self.sent += (data := self.stream.data_to_send())
        assert not (was_finished and data), "something was said after the end"

    @rule()
    def settle(self) -> None:
        self.reads()
        while batches := self.stream.tokens_to_classify():
            self.stream.receive_risks(batches, [self.guard.classify(batch) for batch in batches])
            self.reads()

    # What holds at every moment.

    @invariant()
    def delivered_is_a_beginning_and_leaks_nothing(self) -> None:
        found = read(self.sent)
        for number, choice in enumerate(self.choices):
            for channel, said in choice.said.items():
                delivered = found.texts.get((number, channel), "")
                assert said.text.startswith(delivered)
                if self.policy.on_flag is Action.BLOCK and not self.is_open:
                    assert len(delivered) <= said.allowed(self.policy) + self.policy.window
                assert self.stream.delivered(Key(number, channel)) >= len(delivered)

    @invariant()
    def an_end_is_told_once_and_only_where_it_is_one(self) -> None:
        assert self.sent.count(DONE) <= 1
        found = read(self.sent)
        assert found.is_done == (DONE in self.sent)
        assert not found.is_done or self.stream.outcome in (Outcome.COMPLETE, Outcome.CUT)
        for number, finish in found.finish.items():
            choice = self.choices[number]
            if finish == "content_filter":
                assert any(said.onsets(self.policy) for said in choice.said.values())
            else:
                assert choice.is_finished
                assert self._is_whole(number)

    def _is_whole(self, number: int) -> bool:
        """All of a choice arrived, and unless the guard was given up, none of it is flagged where flags block."""
        found, said = read(self.sent), self.choices[number].said
        is_free = self.is_open or self.policy.on_flag is not Action.BLOCK
        assert is_free or not any(one.is_flagged(self.policy) for one in said.values())
        return all(found.texts.get((number, name), "") == one.text for name, one in said.items())

    def teardown(self) -> None:
        """Every run ends in one of three ways, and says which."""
        if not hasattr(self, "stream"):
            return
        self.settle()
        self.stream.receive_end()
        self.settle()
        outcome = self.stream.outcome
        assert outcome is not Outcome.OPEN
        self.sent += last_words(self.stream)
        found = read(self.sent)
        assert (found.error is not None) == (outcome is Outcome.FAILED)
        assert found.is_done == (outcome is not Outcome.FAILED)
        assert (outcome is Outcome.CUT) <= ("content_filter" in found.finish.values())
        if outcome is Outcome.COMPLETE:
            assert all(self._is_whole(number) for number in range(len(self.choices)))
        self._check_exactness(found.finish)

    def _check_exactness(self, finish: dict[int, str]) -> None:
        """A cut costs no safe text: where one channel spoke alone, it ends exactly where its flagged run begins."""
        found = read(self.sent)
        for number, choice in enumerate(self.choices):
            if finish.get(number) == "content_filter" and len(choice.said) == 1 and not self.is_open:
                [(channel, said)] = choice.said.items()
                [place] = said.onsets(self.policy)
                assert place <= len(found.texts.get((number, channel), "")) <= place + self.policy.window


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
