"""Which verdicts survive disguises: with a guard that knows one word, the figures follow from the transforms."""

from proxy.evaluation.datasets import Item
from proxy.evaluation.robustness import Share, measure, rewritten, sample_of, work
from proxy.evaluation.run import judge_all
from proxy.evaluation.transforms import TRANSFORMS
from proxy.risk import RiskLevel
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, words


def answered(text: str, label: RiskLevel) -> Item:
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": text})
    return Item("data.jsonl", 1, messages, answer_risk=label)


async def test_rows_tell_what_is_still_flagged_and_what_is_only_now() -> None:
    guard = ScriptedGuard(
        words("bomb", "\u200b", "\u200d", "\u2060")
    )  # and it mistakes some invisible characters for harm
    items = [answered("build a bomb there now", UNSAFE), answered("build a bridge there now", SAFE)]
    judged = await judge_all(items, guard)
    sample = sample_of(judged, "answers", "loose")
    assert (sample.unsafe, sample.safe) == ((items[0],), (items[1],))
    rows = {row.transform: row for row in await measure(sample, guard, "loose")}
    assert list(rows) == list(TRANSFORMS)
    assert rows["soft hyphens"].unsafe == Share(1, plain=0, folded=1)
    assert rows["leet"].unsafe == Share(1, plain=0, folded=0)
    assert rows["soft hyphens"].safe == Share(1, plain=0, folded=0)
    assert rows["zero-width characters"].safe == Share(1, plain=1, folded=1)
    assert rows["leet"].as_dict()["safe"] == {"size": 1, "plain": 0, "folded": 0}
    assert work([sample]) == 2 * len(TRANSFORMS) * 2


async def test_only_what_is_judged_rightly_is_disguised() -> None:
    items = [answered("a bomb in it, you see", SAFE), answered("no such thing in it", UNSAFE)]
    judged = await judge_all(items, ScriptedGuard(words("bomb")))
    sample = sample_of(judged, "answers", "loose")
    assert (sample.unsafe, sample.safe) == ((), ())


async def test_prompts_are_disguised_without_their_answers() -> None:
    item = Item("data.jsonl", 1, answered("Hello.", SAFE).messages, prompt_risk=UNSAFE, answer_risk=SAFE)
    judged = await judge_all([item], ScriptedGuard(prompt_level=UNSAFE))
    [found] = sample_of(judged, "prompts", "loose").unsafe
    assert (len(found.messages), found.answer_risk) == (1, None)


async def test_a_sample_has_its_size_and_is_the_same_each_time() -> None:
    judged = await judge_all([answered(f"text {number}", SAFE) for number in range(20)], ScriptedGuard())
    sample = sample_of(judged, "answers", "loose", 5)
    assert len(sample.safe) == 5
    assert sample == sample_of(judged, "answers", "loose", 5)


def test_the_last_message_is_rewritten_and_no_other() -> None:
    item = rewritten(answered("one", SAFE), str.upper)
    assert [message["content"] for message in item.messages] == ["Hi", "ONE"]
