"""Guard streams of one response: forks of the prompt, each token fed once, freed on every way out."""

import asyncio
from collections.abc import Sequence

import pytest

from adapters.base import Key, Kind
from proxy.classifier import MAX_LAGS, Classifier, Lags, Verdicts
from proxy.conversation import answer_frame
from proxy.guard.protocol import GuardError, GuardFault, GuardTimeout
from proxy.retokenizer import encode
from proxy.risk import Risk
from proxy.structs import Batch
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, ScriptedStream, risk, words

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


def test_lags_are_bounded_and_keep_the_worst() -> None:
    lags = Lags()
    assert (lags.median, lags.max) == (None, None)
    for seconds in (9.0, *[1.0] * MAX_LAGS):
        lags.begin(5.0)
        lags.add(5.0, 5.0 + seconds)
    assert (lags.median, lags.max) == (1.0, 9.0)
    assert (lags.count, lags.first, lags.last) == (MAX_LAGS + 1, 5.0, 6.0)
    lags.begin(7.0)
    assert (lags.count, lags.first, lags.last) == (MAX_LAGS + 2, 5.0, None)


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


async def test_what_is_put_is_told_at_once_later_or_when_it_is_given_up() -> None:
    class Quick(ScriptedStream):
        def classify(self, position: int, ids: Sequence[int]) -> "asyncio.Future[list[Risk]]":  # type: ignore[override]
            risks: asyncio.Future[list[Risk]] = asyncio.get_running_loop().create_future()
            risks.set_result([risk(SAFE)] * len(ids))
            return risks

    told: asyncio.Queue[Verdicts] = asyncio.Queue()
    guard = ScriptedGuard()
    async with asyncio.timeout(20), await classifier_of(guard) as classifier:
        classifier.put([batch("one")], told.put_nowait)
        assert told.empty()
        assert await told.get() == [[risk(SAFE)]]
        stream, start = classifier._streams[Key(0, "content"), 0]
        assert isinstance(stream, ScriptedStream)
        stream.__class__ = Quick
        classifier.put([batch(" two", position=1)], told.put_nowait)
        assert told.get_nowait() == [[risk(SAFE)]]
        stream.__class__ = ScriptedStream
        guard.delay = 3600
        classifier.put([batch(" two", position=1)], told.put_nowait)
        await asyncio.sleep(0.01)
        assert told.empty()
        classifier.give_up()
        assert isinstance(await told.get(), GuardTimeout)
        classifier.give_up()  # there is nothing more to give up
    assert start == len(PROMPT) + len(answer_frame(Kind.CONTENT).ids)
