"""Guard streams of one response: forks of the prompt, each token fed once, freed on every way out."""

import asyncio
from collections.abc import Sequence

import pytest

from adapters.base import Key, Kind
from proxy.classifier import Classifier
from proxy.conversation import answer_frame
from proxy.guard.protocol import GuardError, GuardFault, GuardStream, GuardTimeout, Heard
from proxy.retokenizer import encode
from proxy.structs import Batch
from tests.fakes import UNSAFE, ScriptedGuard, words

PROMPT = [1, 2, 3]


async def classifier_of(guard: ScriptedGuard, seconds: float | None = 5.0) -> Classifier:
    stream, _ = await guard.open(PROMPT, read=[2])
    return Classifier(stream, seconds)


def batch(text: str, channel: str = "content", position: int = 0, kind: Kind = Kind.CONTENT) -> Batch:
    return Batch(Key(0, channel), kind, 0, position, encode(text))


async def test_each_channel_is_judged_behind_the_prompt_and_its_frame() -> None:
    guard = ScriptedGuard(words("bad"))
    async with await classifier_of(guard) as classifier:
        [first], [second] = await classifier.classify([batch("bad"), batch("good", "refusal")])
        [third] = await classifier.classify([batch(" idea", position=1)])
        assert guard.slots == 3
    assert [risk.level is UNSAFE for risk in (first, second, third[0])] == [True, False, True]
    assert guard.slots == 0
    frame = list(answer_frame(Kind.CONTENT).ids)
    assert PROMPT + frame + encode("bad idea") in guard.fed


async def test_tokens_can_be_taken_back() -> None:
    guard = ScriptedGuard()
    async with await classifier_of(guard) as classifier:
        await classifier.classify([batch("one two")])
        await classifier.classify([batch(" three", position=1)])
    assert PROMPT + list(answer_frame(Kind.CONTENT).ids) + encode("one three") in guard.fed


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("fault", "error"), [("raise", GuardError), ("short", GuardFault), ("long", GuardFault), ("hang", GuardTimeout)]
)
async def test_a_failure_is_one_guard_error_and_everything_is_freed(fault: str, error: type, count: int) -> None:
    guard = ScriptedGuard(fails_after=0, fault=fault)
    async with await classifier_of(guard, 0.1) as classifier:
        with pytest.raises(error):
            await classifier.classify([batch("one", f"channel {number}") for number in range(count)])
    assert guard.slots == 0


async def test_a_cancelled_call_frees_everything() -> None:
    guard = ScriptedGuard(delay=3600)

    async def run() -> None:
        async with await classifier_of(guard) as classifier:
            await classifier.classify([batch("one"), batch("one", "refusal")])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await guard.judging.wait()
        task.cancel()
    assert guard.slots == 0


async def test_choices_are_shared_out_among_prompts() -> None:
    guard = ScriptedGuard()
    other, _ = await guard.open([7, 8], read=[1])
    async with Classifier(other) as second, await classifier_of(guard) as first:
        first.share([second], choices=4)
        batches = [Batch(Key(choice, "content"), Kind.CONTENT, 0, 0, encode("one")) for choice in range(4)]
        await first.classify(batches)
    tail = list(answer_frame(Kind.CONTENT).ids) + encode("one")
    assert guard.fed.count(PROMPT + tail) == guard.fed.count([7, 8, *tail]) == 2
    assert guard.slots == 0


async def test_a_stream_that_cannot_be_closed_keeps_no_other_open() -> None:
    guard = ScriptedGuard()
    stream, _ = await guard.open(PROMPT, read=[2])
    classifier = Classifier(Odd(stream), 5.0)
    await classifier.classify([batch("one"), batch("two", "refusal")])
    assert guard.slots == 3
    with pytest.raises(OSError, match="gone"):
        await classifier.__aexit__()
    assert guard.slots == 0


class Odd:
    """A guard stream that is freed and says that it is not."""

    slides = 0

    def __init__(self, stream: GuardStream) -> None:
        self._stream = stream

    @property
    def position(self) -> int:
        return self._stream.position

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        self._stream.ask(position, ids, heard)

    def give_up(self) -> None:
        self._stream.give_up()

    def fork(self) -> GuardStream:
        return Odd(self._stream.fork())

    async def close(self) -> None:
        await self._stream.close()
        raise OSError("gone")
