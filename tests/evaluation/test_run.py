"""Judging labelled conversations: one forward of transformers, read where the published script reads, agrees."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.conversation import render
from proxy.evaluation.datasets import Item, Span
from proxy.evaluation.metrics import Flag
from proxy.evaluation.run import judge, judge_all, token_span
from proxy.guard.loader import load_guard
from proxy.guard.protocol import GuardError, GuardFault, SequenceTooLong
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from proxy.retokenizer import encode
from proxy.risk import RISK_LEVELS, RiskLevel
from proxy.vocabulary import IM_END, THINK_END, decode
from tests.fakes import CONTROVERSIAL, UNSAFE, ScriptedGuard, labels, words
from tests.guard.checkpoints import Reference, random_tensors, small_config, write_checkpoint

CONFIG = small_config(vocab_size=151936)
ANSWERS = (
    "Sure, here it is: one, two, three.",
    "\n\n  Sorry\n\n no",
    "",
    "Größe 今天的天气很好 👍🏽 e\u0301\u0323",
    *(f"Answer number {number} of some length." * (1 + number % 3) for number in range(8)),
)


def item_of(answer: str, thought: str = "", **more: object) -> Item:
    message = {"role": "assistant", "content": answer} | ({"reasoning_content": thought} if thought else {})
    turns = [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "What?"}]
    fields = {"answer_risk": RiskLevel.UNSAFE, "prompt_risk": RiskLevel.SAFE} | more
    return Item("data.jsonl", 1, (*turns, {"role": "user", "content": "All."}, message), **fields)  # type: ignore[arg-type]


def published_start(ids: Sequence[int], *, thinking: bool) -> int:
    """As `eval_stream.py` finds it, in decoded tokens of the last turn."""
    texts = [decode([one]) for one in ids]
    turn = max(at for at, text in enumerate(texts) if text == "<|im_start|>")
    if thinking:
        return turn + 1 + 4
    return next(at for at in range(turn, len(texts)) if texts[at - 1] == "</think>" and texts[at] == "\n\n") + 1


async def test_verdicts_are_those_of_one_forward_read_where_the_published_script_reads(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    reference = Reference(CONFIG, tensors)
    loaded = load_guard(str(write_checkpoint(tmp_path / "guard", tensors, CONFIG)), dtype="float32")
    guard = LocalGuard(loaded, GuardSettings(threads=1))
    items = [item_of(answer) for answer in ANSWERS] + [item_of("Fine.", "Let me think.\n\nWell.")]
    try:
        judged = await judge_all(items, guard, streams=5)
        whole = await judge_all(items, guard, streams=1, read_end=True)
    finally:
        await guard.close()
    assert [one.item for one in judged] == items
    for item, one, to_the_end in zip(items, judged, whole, strict=True):
        ids = render(item.messages, window=1024).ids
        rows = reference.rows(ids)
        start = published_start(ids, thinking=item.has_thought)
        expected = [max(range(3), key=row[:3].__getitem__) for row in rows[start:]]
        assert to_the_end.answer is not None
        assert one.answer is not None
        assert (one.answer.start, list(to_the_end.answer.levels)) == (start, expected)
        assert list(one.answer.levels) == expected[:-2]
        assert list(to_the_end.answer.harms) == pytest.approx([1 - row[0] for row in rows[start:]], abs=1e-5)
        last = max(at for at, token in enumerate(ids[: start - 1]) if token == IM_END and "user" in decode(ids[:at]))
        query = reference.rows(ids, "query_")[_user_end(ids, last)]
        assert one.prompt is not None
        assert one.prompt.levels == pytest.approx(query[:3], abs=1e-5)
        assert one.tokens == len(ids)


def _user_end(ids: Sequence[int], last: int) -> int:
    assert ids[last + 1] == encode("\n")[0]
    return last


async def test_flags_of_an_answer() -> None:
    judged = await judge(item_of("a b c d e f"), ScriptedGuard(labels("SCCSUU")))
    assert judged.answer is not None
    assert judged.answer.flag == judged.answer.loose_flag == Flag(UNSAFE, 5)
    judged = await judge(item_of("a b c d e f"), ScriptedGuard(labels("SCCSUS")))
    assert judged.answer is not None
    assert judged.answer.flag == Flag(CONTROVERSIAL, 2)
    assert judged.answer.loose_flag.at == -1


async def test_an_answer_without_a_label_is_not_judged() -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE)
    judged = await judge(item_of("Hello.", answer_risk=None), guard)
    assert judged.answer is None
    assert judged.prompt is not None
    assert judged.prompt.level is UNSAFE
    assert (guard.tokens, guard.slots) == (0, 0)


async def test_what_does_not_fit_the_window_is_skipped_and_says_so() -> None:
    long = item_of("word " * 300)
    [judged] = await judge_all([long], ScriptedGuard(window=64))
    assert (judged.prompt, judged.answer) == (None, None)
    assert "64 tokens" in judged.skipped
    asked = Item("data.jsonl", 1, ({"role": "user", "content": "word " * 300},), prompt_risk=RiskLevel.SAFE)
    assert "64 tokens" in (await judge(asked, ScriptedGuard(window=64))).skipped
    refusing = ScriptedGuard(fails_after=-1, error=SequenceTooLong("300 tokens"))
    assert (await judge(asked, refusing)).skipped == "300 tokens"


@pytest.mark.parametrize("fault", [{"fails_after": 2}, {"short_by": 1}])
async def test_a_failing_guard_ends_the_evaluation(fault: dict[str, int]) -> None:
    guard = ScriptedGuard(words("x"), **fault)  # type: ignore[arg-type]
    with pytest.raises(GuardFault if "short_by" in fault else GuardError):
        await judge_all([item_of("one two three")] * 3, guard)
    assert guard.slots == 0


async def test_annotated_characters_become_tokens() -> None:
    answer = "\n\nFine. But then it turns bad. And on."
    begin = answer.index("But")
    item = item_of(answer, character_span=Span(begin, begin + len("But then it turns bad.") - 1))
    ids = render(item.messages, window=1024).ids
    judged = await judge(item, ScriptedGuard())
    assert judged.answer is not None
    span = judged.answer.span
    assert span is not None
    assert decode(ids[span.start : span.end + 1]) == " But then it turns bad."
    assert ids[judged.answer.start - 2] == THINK_END


def test_an_item_without_an_annotation_has_no_span() -> None:
    assert token_span(item_of("x"), 10) is None


def test_levels_are_indices_of_the_shared_table() -> None:
    assert [str(level) for level in RISK_LEVELS] == ["Safe", "Unsafe", "Controversial"]
